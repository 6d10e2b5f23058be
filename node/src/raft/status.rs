//! What a node knows about its group.

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, ServerState};
use serde::Serialize;

use super::Consensus;
use crate::peer::Member;
use crate::state::{LogIndex, NodeId};

/// The part that a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Candidate,
    /// Consensus has stopped.
    Stopped,
}

/// How far a follower or learner is; only the leader knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FollowerStatus {
    pub node: NodeId,
    pub matched: Option<LogIndex>,
    /// Entries that it lacks.
    pub lag: u64,
    /// Since it last answered, milliseconds; `None`: it has not, in this leader's time.
    pub answered_ms_ago: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub node: NodeId,
    pub role: Role,
    pub term: u64,
    pub leader: Option<NodeId>,
    pub voters: Vec<Member>,
    pub learners: Vec<Member>,
    /// A membership change is under way.
    pub changing: bool,
    pub followers: Vec<FollowerStatus>,
    pub last_log: Option<LogIndex>,
    pub committed: Option<LogIndex>,
    pub applied: Option<LogIndex>,
    pub snapshot: Option<LogIndex>,
    pub purged: Option<LogIndex>,
    /// Since a quorum last confirmed this leader, milliseconds.
    pub quorum_ms_ago: Option<u64>,
}

impl Status {
    pub(super) fn of(raft: &Consensus) -> Self {
        let metrics = raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let member = |id: NodeId| {
            let node = membership.get_node(&id).cloned().unwrap_or_default();
            Member { node: id, name: node.name, peer_addr: node.peer_addr }
        };
        let heartbeat = metrics.heartbeat.unwrap_or_default();
        let followers = metrics.replication.unwrap_or_default().into_iter().filter(|(n, _)| *n != metrics.id);
        Self {
            node: metrics.id,
            role: if metrics.running_state.is_err() {
                Role::Stopped
            } else {
                match metrics.state {
                    ServerState::Leader => Role::Leader,
                    ServerState::Follower => Role::Follower,
                    ServerState::Learner => Role::Learner,
                    ServerState::Candidate => Role::Candidate,
                    ServerState::Shutdown => Role::Stopped,
                }
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: membership.voter_ids().map(member).collect(),
            learners: membership.learner_ids().map(member).collect(),
            changing: membership.get_joint_config().len() > 1
                || metrics.membership_config != metrics.committed_membership_config,
            followers: followers
                .map(|(node, matched)| {
                    let matched = matched.map(|id| id.index());
                    FollowerStatus {
                        node,
                        matched,
                        lag: metrics
                            .last_log_index
                            .map_or(0, |last| (last + 1).saturating_sub(matched.map_or(0, |m| m + 1))),
                        answered_ms_ago: heartbeat
                            .get(&node)
                            .and_then(|at| *at)
                            .map(|at| at.elapsed().as_millis() as u64),
                    }
                })
                .collect(),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.max(metrics.cluster_committed).map(|id| id.index()),
            applied: metrics.last_applied.map(|id| id.index()),
            snapshot: metrics.snapshot.map(|id| id.index()),
            purged: metrics.purged.map(|id| id.index()),
            quorum_ms_ago: metrics.last_quorum_acked.map(|at| at.elapsed().as_millis() as u64),
        }
    }

    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.iter().any(|m| m.node == node)
    }

    pub fn is_member(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.iter().any(|m| m.node == node)
    }

    /// All voters and learners.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.voters.iter().chain(&self.learners)
    }
}

#[cfg(test)]
impl Status {
    /// As node 1, which leads, has it. A follower is (id, lag, answered ms ago).
    pub fn led_by_1(voters: &[NodeId], learners: &[NodeId], followers: &[(NodeId, u64, u64)]) -> Self {
        let member = |node: &NodeId| Member { node: *node, name: String::new(), peer_addr: String::new() };
        Self {
            node: 1,
            role: Role::Leader,
            term: 1,
            leader: Some(1),
            voters: voters.iter().map(member).collect(),
            learners: learners.iter().map(member).collect(),
            changing: false,
            followers: followers
                .iter()
                .map(|&(node, lag, ago)| FollowerStatus {
                    node,
                    matched: Some(1000),
                    lag,
                    answered_ms_ago: Some(ago),
                })
                .collect(),
            last_log: None,
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            quorum_ms_ago: None,
        }
    }
}
