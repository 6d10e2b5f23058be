//! What any node may ask of the state, under a reader's lock.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::cow::CowMap;
use super::limits::{DUE_VISITS_MAX, ONLINE_PROBE_MAX, REPLAY_VISITS_MAX};
use super::machine::State;
use super::nodes::{LifeId, NodeStatus};
use super::queue::StoredPage;
use super::replay::Part;
use super::retained::Walked;
use super::session::NEVER;
use super::sessions::Claimed;
use super::shared::Group;
use super::subscribers::Sub;
use super::{
    Ban, Epoch, Incarnation, NodeId, NodeInfo, QueueSeq, Replay, Replayed, Replays, Resumed, Subscription,
};
use crate::auth::{Banned, Rules, User};
use crate::mqtt::{Message, QoS, SubOptions};

/// Who has to take part in a publish. Reusable: [`State::match_publish`] clears it first.
#[derive(Clone, Debug, Default)]
pub struct PublishMatch {
    /// A persistent session or the persistent member of a shared group wants it at QoS 1 or 2:
    /// it must go through the log, and the rest is left empty.
    pub must_log: bool,
    /// Live nodes with a clean subscriber or an online persistent one at QoS 0, the asking
    /// node included, each once. May name nodes that turn out to have none.
    pub nodes: SmallVec<[NodeId; 8]>,
    /// The shared groups: exactly one of the nodes of each gets it.
    pub shared: SmallVec<[SharedMatch; 2]>,
}

/// A shared group without a persistent member that would queue the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMatch {
    /// The whole filter, `$share/group/…`.
    pub filter: Arc<str>,
    /// Live nodes with a connected member, each once, and how many they have.
    pub nodes: SmallVec<[(NodeId, u32); 8]>,
}

/// What a [`super::Command::Sweep`] should name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub clients: Vec<Arc<str>>,
    pub routes: Vec<Box<str>>,
    /// The search was cut short: there may be more.
    pub more: bool,
}

impl Due {
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.routes.is_empty()
    }
}

/// How far the search for leftovers of ended lives has come; the default starts anywhere.
#[derive(Clone, Debug, Default)]
pub struct SweepCursor {
    claims: usize,
    routes: usize,
}

/// A client id with all that an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    pub client: Arc<str>,
    pub incarnation: Incarnation,
    /// Where it is connected, if it is.
    pub owner: Option<(NodeId, Epoch)>,
    pub persistent: bool,
    /// Session Expiry Interval, seconds; `u32::MAX`: never.
    pub expiry_s: u32,
    /// Clock at which the disconnected session ends; `None`: connected, or never.
    pub expires_at_ms: Option<u64>,
    /// Of persistent sessions; those of clean ones are known to their node only.
    pub subscriptions: usize,
    /// Incomplete deliveries, those in flight included.
    pub queued: usize,
    pub queued_bytes: usize,
    /// Messages lost to the queue's limits.
    pub dropped: u64,
}

/// Sizes of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Client ids with an owner or a session.
    pub claims: usize,
    pub persistent_sessions: usize,
    pub retained_messages: usize,
    pub retained_bytes: usize,
    /// Publishes that this node, since its start, saw not retained because of the limits.
    pub retained_refused: u64,
    /// Filters with a clean subscriber anywhere.
    pub routes: usize,
    /// Messages that wait for a member of a shared subscription.
    pub shared_waiting: usize,
}

impl State {
    /// The replicated clock, milliseconds.
    pub fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// Whether the node, in its present life, knows what time it is: not while all nodes may have
    /// been down and it is not known for how long.
    pub fn knows_the_time(&self, node: NodeId) -> bool {
        self.nodes.life_of(node).is_none_or(|life| self.walls.is_settled(life))
    }

