//! Changes of membership and leadership asked for on any node: they go to the leader.

use std::time::Duration;

use rookery_proto::consensus as pb;

use super::network;
use super::node::{ChangeError, Node};
use super::wire::{GROUP, Malformed, WIRE_VERSION};
use crate::env;
use crate::peer::{Fingerprint, Member};
use crate::state::NodeId;

/// How long a change looks for a leader that makes it.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// One attempt at one leader.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(12);
/// A rotation has all members renew their connections, one by one.
const ROTATION_TIMEOUT: Duration = Duration::from_secs(100);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the leader is asked to do. Each may be asked for twice without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add a learner, or change a member's address.
    Add(Member),
    Remove(NodeId),
    /// Nothing; refused where `Remove` would be now.
    CheckRemoval(NodeId),
    /// To this node, or to the most advanced voter.
    TransferLeader(Option<NodeId>),
    /// Replace the authority `from` by a new one; with `force`, leave members behind that do not answer.
    Rotate {
        from: Fingerprint,
        force: bool,
    },
}

impl Change {
    /// How long one attempt may take, and the whole.
    fn patience(&self) -> (Duration, Duration) {
        match self {
            Self::Rotate { .. } => (ROTATION_TIMEOUT, ROTATION_TIMEOUT),
            _ => (ATTEMPT_TIMEOUT, SEARCH_TIMEOUT),
        }
    }
}

impl Node {
    /// Has the leader make a change, whoever that is.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change(&self, change: Change) -> Result<(), ChangeError> {
        let deadline = env::now() + change.patience().1;
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
            Change::CheckRemoval(node) => self.check_removal(node),
            Change::TransferLeader(to) => self.transfer_leader(to).await.map(|_| ()),
            Change::Rotate { from, force } => self.rotate(from, force).await,
        }
    }

    async fn ask(&self, leader: NodeId, change: Change) -> Result<(), ChangeError> {
        let channel = self.channels().consensus(leader).ok_or(ChangeError::NoLeader)?;
        let mut client = network::client(channel);
        let (patience, _) = change.patience();
        // The connection that it is asked over is renewed in the middle of it.
        let is_cut = matches!(change, Change::Rotate { .. });
        let request = pb::ChangeRequest { wire: WIRE_VERSION, group: GROUP, change: Some(change.into()) };
        let answer = tokio::time::timeout(patience, client.change(request))
            .await
            .map_err(|_| ChangeError::Unknown("the leader did not answer in time".to_owned()))?;
        match answer.map(tonic::Response::into_inner) {
            Ok(answer) if answer.not_leader => {
                Err(ChangeError::NotLeader((answer.leader != 0).then_some(answer.leader)))
            }
            Ok(answer) if answer.refused.is_empty() => Ok(()),
            Ok(answer) if answer.unfinished => Err(ChangeError::Unfinished(answer.refused)),
            Ok(answer) => Err(ChangeError::Refused(answer.refused)),
            // It may have been lost on its way there or on its way back; asking again is harmless.
            Err(status) if is_cut || status.code() == tonic::Code::Unavailable => Err(ChangeError::NoLeader),
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
            Change::CheckRemoval(node) => Self::CheckRemoval(node),
            Change::TransferLeader(to) => Self::Transfer(pb::TransferTo { node: to.unwrap_or(0) }),
            Change::Rotate { from, force } => {
                Self::Rotate(pb::RotateAuthority { from: from.0.to_vec().into(), force })
            }
        }
    }
}

impl TryFrom<pb::change_request::Change> for Change {
    type Error = Malformed;

    fn try_from(change: pb::change_request::Change) -> Result<Self, Malformed> {
        use pb::change_request::Change as C;
        Ok(match change {
            C::AddLearner(member) => Self::Add(member.into()),
            C::Remove(node) => Self::Remove(node),
            C::CheckRemoval(node) => Self::CheckRemoval(node),
            C::Transfer(to) => Self::TransferLeader((to.node != 0).then_some(to.node)),
            C::Rotate(rotate) => {
                let from = rotate.from[..].try_into().map_err(|_| Malformed::Missing("a fingerprint"))?;
                Self::Rotate { from: Fingerprint(from), force: rotate.force }
            }
        })
    }
}
