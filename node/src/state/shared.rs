//! Shared subscriptions: per (group, filter), the persistent members and the nodes with clean
//! members, and whose turn it is.

use std::sync::Arc;

use smallvec::SmallVec;

use super::cow::CowMap;
use super::nodes::LifeId;
use super::routes::{self, Lives};
use super::subscribers::Sub;
use crate::topic::{Index, split_shared};

/// One (group, filter).
#[derive(Debug)]
pub(super) struct Group {
    /// The whole filter, `$share/group/…`.
    pub full: Arc<str>,
    /// Persistent members, by client id.
    pub members: Vec<(Arc<str>, Sub)>,
    /// Lives with clean members.
    pub nodes: Lives,
    durable: usize,
}

impl Group {
    /// Whether a persistent member wants QoS 1 or 2.
    pub(super) fn is_durable(&self) -> bool {
        self.durable > 0
    }

    fn slot(&self, client: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(c, _)| c.as_ref().cmp(client))
    }
}

type Groups = SmallVec<[Box<Group>; 1]>;

#[derive(Debug, Default)]
pub(super) struct Shared {
    index: Index<Groups>,
    /// Per whole filter: the slot (members first, then nodes) that is tried next.
    turns: CowMap<u32>,
}

impl Shared {
    pub(super) fn join(&mut self, full: &str, client: &Arc<str>, sub: Sub) {
        let Some(group) = self.group_mut(full) else { return };
        group.durable += usize::from(sub.is_durable());
        match group.slot(client) {
            Ok(at) => {
                group.durable -= usize::from(group.members[at].1.is_durable());
                group.members[at].1 = sub;
            }
            Err(at) => group.members.insert(at, (Arc::clone(client), sub)),
        }
    }

    pub(super) fn leave(&mut self, full: &str, client: &str) {
        let Some(group) = self.existing_mut(full) else { return };
        if let Ok(at) = group.slot(client) {
            let (_, sub) = group.members.remove(at);
            group.durable -= usize::from(sub.is_durable());
        }
        self.drop_if_empty(full);
    }

    pub(super) fn add_node(&mut self, full: &str, life: LifeId) {
        if let Some(group) = self.group_mut(full) {
            routes::add(&mut group.nodes, life);
        }
    }

    pub(super) fn remove_node(&mut self, full: &str, life: LifeId) {
        if let Some(group) = self.existing_mut(full) {
            routes::remove(&mut group.nodes, life);
        }
        self.drop_if_empty(full);
    }

    fn group_mut(&mut self, full: &str) -> Option<&mut Group> {
        let (_, filter) = split_shared(full)?;
        let groups = self.index.get_mut_or_insert(filter, Groups::new);
        let at = match groups.binary_search_by(|g| g.full.as_ref().cmp(full)) {
            Ok(at) => at,
            Err(at) => {
                let group = Group { full: full.into(), members: Vec::new(), nodes: Lives::new(), durable: 0 };
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
        let unused = |g: &Group| g.full.as_ref() == full && g.members.is_empty() && g.nodes.is_empty();
        let before = groups.len();
        groups.retain(|g| !unused(g));
        if groups.len() < before {
            if groups.is_empty() {
                self.index.remove(filter);
            }
            self.turns.remove(full);
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

    pub(super) fn turn(&self, full: &str) -> usize {
        self.turns.get(full).map_or(0, |t| *t as usize)
    }

    pub(super) fn set_turn(&mut self, full: &Arc<str>, slot: usize) {
        self.turns.insert(Arc::clone(full), slot as u32);
    }

    pub(super) fn turns(&self) -> &CowMap<u32> {
        &self.turns
    }
}
