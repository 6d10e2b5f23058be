//! Shared subscriptions: per (group, filter), the persistent members and the nodes with clean
//! members, what was remembered of the last choice, and the messages that wait for a member.

use std::sync::Arc;

use smallvec::SmallVec;

use super::NodeId;
use super::cow::CowMap;
use super::limits::QueueLimits;
use super::nodes::LifeId;
use super::queue::{Entry, Queue};
use super::subscribers::Sub;
use crate::sharing::{Slot, Turn, key_of, key_of_node};
use crate::topic::{Index, split_shared};

/// A persistent member.
#[derive(Debug)]
pub(super) struct Member {
    pub client: Arc<str>,
    pub sub: Sub,
    /// Of its session; the life may be over.
    pub owner: Option<LifeId>,
}

/// Whom a slot stands for.
#[derive(Debug)]
pub(super) enum Party<'a> {
    Member(&'a Member),
    /// The clean members on a node, of this life.
    Node(LifeId),
}

/// One (group, filter).
#[derive(Debug)]
pub(super) struct Group {
    /// The whole filter, `$share/group/…`.
    pub full: Arc<str>,
    /// By client id.
    members: Vec<Member>,
    /// Ascending.
    lives: Vec<LifeId>,
    /// Those of the members, then those of the lives.
    slots: Vec<Slot>,
    durable: usize,
}

