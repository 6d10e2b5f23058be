//! Which nodes have clean subscribers of a filter.

use std::sync::Arc;

use smallvec::SmallVec;

use super::cow::CowMap;
use super::nodes::{LifeId, Nodes};
use crate::topic::{Index, is_wildcard, split_shared};

/// The lives that have a route, in ascending order.
pub(super) type Lives = SmallVec<[LifeId; 4]>;

/// Adds to the ordered set; false if it was there.
pub(super) fn add(lives: &mut Lives, life: LifeId) -> bool {
    match lives.binary_search(&life) {
        Ok(_) => false,
        Err(at) => {
            lives.insert(at, life);
            true
        }
    }
}

/// Removes from the ordered set; false if it was not there.
pub(super) fn remove(lives: &mut Lives, life: LifeId) -> bool {
    match lives.binary_search(&life) {
        Ok(at) => {
            lives.remove(at);
            true
        }
        Err(_) => false,
    }
}

/// The route table. Filters without wildcards are matched in the table itself; the others are in
/// an index besides. Shared filters are only stored here, [`super::shared::Shared`] matches them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    table: CowMap<Lives>,
    wild: Index<Lives>,
}

impl Routes {
    /// False if the route was there.
    pub(super) fn add(&mut self, filter: &str, life: LifeId) -> bool {
        let added = match self.table.get_mut(filter) {
            Some(lives) => add(lives, life),
            None => {
                self.table.insert(filter.into(), SmallVec::from_slice(&[life]));
                true
            }
        };
        if added && is_indexed(filter) {
            add(self.wild.get_mut_or_insert(filter, Lives::new), life);
        }
        added
    }

    /// False if there was no such route.
    pub(super) fn remove(&mut self, filter: &str, life: LifeId) -> bool {
        let Some(lives) = self.table.get_mut(filter) else { return false };
        let removed = remove(lives, life);
        if lives.is_empty() {
            self.table.remove(filter);
        }
        if removed
            && is_indexed(filter)
            && let Some(lives) = self.wild.get_mut(filter)
        {
            remove(lives, life);
            if lives.is_empty() {
                self.wild.remove(filter);
            }
        }
        removed
    }

    pub(super) fn get(&self, filter: &str) -> Option<&Lives> {
        self.table.get(filter)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Calls `f` with the lives that have a route for the topic; one may come more than once.
    #[inline]
    pub(super) fn matches(&self, topic: &str, mut f: impl FnMut(LifeId)) {
        if self.table.len() > 0
            && !topic.starts_with("$share/")
            && let Some(lives) = self.table.get(topic)
        {
            lives.iter().for_each(|l| f(*l));
        }
        if !self.wild.is_empty() {
            self.wild.matches(topic, |lives| lives.iter().for_each(|l| f(*l)));
        }
    }

    pub(super) fn table(&self) -> &CowMap<Lives> {
        &self.table
    }

    /// Filters of one shard that have a route of a life that is over.
    pub(super) fn ended<'a>(&'a self, shard: usize, nodes: &'a Nodes) -> impl Iterator<Item = &'a Arc<str>> {
        self.table.shard(shard).filter(|(_, lives)| lives.iter().any(|l| !nodes.is_up(*l))).map(|(f, _)| f)
    }
}

fn is_indexed(filter: &str) -> bool {
    is_wildcard(filter) && split_shared(filter).is_none()
}
