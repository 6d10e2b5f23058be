//! What the nodes of a cluster understand of each other, while they are of several versions.
//!
//! A release that adds a command, or a meaning of one, counts one level more. Its nodes say so when
//! they start, go on without it as long as the cluster's level is lower, and use it when the leader
//! has raised that: once every member understands it. From then on nodes of older releases are kept
//! out, since they would have to stop at the first such command.

use super::machine::State;
use super::{Effect, NodeId, NodeInfo};

/// What this build understands.
///
/// 1: the first release.
pub const FEATURE_LEVEL: u32 = 1;

impl State {
    /// What the nodes may use towards each other; 0: nothing has been agreed on yet.
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// The level that the cluster could be raised to: what all `members` understand, those that are
    /// down by the word of their last start. `None`: it has that level, or a member never started.
    pub fn feature_level_to_raise(&self, members: &[NodeId]) -> Option<u32> {
        let levels = members.iter().map(|node| Some(self.node(*node)?.info.feature_level));
        let common = levels.min_by_key(|level| level.unwrap_or(0))??;
        (common > self.feature_level).then_some(common)
    }

    /// `Command::Raise`. Void if a node that is up would not understand it: it may have started
    /// since the leader looked.
    pub(super) fn raise(&mut self, level: u32) {
        let all_understand = self.nodes.live().all(|(.., info)| info.feature_level >= level);
        if all_understand && level > self.feature_level {
            self.feature_level = level;
        }
    }

    /// Whether a node that starts understands what the cluster uses; it may not take part if not.
    pub(super) fn understands(&self, node: NodeId, info: &NodeInfo, effects: &mut Vec<Effect>) -> bool {
        let understands = info.feature_level >= self.feature_level;
        if !understands {
            effects.push(Effect::Outdated { node, understood: info.feature_level, used: self.feature_level });
        }
        understands
    }
}
