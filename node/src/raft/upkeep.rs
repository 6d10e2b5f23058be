//! What runs beside consensus all the time: it carries what consensus learns to those who need
//! it, and the leader tends the membership.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, info};

use super::growth::LogGrowth;
use super::node::{Node, WeakNode};
use super::proposer::{Proposer, Route};
use super::{Consensus, membership};
use crate::peer::{Channels, Member};
use crate::state::{LogIndex, NodeId};

/// How often the leader looks whether there is something to do about its members.
const TEND_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is looked at how much log there is.
const COMPACT_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks at what consensus has applied.
const APPLIED_PAUSE: Duration = Duration::from_millis(5);

/// Who has been seen as a member, to tell a removed node from an unknown one.
pub(super) type Seen = Mutex<BTreeSet<NodeId>>;

/// Carries what consensus learns about leader and members to those who need it.
pub(super) async fn follow(
    raft: Consensus,
    channels: Channels,
    members: Arc<Seen>,
    route: watch::Sender<Route>,
    leader: watch::Sender<Option<NodeId>>,
) {
    let mut metrics = raft.server_metrics();
    loop {
        let now = metrics.borrow_and_update().clone();
        let next = Route { term: now.vote.leader_id().term, leader: now.current_leader };
        let present: Vec<(NodeId, String)> = now
            .membership_config
            .nodes()
            .chain(now.committed_membership_config.nodes())
            .map(|(id, node)| (*id, node.peer_addr.clone()))
            .collect();
        let gone: Vec<NodeId> = {
            let mut seen = members.lock();
            seen.extend(present.iter().map(|(id, _)| *id));
            seen.iter().copied().filter(|id| present.iter().all(|(p, _)| p != id)).collect()
        };
        for (id, addr) in &present {
            channels.suggest(*id, addr);
        }
        for id in gone {
            channels.forget(id);
        }
        route.send_if_modified(|route| std::mem::replace(route, next) != next);
        leader.send_if_modified(|leader| std::mem::replace(leader, next.leader) != next.leader);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Entries without commands and snapshots advance what is applied as well; only consensus tells.
pub(super) async fn follow_applied(raft: Consensus, proposer: Proposer) {
    let mut metrics = raft.data_metrics();
    while metrics.changed().await.is_ok() {
        let applied = applied_by(&raft);
        proposer.applied_changes().send_if_modified(|known| {
            let newer = applied > *known;
            if newer {
                *known = applied;
            }
            newer
        });
        tokio::time::sleep(APPLIED_PAUSE).await;
    }
}

/// What bounds the log, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compaction {
    /// Log since the last snapshot below which no other is made.
    pub least_bytes: u64,
    /// Log that stays for followers that lag.
    pub kept_bytes: u64,
}

/// Has snapshots made as the log grows, and gives up the log that they make up for.
pub(super) async fn compact(raft: Consensus, growth: Arc<LogGrowth>, bounds: Compaction) {
    let mut ticks = tokio::time::interval(COMPACT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // One that is being made makes no other begin.
        if growth.is_due(bounds.least_bytes) && raft.trigger().snapshot().await.is_err() {
            return;
        }
        let snapshot = raft.data_metrics().borrow_watched().snapshot.map_or(0, |id| id.index());
        if let Some(upto) = growth.take_spare(snapshot, bounds.kept_bytes)
            && raft.trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}

pub(super) fn applied_by(raft: &Consensus) -> LogIndex {
    raft.data_metrics().borrow_watched().last_applied.map_or(0, |id| id.index())
}

/// On the leader: makes voters of learners that have caught up, and has the log tell where
/// members are that have moved.
pub(super) async fn tend(node: WeakNode) {
    let mut ticks = tokio::time::interval(TEND_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(node) = node.get() else { return };
        if node.is_leader() {
            node.promote().await;
            node.note_move().await;
        }
    }
}

impl Node {
    async fn promote(&self) {
        let _one_at_a_time = self.lock_membership().await;
        let ready = membership::to_promote(&self.status(), self.config().voters);
        if ready.is_empty() {
            return;
        }
        let change = ChangeMembers::AddVoterIds(ready.iter().copied().collect());
        match self.change_membership(change, true).await {
            Ok(()) => info!("now voting: {}", ids(&ready)),
            Err(e) => debug!("cannot make voters of {} now: {e}", ids(&ready)),
        }
    }

    /// A node that starts finds in its log where the others were last.
    async fn note_move(&self) {
        let me = self.channels().identity();
        let status = self.status();
        if !status.is_leader() || status.changing {
            return;
        }
        let moved = status.members().find_map(|member| {
            let now = if member.node == me.node {
                me.advertised.clone()
            } else {
                self.channels().own_word(member.node)?
            };
            (now != member.peer_addr).then(|| Member { peer_addr: now, ..member.clone() })
        });
        if let Some(moved) = moved
            && let Err(e) = self.add_learner(moved).await
        {
            debug!("cannot note where a member is: {e}");
        }
    }
}

fn ids(nodes: &[NodeId]) -> String {
    nodes.iter().map(|n| format!("{n:016x}")).collect::<Vec<_>>().join(", ")
}