impl Group {
    /// Whether a persistent member wants QoS 1 or 2.
    pub(super) fn is_durable(&self) -> bool {
        self.durable > 0
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whom the slot at this place stands for.
    pub(super) fn party(&self, at: usize) -> Option<Party<'_>> {
        match self.members.get(at) {
            Some(member) => Some(Party::Member(member)),
            None => self.lives.get(at - self.members.len()).map(|life| Party::Node(*life)),
        }
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Lives with clean members, and how many they have said to have.
    pub(super) fn lives(&self) -> impl Iterator<Item = (LifeId, u32)> {
        self.lives.iter().zip(&self.slots[self.members.len()..]).map(|(life, slot)| (*life, slot.weight))
    }

    fn find(&self, client: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|m| m.client.as_ref().cmp(client))
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

type Groups = SmallVec<[Box<Group>; 1]>;

/// How many clean members each life has said to have.
pub(super) type Counts = Vec<(LifeId, u32)>;

#[derive(Debug, Default)]
pub(super) struct Shared {
    index: Index<Groups>,
    /// By whole filter.
    turns: CowMap<Turn>,
    /// How many clean members a life has said to have, where it is not 1.
    counts: CowMap<Counts>,
    /// By whole filter: the messages that no member could take yet. Never an empty one.
    backlogs: CowMap<Arc<Queue>>,
}

impl Shared {
    pub(super) fn join(&mut self, full: &str, client: &Arc<str>, sub: Sub, owner: Option<LifeId>) {
        let Some(group) = self.group_mut(full) else { return };
        group.durable += usize::from(sub.is_durable());
        match group.find(client) {
            Ok(at) => {
                group.durable -= usize::from(group.members[at].sub.is_durable());
                group.members[at].sub = sub;
            }
            Err(at) => {
                group.members.insert(at, Member { client: Arc::clone(client), sub, owner });
                group.slots.insert(at, Slot { key: key_of(client), weight: 1 });
            }
        }
    }

    pub(super) fn leave(&mut self, full: &str, client: &str) {
        let Some(group) = self.existing_mut(full) else { return };
        if let Ok(at) = group.find(client) {
            let member = group.members.remove(at);
            group.slots.remove(at);
            group.durable -= usize::from(member.sub.is_durable());
        }
        self.drop_if_empty(full);
    }

    /// The member's session has another owner, or none.
    pub(super) fn own(&mut self, full: &str, client: &str, owner: Option<LifeId>) {
        if let Some(group) = self.existing_mut(full)
            && let Ok(at) = group.find(client)
        {
            group.members[at].owner = owner;
        }
    }

    pub(super) fn add_node(&mut self, full: &str, life: LifeId, node: NodeId) {
        let Some(group) = self.group_mut(full) else { return };
        if let Err(at) = group.lives.binary_search(&life) {
            group.lives.insert(at, life);
            group.slots.insert(group.members.len() + at, Slot { key: key_of_node(node), weight: 1 });
        }
    }

    pub(super) fn remove_node(&mut self, full: &str, life: LifeId) {
        let Some(group) = self.existing_mut(full) else { return };
        if let Ok(at) = group.lives.binary_search(&life) {
            group.lives.remove(at);
            group.slots.remove(group.members.len() + at);
        }
        self.note_count(full, life, 1);
        self.drop_if_empty(full);
    }

    /// A life with clean members says how many they are.
    pub(super) fn count_members(&mut self, full: &str, life: LifeId, members: u32) {
        let Some(group) = self.existing_mut(full) else { return };
        let Ok(at) = group.lives.binary_search(&life) else { return };
        let members = members.max(1);
        let slot = group.members.len() + at;
        group.slots[slot].weight = members;
        self.note_count(full, life, members);
    }

    fn note_count(&mut self, full: &str, life: LifeId, members: u32) {
        let Some(counts) = self.counts.get_mut(full) else {
            if members != 1 {
                self.counts.insert(full.into(), vec![(life, members)]);
            }
            return;
        };
        counts.retain(|(l, _)| *l != life);
        if members != 1 {
            counts.push((life, members));
            counts.sort_unstable();
        }
        if counts.is_empty() {
            self.counts.remove(full);
        }
    }

    fn group_mut(&mut self, full: &str) -> Option<&mut Group> {
        let (_, filter) = split_shared(full)?;
        let groups = self.index.get_mut_or_insert(filter, Groups::new);
        let at = match groups.binary_search_by(|g| g.full.as_ref().cmp(full)) {
            Ok(at) => at,
            Err(at) => {
                let group = Group {
                    full: full.into(),
                    members: Vec::new(),
                    lives: Vec::new(),
                    slots: Vec::new(),
                    durable: 0,
                };
                groups.insert(at, Box::new(group));
                at
            }
        };
        Some(&mut groups[at])
    }

    fn existing_mut(&mut self, full: &str) -> Option<&mut Group> {
        let groups = self.index.get_mut(split_shared(full)?.1)?;
        let at = groups.binary_search_by(|g| g.full.as_ref().cmp(full)).ok()?;
        Some(&mut groups[at])
    }

    fn drop_if_empty(&mut self, full: &str) {
        let Some((_, filter)) = split_shared(full) else { return };
        let Some(groups) = self.index.get_mut(filter) else { return };
        let before = groups.len();
        groups.retain(|g| g.full.as_ref() != full || !g.is_empty());
        if groups.len() < before {
            if groups.is_empty() {
                self.index.remove(filter);
            }
            self.turns.remove(full);
            self.backlogs.remove(full);
        }
    }

    pub(super) fn get(&self, full: &str) -> Option<&Group> {
        let groups = self.index.get(split_shared(full)?.1)?;
        let at = groups.binary_search_by(|g| g.full.as_ref().cmp(full)).ok()?;
        Some(&groups[at])
    }

    #[inline]
    pub(super) fn matches<'a>(&'a self, topic: &str, mut f: impl FnMut(&'a Group)) {
        if !self.index.is_empty() {
            self.index.matches(topic, |groups| groups.iter().for_each(|g| f(g)));
        }
    }

    pub(super) fn turn(&self, full: &str) -> Turn {
        self.turns.get(full).copied().unwrap_or_default()
    }

    pub(super) fn set_turn(&mut self, full: &Arc<str>, turn: Turn) {
        match self.turns.get_mut(full) {
            Some(old) => *old = turn,
            None => {
                self.turns.insert(Arc::clone(full), turn);
            }
        }
    }

    pub(super) fn turns(&self) -> &CowMap<Turn> {
        &self.turns
    }

    pub(super) fn counts(&self) -> &CowMap<Counts> {
        &self.counts
    }

    pub(super) fn backlogs(&self) -> &CowMap<Arc<Queue>> {
        &self.backlogs
    }

    pub(super) fn backlog(&self, full: &str) -> Option<&Queue> {
        self.backlogs.get(full).map(Arc::as_ref)
    }

    /// Restores what [`Shared::backlogs`] held.
    pub(super) fn set_backlog(&mut self, full: Arc<str>, queue: Queue) {
        if queue.len() > 0 {
            self.backlogs.insert(full, Arc::new(queue));
        }
    }

    fn backlog_mut(&mut self, full: &Arc<str>) -> Option<&mut Queue> {
        if self.backlogs.get(full).is_none() {
            self.backlogs.insert(Arc::clone(full), Arc::default());
        }
        self.backlogs.get_mut(full).map(Arc::make_mut)
    }

    /// The message waits until a member can take it; false: there is no room for it.
    pub(super) fn wait(
        &mut self,
        full: &Arc<str>,
        entry: Entry,
        limits: &QueueLimits,
        clock_ms: u64,
    ) -> bool {
        self.backlog_mut(full).is_some_and(|queue| queue.push(entry, limits, clock_ms))
    }

    /// Was taken, or given to a member, and waits in front of the others.
    pub(super) fn wait_first(&mut self, full: &Arc<str>, entry: Entry) {
        if let Some(queue) = self.backlog_mut(full) {
            queue.put_first(entry);
        }
    }

    /// Takes the first message that waits and has not expired.
    pub(super) fn take_waiting(&mut self, full: &str, clock_ms: u64) -> Option<Entry> {
        let queue = Arc::make_mut(self.backlogs.get_mut(full)?);
        let mut entry = queue.take_first();
        while entry.as_ref().is_some_and(|e| e.is_expired(clock_ms)) {
            entry = queue.take_first();
        }
        if queue.len() == 0 {
            self.backlogs.remove(full);
        }
        entry
    }
}
