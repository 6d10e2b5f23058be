//! Nodes that let their clients go.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::machine::State;
use super::{Effect, NodeId, NodeInfo, Outcome, Unchanged};

/// Clients are sent to a node only while it has fewer than this part of what it may have.
const REDIRECTS_BELOW_PERCENT: usize = 90;

/// How a node lets its clients go. It ends with the node's life: one that has started again serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Connections that it ends a second, at most.
    pub rate_per_s: u32,
    /// The node is to be taken out of the cluster: its clients shall not come back to it.
    pub for_good: bool,
}

impl Drain {
    /// Rates that can be asked for.
    pub const RATES: RangeInclusive<u32> = 1..=1_000_000;
}

impl State {
    /// `Command::Drain`.
    pub(super) fn drain(&mut self, node: NodeId, drain: Option<Drain>, effects: &mut Vec<Effect>) -> Outcome {
        let Some(life) = self.nodes.life_of(node) else { return Outcome::Unchanged(Unchanged::NotFound) };
        let before = match drain {
            Some(drain) => self.drains.insert(life, drain),
            None => self.drains.remove(&life),
        };
        if let Some((node, epoch)) = self.nodes.up(life).filter(|_| before != drain) {
            effects.push(Effect::Drain { node, epoch, drain });
        }
        Outcome::Ok
    }

    /// How a node that is up lets its clients go; `None`: it serves them.
    pub fn draining(&self, node: NodeId) -> Option<Drain> {
        self.drains.get(&self.nodes.life_of(node)?).copied()
    }

    /// The other nodes that clients of `node` may be sent to, as they are up and keep their clients.
    fn refuges(&self, node: NodeId) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        let serves = move |id: &NodeId| *id != node && self.draining(*id).is_none();
        self.nodes.live().map(|(id, _, info)| (id, info)).filter(move |(id, _)| serves(id))
    }

    /// Whether clients of `node` can be served elsewhere.
    pub fn has_refuge(&self, node: NodeId) -> bool {
        self.refuges(node).next().is_some()
    }

    /// Where clients of `node` can be told to go, with how many clients are there: Server References
    /// of nodes with room.
    pub fn references(&self, node: NodeId) -> impl Iterator<Item = (usize, &str)> {
        self.refuges(node).filter_map(|(id, info)| {
            let clients = self.claims_of(id);
            let most = (info.connections_max as usize).saturating_mul(REDIRECTS_BELOW_PERCENT) / 100;
            (clients < most && !info.server_reference.is_empty())
                .then_some((clients, info.server_reference.as_str()))
        })
    }

    /// The Server Reference of the node that has the fewest clients, if that is another one than
    /// `node`, clients can be told of it, and it has room. As it has fewer than `node`, or `node` lets
    /// its clients go, nobody is sent in circles.
    pub fn elsewhere(&self, node: NodeId) -> Option<&str> {
        let most = if self.draining(node).is_some() { usize::MAX } else { self.claims_of(node) };
        let fewest = self.references(node).filter(|(clients, _)| *clients < most).min_by_key(|(n, _)| *n);
        fewest.map(|(_, reference)| reference)
    }
}