    /// What is kept of a user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.settings.users().get(name)
    }

    pub fn user_count(&self) -> usize {
        self.settings.users().len()
    }

    /// Up to `limit` users that follow `after` in a fixed order.
    pub fn users(&self, after: Option<&str>, limit: usize) -> Vec<(Arc<str>, User)> {
        let page = self.settings.users().page(after, limit).into_iter();
        page.map(|(name, user)| (Arc::clone(name), user.clone())).collect()
    }

    /// The rules, and how often they have been replaced.
    pub fn rules(&self) -> (&Rules, u64) {
        self.settings.rules()
    }

    /// Up to `limit` bans that follow `after` in a fixed order, those among them that are over.
    pub fn bans(&self, after: Option<&Banned>, limit: usize) -> Vec<(Banned, Ban)> {
        self.settings.ban_page(after, limit)
    }

    /// Whether a ban on any network that it is of keeps an address out.
    pub fn is_address_banned(&self, address: IpAddr) -> bool {
        self.settings.is_address_banned(address, self.clock_ms)
    }

    /// Whether a ban keeps out who has this id, this name or this address.
    pub fn is_banned(&self, client: &str, user: Option<&str>, address: Option<IpAddr>) -> bool {
        self.settings.is_banned(client, user, address, self.clock_ms)
    }

    /// Nodes that are up, by id.
    pub fn live_nodes(&self) -> impl Iterator<Item = (NodeId, Epoch, &NodeInfo)> {
        self.nodes.live()
    }

    /// Whether this life of the node is up.
    pub fn is_live(&self, node: NodeId, epoch: Epoch) -> bool {
        self.nodes.status(node).is_some_and(|s| s.up && s.epoch == epoch)
    }

    pub fn node(&self, node: NodeId) -> Option<NodeStatus> {
        self.nodes.status(node)
    }

    /// Every node that ever was up, by id.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.nodes.statuses().collect()
    }

    /// Client ids the node owns.
    pub fn claims_of(&self, node: NodeId) -> usize {
        self.nodes.claims_of(node)
    }

    /// The live owner of a client id.
    pub fn owner(&self, client: &str) -> Option<(NodeId, Epoch, Incarnation)> {
        let claimed = self.sessions.get(client)?;
        let (node, epoch) = self.nodes.up(claimed.owner()?)?;
        Some((node, epoch, claimed.incarnation()))
    }

    /// A claimed client id as the state holds it, for sharing instead of keeping a copy.
    pub fn client_id(&self, client: &str) -> Option<&Arc<str>> {
        self.sessions.key(client)
    }

    /// Up to `max` deliveries of a persistent session from position `from` on, only what is
    /// reserved for sending. Empty if the incarnation is not the present one.
    pub fn stored(&self, client: &str, incarnation: Incarnation, from: QueueSeq, max: usize) -> StoredPage {
        match self.sessions.session(client).filter(|s| s.incarnation == incarnation) {
            Some(session) => session.queue.page(from, max, self.clock_ms),
            None => StoredPage { next: from, ..StoredPage::default() },
        }
    }

    /// Position of the oldest incomplete delivery of a persistent session, or of the next one.
    pub fn queue_head(&self, client: &str) -> Option<QueueSeq> {
        Some(self.sessions.session(client)?.queue.head())
    }

    /// Positions below may be sent by the owner.
    pub fn sent_upto(&self, client: &str) -> Option<QueueSeq> {
        Some(self.sessions.session(client)?.queue.sent_upto())
    }

    /// How `publisher`'s message on `topic` has to be published. (A retained message, or QoS 2
    /// of a persistent publisher, goes through the log whatever this says.)
    pub fn match_publish(&self, topic: &str, publisher: &str, qos: QoS, out: &mut PublishMatch) {
        out.must_log = false;
        out.nodes.clear();
        out.shared.clear();
        let logged = qos > QoS::AtMostOnce;
        let mut online: SmallVec<[NodeId; 8]> = SmallVec::new();
        let mut live = None;
        self.subscribers.matches(topic, |subscribers| {
            if out.must_log {
                return;
            }
            if logged && subscribers.is_durable_for(publisher) {
                out.must_log = true;
                return;
            }
            let live = *live.get_or_insert_with(|| self.nodes.live().count());
            for (client, sub) in subscribers.iter().take(ONLINE_PROBE_MAX) {
                if online.len() >= live {
                    return;
                }
                if !sub.excludes(client, publisher)
                    && let Some((node, ..)) = self.owner(client)
                {
                    add(&mut online, node);
                }
            }
            if subscribers.len() > ONLINE_PROBE_MAX {
                self.nodes.owning().for_each(|node| add(&mut online, node));
            }
        });
        if out.must_log {
            return;
        }
        self.shared.matches(topic, |group| {
            if logged && group.is_durable() {
                out.must_log = true;
            } else if !out.must_log {
                let nodes = self.online_nodes(group, qos);
                if !nodes.is_empty() {
                    out.shared.push(SharedMatch { filter: Arc::clone(&group.full), nodes });
                }
            }
        });
        if out.must_log {
            out.shared.clear();
            return;
        }
        self.routes.matches(topic, |life| {
            if let Some((node, _)) = self.nodes.up(life) {
                add(&mut out.nodes, node);
            }
        });
        online.iter().for_each(|node| add(&mut out.nodes, *node));
    }

    /// Nodes with connected members, and how many they have: of the clean ones as many as the node
    /// has said, of the persistent ones those that do not queue what is published at `qos`.
    fn online_nodes(&self, group: &Group, qos: QoS) -> SmallVec<[(NodeId, u32); 8]> {
        let clean = group.lives();
        let persistent = group.members().iter().filter(|m| m.sub.options.qos.min(qos) == QoS::AtMostOnce);
        let persistent = persistent.filter_map(|m| Some((m.owner?, 1)));
        let mut nodes: SmallVec<[(NodeId, u32); 8]> = SmallVec::new();
        for (life, members) in clean.chain(persistent) {
            let Some((node, _)) = self.nodes.up(life) else { continue };
            match nodes.iter_mut().find(|(n, _)| *n == node) {
                Some((_, so_far)) => *so_far = so_far.saturating_add(members),
                None => nodes.push((node, members)),
            }
        }
        nodes
    }

    /// Nodes with connected members of a shared subscription that could take a message of `qos`
    /// without the log, by id.
    pub fn shared_nodes(&self, filter: &str, qos: QoS) -> SmallVec<[NodeId; 8]> {
        let found = self.shared.get(filter).map(|group| self.online_nodes(group, qos));
        let mut nodes: SmallVec<[NodeId; 8]> = found.into_iter().flatten().map(|(node, _)| node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Whether a persistent member of the shared subscription wants QoS 1 or 2.
    pub fn is_shared_durably(&self, filter: &str) -> bool {
        self.shared.get(filter).is_some_and(Group::is_durable)
    }

    /// Shared subscriptions with messages that wait for a member, and how many; up to `max`.
    pub fn waiting_shared(&self, max: usize) -> Vec<(Arc<str>, usize)> {
        let backlogs = self.shared.backlogs();
        if backlogs.len() == 0 {
            return Vec::new();
        }
        backlogs.sorted().take(max).map(|(full, queue)| (Arc::clone(full), queue.len())).collect()
    }

    /// Live nodes with a clean subscriber of exactly this filter, shared ones included.
    pub fn route_nodes(&self, filter: &str) -> SmallVec<[NodeId; 8]> {
        let lives = self.routes.get(filter).into_iter().flatten();
        lives.filter_map(|l| self.nodes.up(*l)).map(|(node, _)| node).collect()
    }

    /// Persistent sessions connected to `node` that a publish reaches at effective QoS 0: it is
    /// not in their queue, the node delivers it directly. `f(client, subscription ids,
    /// retain as published)`; shared subscriptions are not among them.
    pub fn online_qos0(
        &self,
        topic: &str,
        node: NodeId,
        publisher: &str,
        qos: QoS,
        mut f: impl FnMut(&Arc<str>, &[u32], bool),
    ) {
        for hit in self.subscribers.hits(topic, publisher) {
            if hit.qos.min(qos) == QoS::AtMostOnce && self.is_on(hit.client, node) {
                f(hit.client, &hit.ids, hit.retain_as_published);
            }
        }
    }

    /// Persistent members of a shared group (named by its whole filter) connected to `node` that
    /// take a message of `qos` at effective QoS 0: they share the turns that fall on the node
    /// with its clean members. `f(client, subscription id or 0, retain as published)`.
    pub fn online_shared_qos0(
        &self,
        filter: &str,
        node: NodeId,
        qos: QoS,
        mut f: impl FnMut(&Arc<str>, u32, bool),
    ) {
        let Some(group) = self.shared.get(filter) else { return };
        for member in group.members() {
            let (sub, owner) = (member.sub, member.owner.and_then(|owner| self.nodes.up(owner)));
            if sub.options.qos.min(qos) == QoS::AtMostOnce && owner.is_some_and(|(n, _)| n == node) {
                f(&member.client, sub.id, sub.options.retain_as_published);
            }
        }
    }

    fn is_on(&self, client: &str, node: NodeId) -> bool {
        self.owner(client).is_some_and(|(n, ..)| n == node)
    }

    /// What a clean session's new subscription gets of the retained messages, from this moment on;
    /// `None`: nothing.
    pub fn replay(&self, filter: &str, options: SubOptions, id: u32, is_new: bool) -> Option<Replay> {
        let sub = Sub { options, id };
        sub.wants_retained(filter, is_new).then(|| self.retained.replay(filter, sub, Part::All)).flatten()
    }

    /// Goes on with a client's replays: calls `take` with what is next until it says that it did
    /// not take it, or until `visits`, which the topics looked at are counted down from, is 0.
    /// [`REPLAY_VISITS_MAX`](super::limits::REPLAY_VISITS_MAX) is for one use of the state's lock.
    pub fn resume(
        &self,
        replays: &mut Replays,
        client: &str,
        visits: &mut usize,
        take: &mut dyn FnMut(Replayed<'_>) -> bool,
    ) -> Resumed {
        self.retained.resume(replays, client, self.clock_ms, visits, take)
    }

    /// Gives what a client's replays have of this topic, ahead of a newer message that is about to
    /// be delivered: a topic's messages keep their order [MQTT-4.6.0-5].
    pub fn catch_up(
        &self,
        replays: &mut Replays,
        client: &str,
        topic: &str,
        take: &mut dyn FnMut(Replayed<'_>) -> bool,
    ) {
        self.retained.catch_up(replays, topic, client, self.clock_ms, take);
    }

    pub fn retained_get(&self, topic: &str) -> Option<&Arc<Message>> {
        self.retained.get(topic, self.clock_ms)
    }

    /// Calls `take` with the retained messages of the topics, from `from` on and in their order, that
    /// the (not shared) filter matches, until it says that it did not take one. Looks at
    /// [`REPLAY_VISITS_MAX`] topics at most, and returns the one to go on from; `None`: there are no
    /// more.
    pub fn list_retained(
        &self,
        filter: &str,
        from: &str,
        mut take: impl FnMut(&Arc<Message>) -> bool,
    ) -> Option<Box<str>> {
        let mut visits = REPLAY_VISITS_MAX;
        let walked = self
            .retained
            .walk(filter, from, &mut visits, |topic| self.retained_get(topic).is_none_or(&mut take));
        match walked {
            Walked::End => None,
            Walked::Stopped(next) | Walked::Paused(next) => Some(next),
        }
    }

    /// What the leader should sweep now: up to `max` clients whose session's end or will was due when
    /// the clock showed `until_ms`, or whose owner's life is over, and up to `max` filters with routes of ended lives. One
    /// call looks at a bounded part; the cursor remembers where to go on, so that calls until
    /// nothing is due any more see everything.
    pub fn due(&self, until_ms: u64, cursor: &mut SweepCursor, max: usize) -> Due {
        let mut due = Due::default();
        due.clients.extend(self.sessions.due(until_ms).take(max).cloned());
        due.more = due.clients.len() == max;
        let (claims, routes) = self.nodes.unswept();
        if claims {
            let room = max - due.clients.len();
            let sizes = |s| self.sessions.claims().shard_len(s);
            let found = |s| self.sessions.ended(s, &self.nodes).cloned();
            due.more |= !search(&mut cursor.claims, room, sizes, found, &mut due.clients);
        }
        if routes {
            let sizes = |s| self.routes.table().shard_len(s);
            let found = |s| self.routes.ended(s, &self.nodes).map(|f| Box::from(f.as_ref()));
            due.more |= !search(&mut cursor.routes, max, sizes, found, &mut due.routes);
        }
        due
    }

    pub fn counts(&self) -> Counts {
        Counts {
            claims: self.sessions.claims().len(),
            persistent_sessions: self.sessions.persistent(),
            retained_messages: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            retained_refused: self.retained.refused(),
            routes: self.routes.len(),
            shared_waiting: self.waiting_shared(usize::MAX).iter().map(|(_, waiting)| waiting).sum(),
        }
    }

    pub fn client(&self, client: &str) -> Option<ClientInfo> {
        let (client, claimed) = self.sessions.claims().get_key_value(client)?;
        Some(self.info(client, claimed))
    }

    /// Up to `limit` clients that follow `after` in a fixed order (not that of the ids).
    pub fn clients(&self, after: Option<&str>, limit: usize) -> Vec<ClientInfo> {
        let page = self.sessions.claims().page(after, limit);
        page.into_iter().map(|(client, claimed)| self.info(client, claimed)).collect()
    }

    fn info(&self, client: &Arc<str>, claimed: &Claimed) -> ClientInfo {
        let session = claimed.session();
        let queue = session.map(|s| &s.queue);
        ClientInfo {
            client: Arc::clone(client),
            incarnation: claimed.incarnation(),
            owner: claimed.owner().and_then(|o: LifeId| self.nodes.up(o)),
            persistent: session.is_some(),
            expiry_s: session.map_or(0, |s| s.expiry_s),
            expires_at_ms: session.map(|s| s.expires_at_ms).filter(|at| *at != NEVER),
            subscriptions: session.map_or(0, |s| s.subs.len()),
            queued: queue.map_or(0, super::queue::Queue::len),
            queued_bytes: queue.map_or(0, super::queue::Queue::bytes),
            dropped: queue.map_or(0, super::queue::Queue::dropped),
        }
    }

    /// The subscriptions of a persistent session, ordered by filter.
    pub fn subscriptions(&self, client: &str) -> Vec<Subscription> {
        let subs = self.sessions.session(client).into_iter().flat_map(|s| &s.subs);
        subs.map(|(filter, sub)| Subscription { filter: filter.clone(), options: sub.options, id: sub.id })
            .collect()
    }
}

fn add(nodes: &mut SmallVec<[NodeId; 8]>, node: NodeId) {
    if !nodes.contains(&node) {
        nodes.push(node);
    }
}

/// Collects up to `room` finds, shard by shard from `at` on, at most once around; false if it ended
/// before. A shard that was cut short is looked at again next time: what was found will be gone by
/// then.
fn search<T, I: Iterator<Item = T>>(
    at: &mut usize,
    room: usize,
    size: impl Fn(usize) -> usize,
    find: impl Fn(usize) -> I,
    found: &mut Vec<T>,
) -> bool {
    let (mut left, mut visited) = (room, 0);
    for _ in 0..CowMap::<()>::shards() {
        let before = found.len();
        found.extend(find(*at).take(left));
        left -= found.len() - before;
        visited += size(*at);
        if left == 0 || visited > DUE_VISITS_MAX {
            // Only a shard that had room to spare is done with.
            if left > 0 {
                *at = (*at + 1) % CowMap::<()>::shards();
            }
            return false;
        }
        *at = (*at + 1) % CowMap::<()>::shards();
    }
    true
}
