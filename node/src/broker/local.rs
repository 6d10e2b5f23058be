//! The node's own clean subscribers: who gets a publish here, and which filters the rest of the
//! cluster must know this node wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::filters::Filters;
use crate::mqtt::{SubOptions, topic as mqtt_topic};
use crate::session::Conn;
use crate::sharing::{Slot, key_of};
use crate::topic::Index;

/// One clean subscriber of a filter.
#[derive(Clone)]
pub struct Subscriber {
    pub conn: Arc<Conn>,
    pub options: SubOptions,
    /// Subscription identifier; 0: none.
    pub id: u32,
}

/// The subscribers of one filter. Publishers clone the `Arc` out of the lock and deliver after
/// it; a change copies the list only while one of them still holds it.
#[derive(Default)]
enum Subscribers {
    #[default]
    None,
    One(Subscriber),
    Many(Arc<Vec<Subscriber>>),
}

/// A set of subscribers taken out of the index, to deliver to after its lock is released.
pub enum Recipients {
    One(Subscriber),
    Many(Arc<Vec<Subscriber>>),
}

impl Recipients {
    pub fn as_slice(&self) -> &[Subscriber] {
        match self {
            Self::One(s) => std::slice::from_ref(s),
            Self::Many(list) => list,
        }
    }
}

/// What one publish found here: a set per matching filter.
pub type Matches = SmallVec<[Recipients; 2]>;

/// Whether the rest of the cluster already sends what matches the filter to this node.
#[derive(Default)]
struct Route {
    /// Tells this announcement from an earlier one of the same filter that was withdrawn.
    generation: u64,
    live: bool,
    waiting: Vec<Arc<RouteWait>>,
}

impl Route {
    /// Nobody wants it any more: whoever waited for it waits no longer.
    fn withdraw(self) {
        for wait in self.waiting {
            wait.release();
        }
    }
}

/// Something that must not happen before all of its filters are live on every live node: a SUBACK.
pub struct RouteWait {
    remaining: AtomicUsize,
    done: parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl RouteWait {
    /// Starts with one hold of the caller's, given back by [`RouteWait::release`].
    pub fn new(done: Box<dyn FnOnce() + Send>) -> Arc<Self> {
        Arc::new(Self { remaining: AtomicUsize::new(1), done: parking_lot::Mutex::new(Some(done)) })
    }

    fn hold(&self) {
        self.remaining.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one hold back; the last one runs the action.
    pub fn release(&self) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            let done = self.done.lock().take();
            if let Some(done) = done {
                done();
            }
        }
    }
}

/// What the caller of a change must propose, under the same lock.
#[derive(Debug, PartialEq, Eq)]
pub enum RouteChange {
    None,
    /// First subscriber: announce the filter; report back with this generation.
    Add(u64),
    /// Last subscriber gone: withdraw it.
    Remove,
    /// A shared subscription has so many members here now, which is no longer about as many as
    /// the others know.
    Members(u32),
}

/// A shared subscription's members on this node.
struct Group {
    id: u32,
    /// The whole filter, `$share/group/…`.
    filter: Box<str>,
    members: Vec<Subscriber>,
    /// One for each of them.
    slots: Vec<Slot>,
    /// How many members the others have been told of.
    announced: u32,
    route: Route,
}

/// A shared subscription's members on this node, and its number.
pub struct Members<'a> {
    pub subscribers: &'a [Subscriber],
    pub slots: &'a [Slot],
    pub group: u32,
}

impl Group {
    /// Adds or replaces; true when it was not there.
    fn put(&mut self, subscriber: Subscriber) -> bool {
        let key = key_of(subscriber.conn.client());
        let new = put(&mut self.members, subscriber);
        if new {
            self.slots.push(Slot { key, weight: 1 });
        }
        new
    }

    fn take(&mut self, conn_id: u64) {
        if let Some(at) = self.members.iter().position(|m| m.conn.id() == conn_id) {
            self.members.remove(at);
            self.slots.remove(at);
        }
    }

