//! What leases need from consensus and state.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::broker::Broker;
use crate::peer::lease::{LeaseHost, Live};
use crate::raft;
use crate::session;
use crate::state::{Epoch, LogIndex, NodeId};

/// The rest of the node, as its lease sees it.
pub struct Host {
    pub broker: Arc<Broker>,
    pub raft: raft::Node,
}

impl LeaseHost for Host {
    fn me(&self) -> (NodeId, Epoch) {
        (self.raft.id(), self.broker.epoch())
    }

    fn leader(&self) -> Option<NodeId> {
        self.raft.leader()
    }

    fn leading(&self) -> Option<u64> {
        let route = *self.raft.route().borrow();
        (route.leader == Some(self.raft.id())).then_some(route.term)
    }

    fn heard_leaders(&self, term: u64) -> Option<u64> {
        self.raft.heard_leaders(term)
    }

    fn term_applied(&self) -> bool {
        self.leading().is_some_and(|term| self.raft.applied_term() == Some(term))
    }

    fn committed(&self) -> LogIndex {
        self.raft.commit_index()
    }

    fn live(&self) -> Vec<Live> {
        // When each began is not kept: the others then wait for its first report, which is right.
        self.broker.state().live_nodes().map(|(node, epoch, _)| Live { node, epoch, up_at: 0 }).collect()
    }

    fn quorum_round(&self) -> BoxFuture<'static, bool> {
        let raft = self.raft.clone();
        Box::pin(async move { raft.quorum_round().await.is_ok() })
    }

    fn propose_down(&self, node: NodeId, epoch: Epoch, term: u64) {
        self.broker.declare_down(node, epoch, term);
    }

    fn regained(&self) {
        self.broker.lease_regained();
    }

    fn flush(&self) {
        session::flush();
    }
}
