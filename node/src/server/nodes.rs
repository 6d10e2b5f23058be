//! What operators ask about nodes and their clients.

use std::sync::Arc;
use std::time::Duration;

use super::member::Member;
use super::node::{Ended, Node};
use crate::admin::nodes::{DecommissionRequest, DrainInfo, DrainRequest, NodeInfo, NodeList, Nodes, SELF};
use crate::admin::{Answer, ControlError, ErrorKind, MemberState, Role};
use crate::audit;
use crate::broker::ChangeFailed;
use crate::env;
use crate::raft::Change;
use crate::state::{Drain, NodeId, Unchanged};

/// How long the cluster may take to hear that a node drains or not.
const HEARD: Duration = Duration::from_secs(10);
/// Between two looks at whether a node's clients have gone.
const LOOK: Duration = Duration::from_millis(50);

impl From<Drain> for DrainInfo {
    fn from(Drain { rate_per_s, for_good }: Drain) -> Self {
        Self { rate_per_s, for_good }
    }
}

impl Node {
    /// The member that is meant, and what it is called.
    fn named(&self, member: &Member, node: &str) -> Result<(NodeId, String), ControlError> {
        let id = if node == SELF { self.id() } else { Self::find(member, node)? };
        let name = member.raft.status().members().find(|m| m.node == id).map(|m| m.name.clone());
        Ok((id, name.unwrap_or_else(|| format!("{id:016x}"))))
    }

    /// The members among these, in the order of their names.
    fn node_infos(member: &Member, wanted: impl Fn(NodeId) -> bool) -> Vec<NodeInfo> {
        let status = member.raft.status();
        let state = member.broker.state();
        let shown = status.members().filter(|peer| wanted(peer.node)).map(|peer| {
            let known = state.node(peer.node);
            let up = known.as_ref().is_some_and(|n| n.up);
            let info = known.map(|n| n.info).unwrap_or_default();
            NodeInfo {
                id: format!("{:016x}", peer.node),
                name: peer.name.clone(),
                role: if status.is_voter(peer.node) { Role::Voter } else { Role::Learner },
                state: if up { MemberState::Up } else { MemberState::Down },
                leader: status.leader == Some(peer.node),
                draining: state.draining(peer.node).map(DrainInfo::from),
                clients: state.claims_of(peer.node) as u64,
                mqtt_addr: info.mqtt_addr,
                api_addr: info.api_addr,
                server_reference: info.server_reference,
                version: info.version,
            }
        });
        let mut shown: Vec<NodeInfo> = shown.collect();
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        shown
    }

    fn node_info(member: &Member, node: NodeId) -> Result<NodeInfo, ControlError> {
        let mut found = Self::node_infos(member, |id| id == node);
        found.pop().ok_or_else(|| ControlError::new(ErrorKind::NotFound, "it is no member any more"))
    }

    fn rate(&self, asked: Option<u32>) -> u32 {
        asked.unwrap_or(self.config().drain.rate)
    }

    /// Has a node drain or not, and says so in the audit log.
    async fn set_drain(
        &self,
        by: &str,
        action: &'static str,
        node: &str,
        drain: Option<Drain>,
    ) -> Result<NodeInfo, ControlError> {
        let changed = async {
            let member = self.of_cluster()?;
            let (id, name) = self.named(&member, node)?;
            order(&member, id, &name, drain).await?;
            Self::node_info(&member, id)
        };
        let result = changed.await;
        audit::operator(by, action, &(node, drain), result.as_ref().map(drop).map_err(|e| e as _));
        result
    }

    async fn take_out(&self, node: &str, request: &DecommissionRequest) -> Result<(), ControlError> {
        let member = self.of_cluster()?;
        let (id, name) = self.named(&member, node)?;
        member.raft.change(Change::CheckRemoval(id)).await?;
        let is_up = || member.broker.state().node(id).is_some_and(|n| n.up);
        // One that is down has no clients, and nobody to tell.
        if is_up() {
            let drain = Drain { rate_per_s: self.rate(request.rate_per_s), for_good: true };
            order(&member, id, &name, Some(drain)).await?;
            until_gone(&member, id, &name, Duration::from_secs(request.timeout_s)).await?;
        }
        let removed = member.raft.change(Change::Remove(id)).await.map_err(ControlError::from);
        if let Err(error) = &removed
            && error.kind == ErrorKind::Unsafe
            && is_up()
        {
            // What has become unsafe meanwhile asks for every node that serves.
            order(&member, id, &name, None).await?;
        }
        removed?;
        if id == self.id() {
            self.no_member(Ended::Left).await;
        }
        Ok(())
    }
}

/// Has a member drain or not; returns when all act by it.
async fn order(member: &Member, id: NodeId, name: &str, drain: Option<Drain>) -> Result<(), ControlError> {
    match tokio::time::timeout(HEARD, member.broker.drain_node(id, drain)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ChangeFailed::Unchanged(Unchanged::NotFound))) => {
            Err(ControlError::new(ErrorKind::Conflict, format!("{name} is down")))
        }
        Ok(Err(failed)) => Err(failed.into()),
        Err(_) => Err(ControlError::new(
            ErrorKind::Unavailable,
            "the cluster could not agree on it in time; it is done as soon as it can",
        )),
    }
}

async fn until_gone(member: &Member, id: NodeId, name: &str, timeout: Duration) -> Result<(), ControlError> {
    let deadline = env::now() + timeout;
    loop {
        let (clients, draining) = {
            let state = member.broker.state();
            (state.claims_of(id), state.draining(id))
        };
        if clients == 0 {
            return Ok(());
        }
        if draining.is_none_or(|drain| !drain.for_good) {
            let message = format!("{name} keeps its clients: it was told so meanwhile, or has started again");
            return Err(ControlError::new(ErrorKind::Conflict, message));
        }
        if env::now() >= deadline {
            let message = format!(
                "{name} still has {clients} clients, and goes on letting them go; ask again to go on, or have \
                 it keep them by `rookery node undrain`"
            );
            return Err(ControlError::new(ErrorKind::Timeout, message));
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Nodes for Arc<Node> {
    fn nodes(&self) -> Answer<'_, NodeList> {
        Box::pin(async move { Ok(NodeList { nodes: Node::node_infos(&*self.of_cluster()?, |_| true) }) })
    }

    fn node(&self, node: String) -> Answer<'_, NodeInfo> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let (id, _) = self.named(&member, &node)?;
            Node::node_info(&member, id)
        })
    }

    fn drain(&self, by: String, node: String, request: DrainRequest) -> Answer<'_, NodeInfo> {
        Box::pin(async move {
            let drain = Drain { rate_per_s: self.rate(request.rate_per_s), for_good: false };
            self.set_drain(&by, "node_drain", &node, Some(drain)).await
        })
    }

    fn undrain(&self, by: String, node: String) -> Answer<'_, NodeInfo> {
        Box::pin(async move { self.set_drain(&by, "node_undrain", &node, None).await })
    }

    fn decommission(&self, by: String, node: String, request: DecommissionRequest) -> Answer<'_, ()> {
        Box::pin(async move {
            let result = self.take_out(&node, &request).await;
            let outcome = result.as_ref().map(|_| ()).map_err(|e| e as _);
            audit::operator(&by, "node_decommission", &node, outcome);
            result
        })
    }
}