    /// What the others have to be told, so that what they know is off by an eighth at most. Up to
    /// eight members it is exact.
    fn change(&mut self) -> RouteChange {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        if members.abs_diff(self.announced) <= self.announced / 8 {
            return RouteChange::None;
        }
        self.announced = members;
        RouteChange::Members(members)
    }
}

/// All that subscribes to one topic filter.
#[derive(Default)]
struct Entry {
    subscribers: Subscribers,
    route: Route,
    groups: Vec<Group>,
}

/// The index of clean subscriptions.
#[derive(Default)]
pub struct Local {
    index: Index<Entry>,
    /// Filters per connection, to drop them when it ends.
    by_conn: HashMap<u64, Filters>,
    /// Shared subscriptions by the number that deliveries to their members carry.
    groups: HashMap<u32, Box<str>>,
    generations: u64,
    group_ids: u32,
}

fn plain_filter(filter: &str) -> &str {
    mqtt_topic::parse_share(filter).map_or(filter, |(_, inner)| inner)
}

impl Local {
    /// Adds or replaces `subscriber`'s subscription. Returns whether it is new, and what to
    /// propose. `wait` is held until the filter is live.
    pub fn subscribe(
        &mut self,
        filter: &str,
        subscriber: Subscriber,
        wait: &Arc<RouteWait>,
    ) -> (bool, RouteChange) {
        let shared = mqtt_topic::parse_share(filter).is_some();
        let conn_id = subscriber.conn.id();
        let entry = self.index.get_mut_or_insert(plain_filter(filter), Entry::default);
        let (new, route, counted) = if shared {
            let at = match entry.groups.iter().position(|g| &*g.filter == filter) {
                Some(at) => at,
                None => {
                    // 0 means no group.
                    self.group_ids = self.group_ids.checked_add(1).unwrap_or(1);
                    self.groups.insert(self.group_ids, filter.into());
                    entry.groups.push(Group {
                        id: self.group_ids,
                        filter: filter.into(),
                        members: Vec::new(),
                        slots: Vec::new(),
                        announced: 1,
                        route: Route::default(),
                    });
                    entry.groups.len() - 1
                }
            };
            let group = &mut entry.groups[at];
            let new = group.put(subscriber);
            let change = group.change();
            (new, &mut group.route, change)
        } else {
            (entry.subscribers.put(subscriber), &mut entry.route, RouteChange::None)
        };
        let change = if route.generation == 0 {
            self.generations += 1;
            route.generation = self.generations;
            RouteChange::Add(route.generation)
        } else {
            counted
        };
        if !route.live {
            wait.hold();
            route.waiting.push(wait.clone());
        }
        if new {
            self.by_conn.entry(conn_id).or_default().push(filter.into());
        }
        (new, change)
    }

    /// Removes one subscription. Returns whether it existed, and what to propose.
    pub fn unsubscribe(&mut self, filter: &str, conn_id: u64) -> (bool, RouteChange) {
        let Some(filters) = self.by_conn.get_mut(&conn_id) else { return (false, RouteChange::None) };
        if !filters.remove(filter) {
            return (false, RouteChange::None);
        }
        if filters.is_empty() {
            self.by_conn.remove(&conn_id);
        }
        (true, self.remove(filter, conn_id))
    }

    /// The filters of a connection; `None`: it has none.
    pub fn filters(&self, conn_id: u64) -> Option<&Filters> {
        self.by_conn.get(&conn_id)
    }

    /// Forgets what a connection subscribes to, and returns it: each filter is then to be removed.
    pub fn take_filters(&mut self, conn_id: u64) -> Vec<Box<str>> {
        self.by_conn.remove(&conn_id).map_or_else(Vec::new, Filters::into_vec)
    }

