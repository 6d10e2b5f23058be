//! The nodes, their lives, and which of them are up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::NodeLimits;
use super::{Command, Epoch, NodeId, NodeInfo, Pack};
use crate::sharing::Sharing;

/// Short name of one life (node, epoch) of a node; reused only when nothing refers to it.
pub(super) type LifeId = u32;

/// One life of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Life {
    pub node: NodeId,
    pub epoch: Epoch,
    /// The clock at its NodeDown; `None`: up.
    pub down_at_ms: Option<u64>,
    /// Claims it owns. Derived, not in snapshots.
    #[serde(skip)]
    claims: usize,
    /// Routes it has. Derived, not in snapshots.
    #[serde(skip)]
    routes: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Node {
    info: NodeInfo,
    epoch: Epoch,
    /// The sequence its next pack must have.
    next_seq: u64,
    /// `None`: down.
    life: Option<LifeId>,
}

/// A node as the rest of the program sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    pub node: NodeId,
    /// Its newest epoch.
    pub epoch: Epoch,
    pub up: bool,
    pub info: NodeInfo,
}

/// What the pack filter says of a pack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// It opens a new epoch by its first command.
    Opens,
    /// It is the next one of the origin's present epoch.
    Continues(LifeId),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    lives: Vec<Option<Life>>,
}

impl Nodes {
    /// `None`: a duplicate, out of sequence, or of an epoch that is not up.
    pub(super) fn accept(&self, pack: &Pack) -> Option<Accepted> {
        let node = self.nodes.get(&pack.origin);
        if pack.seq == 0
            && matches!(pack.commands.first(), Some(Command::NodeUp { .. }))
            && node.is_none_or(|n| pack.epoch > n.epoch)
        {
            return Some(Accepted::Opens);
        }
        let node = node?;
        let next = node.epoch == pack.epoch && node.next_seq == pack.seq;
        node.life.filter(|_| next).map(Accepted::Continues)
    }

    /// What the node's newest life allows its clients.
    pub(super) fn limits(&self, node: NodeId) -> NodeLimits {
        self.nodes.get(&node).map_or_else(NodeLimits::default, |n| n.info.limits)
    }

    /// Whether the node ever was up.
    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// The node's present life, if it is up.
    pub(super) fn life_of(&self, node: NodeId) -> Option<LifeId> {
        self.nodes.get(&node)?.life
    }

    /// The lives that are up, by node id.
    pub(super) fn up_lives(&self) -> impl Iterator<Item = (NodeId, LifeId)> {
        self.nodes.iter().filter_map(|(id, n)| Some((*id, n.life?)))
    }

    /// How the node's newest life divides the messages of shared subscriptions.
    pub(super) fn sharing(&self, node: NodeId) -> Sharing {
        self.nodes.get(&node).map_or_else(Sharing::default, |n| n.info.sharing.clone())
    }

    /// Notes that the origin's next pack was taken.
    pub(super) fn advance(&mut self, origin: NodeId) {
        if let Some(node) = self.nodes.get_mut(&origin) {
            node.next_seq += 1;
        }
    }

    /// Begins a life. The older one must be down.
    pub(super) fn open(&mut self, node: NodeId, epoch: Epoch, info: NodeInfo) -> LifeId {
        let life = Life { node, epoch, down_at_ms: None, claims: 0, routes: 0 };
        let id = match self.lives.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.lives.push(None);
                self.lives.len() - 1
            }
        };
        self.lives[id] = Some(life);
        let id = id as LifeId;
        self.nodes.insert(node, Node { info, epoch, next_seq: 0, life: Some(id) });
        id
    }

    /// Ends the node's present life if it is `epoch` (any, if `None`); its epoch if so.
    pub(super) fn down(&mut self, id: NodeId, epoch: Option<Epoch>, clock_ms: u64) -> Option<Epoch> {
        let node = self.nodes.get_mut(&id)?;
        if epoch.is_some_and(|e| e != node.epoch) {
            return None;
        }
        let life = node.life.take()?;
        let ended = node.epoch;
        if let Some(life) = self.life_mut(life) {
            life.down_at_ms = Some(clock_ms);
        }
        self.free_if_unused(life);
        Some(ended)
    }

    fn life_mut(&mut self, id: LifeId) -> Option<&mut Life> {
        self.lives.get_mut(id as usize)?.as_mut()
    }

    #[inline]
    pub(super) fn life(&self, id: LifeId) -> Option<&Life> {
        self.lives.get(id as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn is_up(&self, id: LifeId) -> bool {
        self.life(id).is_some_and(|l| l.down_at_ms.is_none())
    }

    /// The life as (node, epoch), if it is up.
    #[inline]
    pub(super) fn up(&self, id: LifeId) -> Option<(NodeId, Epoch)> {
        self.life(id).filter(|l| l.down_at_ms.is_none()).map(|l| (l.node, l.epoch))
    }

    fn free_if_unused(&mut self, id: LifeId) {
        let unused = |l: &Life| l.down_at_ms.is_some() && l.claims == 0 && l.routes == 0;
        if self.life(id).is_some_and(unused) {
            self.lives[id as usize] = None;
            while self.lives.last().is_some_and(Option::is_none) {
                self.lives.pop();
            }
        }
    }

    pub(super) fn claim_added(&mut self, id: LifeId) {
        if let Some(life) = self.life_mut(id) {
            life.claims += 1;
        }
    }

    pub(super) fn claim_removed(&mut self, id: LifeId) {
        if let Some(life) = self.life_mut(id) {
            life.claims = life.claims.saturating_sub(1);
        }
        self.free_if_unused(id);
    }

    pub(super) fn route_added(&mut self, id: LifeId) {
        if let Some(life) = self.life_mut(id) {
            life.routes += 1;
        }
    }

    pub(super) fn route_removed(&mut self, id: LifeId) {
        if let Some(life) = self.life_mut(id) {
            life.routes = life.routes.saturating_sub(1);
        }
        self.free_if_unused(id);
    }

    /// Whether ended lives still hold (claims, routes) that wait for a sweep.
    pub(super) fn unswept(&self) -> (bool, bool) {
        let ended = || self.lives.iter().flatten().filter(|l| l.down_at_ms.is_some());
        (ended().any(|l| l.claims > 0), ended().any(|l| l.routes > 0))
    }

    pub(super) fn claims_of(&self, node: NodeId) -> usize {
        self.lives
            .iter()
            .flatten()
            .filter(|l| l.node == node && l.down_at_ms.is_none())
            .map(|l| l.claims)
            .sum()
    }

    /// Nodes that own a claim now.
    pub(super) fn owning(&self) -> impl Iterator<Item = NodeId> {
        self.lives.iter().flatten().filter(|l| l.down_at_ms.is_none() && l.claims > 0).map(|l| l.node)
    }

    /// Every node ever seen, by id.
    pub(super) fn statuses(&self) -> impl Iterator<Item = NodeStatus> {
        self.nodes.iter().map(|(id, n)| NodeStatus {
            node: *id,
            epoch: n.epoch,
            up: n.life.is_some(),
            info: n.info.clone(),
        })
    }

    pub(super) fn status(&self, id: NodeId) -> Option<NodeStatus> {
        let n = self.nodes.get(&id)?;
        Some(NodeStatus { node: id, epoch: n.epoch, up: n.life.is_some(), info: n.info.clone() })
    }

    /// The lives that are up, by node id.
    pub(super) fn live(&self) -> impl Iterator<Item = (NodeId, Epoch, &NodeInfo)> {
        self.nodes.iter().filter(|(_, n)| n.life.is_some()).map(|(id, n)| (*id, n.epoch, &n.info))
    }
}
