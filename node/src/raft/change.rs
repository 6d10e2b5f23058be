//! Changes of membership and leadership asked for on any node: they go to the leader.

use std::time::Duration;

use rookery_proto::consensus as pb;

use super::network;
use super::node::{ChangeError, Node};
use super::wire::{GROUP, WIRE_VERSION};
use crate::env;
use crate::peer::Member;
use crate::state::NodeId;

/// How long a change looks for a leader that makes it.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// One attempt at one leader.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(12);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the leader is asked to do. Each may be asked for twice without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add a learner, or change a member's address.
    Add(Member),
    Remove(NodeId),
    /// To this node, or to the most advanced voter.
    TransferLeader(Option<NodeId>),
}

impl Node {
    /// Has the leader make a change, whoever that is.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change(&self, change: Change) -> Result<(), ChangeError> {
        let deadline = env::now() + SEARCH_TIMEOUT;
        loop {
            let result = match self.leader() {
                Some(leader) if leader == self.id() => self.change_here(change.clone()).await,
                Some(leader) => self.ask(leader, change.clone()).await,
                None => Err(ChangeError::NoLeader),
            };
            match result {
                Err(ChangeError::NoLeader | ChangeError::NotLeader(_)) if env::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(ChangeError::NotLeader(_)) => return Err(ChangeError::NoLeader),
                result => return result,
            }
        }
    }

    /// Takes this node out of its cluster.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn leave(&self) -> Result<(), ChangeError> {
        self.change(Change::Remove(self.id())).await
    }

    pub(super) async fn change_here(&self, change: Change) -> Result<(), ChangeError> {
        match change {
            Change::Add(member) => self.add_learner(member).await,
            Change::Remove(node) => self.remove(node).await,
            Change::TransferLeader(to) => self.transfer_leader(to).await.map(|_| ()),
        }
    }

    async fn ask(&self, leader: NodeId, change: Change) -> Result<(), ChangeError> {
        let channel = self.channels().consensus(leader).ok_or(ChangeError::NoLeader)?;
        let mut client = network::client(channel);
        let request = pb::ChangeRequest { wire: WIRE_VERSION, group: GROUP, change: Some(change.into()) };
        let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, client.change(request))
            .await
            .map_err(|_| ChangeError::Unknown("the leader did not answer in time".to_owned()))?;
        match answer.map(tonic::Response::into_inner) {
            Ok(answer) if answer.not_leader => {
                Err(ChangeError::NotLeader((answer.leader != 0).then_some(answer.leader)))
            }
            Ok(answer) if answer.refused.is_empty() => Ok(()),
            Ok(answer) => Err(ChangeError::Refused(answer.refused)),
            // It may have been lost on its way there or on its way back; asking again is harmless.
            Err(status) if status.code() == tonic::Code::Unavailable => Err(ChangeError::NoLeader),
            Err(status) => {
                self.channels().note_refusal(leader, &status);
                Err(ChangeError::Refused(status.message().to_owned()))
            }
        }
    }
}

impl From<Change> for pb::change_request::Change {
    fn from(change: Change) -> Self {
        match change {
            Change::Add(member) => Self::AddLearner(member.into()),
            Change::Remove(node) => Self::Remove(node),
            Change::TransferLeader(to) => Self::Transfer(pb::TransferTo { node: to.unwrap_or(0) }),
        }
    }
}

impl From<pb::change_request::Change> for Change {
    fn from(change: pb::change_request::Change) -> Self {
        use pb::change_request::Change as C;
        match change {
            C::AddLearner(member) => Self::Add(member.into()),
            C::Remove(node) => Self::Remove(node),
            C::Transfer(to) => Self::TransferLeader((to.node != 0).then_some(to.node)),
        }
    }
}