    /// Removes one of the filters that [`Local::take_filters`] returned.
    pub fn remove(&mut self, filter: &str, conn_id: u64) -> RouteChange {
        let plain = plain_filter(filter);
        let Some(entry) = self.index.get_mut(plain) else { return RouteChange::None };
        let mut change = RouteChange::None;
        let gone = if plain.len() == filter.len() {
            entry.subscribers.take(conn_id);
            let gone = entry.subscribers.is_empty();
            if gone {
                std::mem::take(&mut entry.route).withdraw();
            }
            gone
        } else if let Some(at) = entry.groups.iter().position(|g| &*g.filter == filter) {
            entry.groups[at].take(conn_id);
            let gone = entry.groups[at].members.is_empty();
            if !gone {
                change = entry.groups[at].change();
            } else {
                let group = entry.groups.swap_remove(at);
                self.groups.remove(&group.id);
                group.route.withdraw();
            }
            gone
        } else {
            false
        };
        if entry.subscribers.is_empty() && entry.groups.is_empty() {
            self.index.remove(plain);
        }
        if gone { RouteChange::Remove } else { change }
    }

    /// The announcement of `filter` is applied on every live node. Returns who waited for it.
    pub fn live(&mut self, filter: &str, generation: u64) -> Vec<Arc<RouteWait>> {
        let plain = plain_filter(filter);
        let Some(entry) = self.index.get_mut(plain) else { return Vec::new() };
        let route = if plain.len() == filter.len() {
            &mut entry.route
        } else {
            match entry.groups.iter_mut().find(|g| &*g.filter == filter) {
                Some(group) => &mut group.route,
                None => return Vec::new(),
            }
        };
        if route.generation != generation {
            return Vec::new();
        }
        route.live = true;
        std::mem::take(&mut route.waiting)
    }

    /// The clean subscribers of `topic`, shared subscriptions aside.
    pub fn matches(&self, topic: &str) -> Matches {
        let mut found = Matches::new();
        self.index.matches(topic, |entry| match &entry.subscribers {
            Subscribers::None => {}
            Subscribers::One(s) => found.push(Recipients::One(s.clone())),
            Subscribers::Many(list) => found.push(Recipients::Many(list.clone())),
        });
        found
    }

    /// A shared subscription's members on this node; `None`: it has none.
    pub fn members(&self, filter: &str) -> Option<Members<'_>> {
        let group = self.group(filter)?;
        Some(Members { subscribers: &group.members, slots: &group.slots, group: group.id })
    }

    fn group(&self, filter: &str) -> Option<&Group> {
        self.index.get(plain_filter(filter))?.groups.iter().find(|g| &*g.filter == filter)
    }

    /// The filter of a shared subscription that still has members here.
    pub fn group_filter(&self, group: u32) -> Option<Box<str>> {
        self.groups.get(&group).cloned()
    }

    /// How many filters have a clean subscriber here.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Forgets every subscriber: this life of the node is over.
    pub fn clear(&mut self) {
        self.index = Index::default();
        self.by_conn = HashMap::new();
        self.groups = HashMap::new();
    }
}

/// Adds or replaces; true when it was not there.
fn put(list: &mut Vec<Subscriber>, subscriber: Subscriber) -> bool {
    match list.iter_mut().find(|s| s.conn.id() == subscriber.conn.id()) {
        Some(old) => {
            *old = subscriber;
            false
        }
        None => {
            list.push(subscriber);
            true
        }
    }
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn put(&mut self, subscriber: Subscriber) -> bool {
        match self {
            Self::None => {
                *self = Self::One(subscriber);
                true
            }
            Self::One(only) if only.conn.id() == subscriber.conn.id() => {
                *only = subscriber;
                false
            }
            Self::One(only) => {
                *self = Self::Many(Arc::new(vec![only.clone(), subscriber]));
                true
            }
            Self::Many(list) => put(Arc::make_mut(list), subscriber),
        }
    }

    fn take(&mut self, conn_id: u64) {
        match self {
            Self::One(only) if only.conn.id() == conn_id => *self = Self::None,
            Self::Many(list) => {
                let list = Arc::make_mut(list);
                if let Some(at) = list.iter().position(|s| s.conn.id() == conn_id) {
                    list.swap_remove(at);
                }
                match list.as_slice() {
                    [] => *self = Self::None,
                    [only] => *self = Self::One(only.clone()),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}
