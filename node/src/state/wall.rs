//! The nodes' wall clocks, and the one use that is made of them.
//!
//! The replicated clock counts what leaders measure. While all nodes are down nobody counts: their
//! wall clocks then say, once, how long that was. Each node says what its own wall clock shows when
//! its life begins, from time to time, and whenever another node begins a life. A life that goes on
//! thereby shows that time went on too. If no earlier life is left, the cluster was down as a whole,
//! and the clock advances to the median of what a quorum of nodes estimates; so neither one wrong
//! wall clock nor one that was set meanwhile moves it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::NodeId;
use super::limits::{RESTART_PATIENCE_MS, WITNESS_AGE_MAX_MS};
use super::nodes::{LifeId, Nodes};

/// What one node's wall clock showed at one moment of the replicated clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    clock_ms: u64,
    wall_ms: u64,
}

/// A node has come back, and it is not known yet whether others went on meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Restart {
    /// The replicated clock at its beginning.
    began_ms: u64,
    /// The lives that began since.
    begun: BTreeSet<LifeId>,
    told: BTreeMap<NodeId, Sample>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WallClocks {
    /// What each node said last, before the restart that is open.
    samples: BTreeMap<NodeId, Sample>,
    restart: Option<Restart>,
}

impl WallClocks {
    /// A life has begun; `returns`: of a node that had an earlier one.
    pub(super) fn life_began(&mut self, life: LifeId, returns: bool, clock_ms: u64) {
        if let Some(restart) = &mut self.restart {
            restart.begun.insert(life);
        } else if returns && !self.samples.is_empty() {
            let begun = BTreeSet::from([life]);
            self.restart = Some(Restart { began_ms: clock_ms, begun, told: BTreeMap::new() });
        }
    }

    /// A pack of this life was taken. If the life is older than the restart, the node has been up
    /// all the while, and its cluster with it: nothing is to be made up for.
    pub(super) fn heard_from(&mut self, life: LifeId) {
        if self.restart.as_ref().is_some_and(|restart| !restart.begun.contains(&life)) {
            self.settle(0);
        }
    }

    /// The node's wall clock shows `wall_ms` now.
    pub(super) fn told(&mut self, node: NodeId, wall_ms: u64, clock_ms: u64) {
        let sample = Sample { clock_ms, wall_ms };
        match &mut self.restart {
            Some(restart) => {
                restart.told.insert(node, sample);
            }
            None => {
                self.samples.retain(|_, s| s.clock_ms.saturating_add(WITNESS_AGE_MAX_MS) >= clock_ms);
                self.samples.insert(node, sample);
            }
        }
    }

    /// By how much the clock must be advanced, milliseconds, as soon as that can be said.
    pub(super) fn verdict(&mut self, clock_ms: u64, nodes: &Nodes) -> Option<u64> {
        let restart = self.restart.as_ref()?;
        let all_are_new = nodes.up_lives().all(|(_, life)| restart.begun.contains(&life));
        let all_have_told = nodes.up_lives().all(|(node, _)| restart.told.contains_key(&node));
        let behind_ms = if all_are_new { restart.behind(&self.samples) } else { None };
        let ahead_ms = if clock_ms.saturating_sub(restart.began_ms) >= RESTART_PATIENCE_MS {
            behind_ms.unwrap_or(0)
        } else {
            behind_ms.filter(|_| all_have_told)?
        };
        self.settle(ahead_ms);
        Some(ahead_ms)
    }

    /// Whether a node in this life knows what time it is; it may not let a client begin or end a
    /// session before.
    pub(super) fn is_settled(&self, life: LifeId) -> bool {
        self.restart.as_ref().is_none_or(|restart| !restart.begun.contains(&life))
    }

    fn settle(&mut self, ahead_ms: u64) {
        let Some(restart) = self.restart.take() else { return };
        for (node, sample) in restart.told {
            let clock_ms = sample.clock_ms.saturating_add(ahead_ms);
            self.samples.insert(node, Sample { clock_ms, ..sample });
        }
    }
}

impl Restart {
    /// How far the clock is behind by the lower median of those who were there before and have
    /// spoken since; `None` while they are no quorum.
    fn behind(&self, samples: &BTreeMap<NodeId, Sample>) -> Option<u64> {
        let was_there = |s: &&Sample| s.clock_ms.saturating_add(WITNESS_AGE_MAX_MS) >= self.began_ms;
        let quorum = samples.values().filter(was_there).count() / 2 + 1;
        let mut behind: Vec<u64> = self
            .told
            .iter()
            .filter_map(|(node, now)| {
                let then = samples.get(node).filter(was_there)?;
                let elapsed_ms = now.wall_ms.saturating_sub(then.wall_ms);
                Some(then.clock_ms.saturating_add(elapsed_ms).saturating_sub(now.clock_ms))
            })
            .collect();
        behind.sort_unstable();
        if behind.len() < quorum {
            return None;
        }
        behind.get((behind.len() - 1) / 2).copied()
    }
}
