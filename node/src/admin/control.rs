//! The border between the HTTP API and the node behind it, and the documents that cross it. The
//! command line reads the same documents back.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::messages::Messages;
use super::nodes::Nodes;
use super::settings::Settings;

/// What a [`Control`] call gives back.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, ControlError>> + Send + 'a>>;

/// What operators may ask of a node.
pub trait Control: Settings + Nodes + Messages {
    /// The cluster as this node sees it; also of a node that is of no cluster yet.
    fn status(&self) -> Answer<'_, ClusterStatus>;

    /// Forms a new cluster with this node as its only member.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the node is already of a cluster.
    fn init(&self) -> Answer<'_, ClusterStatus>;

    /// Makes a secret that lets nodes join for `ttl_s` seconds.
    fn token(&self, ttl_s: u64) -> Answer<'_, JoinToken>;

    /// Joins the cluster that any of `seeds` (HOST:PORT of peer listeners) is of; returns once
    /// this node is a member.
    fn join(&self, seeds: Vec<String>, token: String) -> Answer<'_, ClusterStatus>;

    /// Takes this node out of its cluster for good.
    ///
    /// # Errors
    /// [`ErrorKind::Unsafe`] if the rest would have no quorum.
    fn leave(&self) -> Answer<'_, ()>;

    /// Takes another node, named by name or id, out of the cluster for good. `force` allows what
    /// is possible only by losing acknowledged data.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Unsafe`] if it still runs or the rest would have no
    /// quorum.
    fn forget(&self, node: String, force: bool) -> Answer<'_, ()>;

    /// Hands leadership to `to` (name or id), or to the voter that is most up to date. Returns
    /// the name of the leader then.
    fn transfer_leader(&self, to: Option<String>) -> Answer<'_, NewLeader>;

    /// What each member proves itself by to the others.
    fn ca(&self) -> Answer<'_, CaStatus>;

    /// Replaces the cluster's CA and secret on all members, or goes on with doing so. `force` leaves
    /// members behind that do not answer.
    ///
    /// # Errors
    /// [`ErrorKind::Unsafe`] if a member would be left behind; [`ErrorKind::Unavailable`] if it could
    /// not be ended, and is to be asked for again.
    fn rotate_ca(&self, force: bool) -> Answer<'_, CaStatus>;

    /// Whether clients should be sent here: a member, leased, caught up, listening, not draining.
    /// Never waits.
    fn ready(&self) -> Readiness;

    /// Whether this node's first life since the start of the process has begun and its listeners are
    /// open: it stays started, whatever comes. Never waits.
    fn started(&self) -> Startup;

    /// Clients of the whole cluster in the order of their ids, at most `limit` of them, that come
    /// after `cursor` (the last id of the page before).
    fn clients(&self, cursor: Option<String>, limit: usize) -> Answer<'_, ClientPage>;

    /// # Errors
    /// [`ErrorKind::NotFound`].
    fn client(&self, id: String) -> Answer<'_, ClientInfo>;

    /// Ends a client's connection, wherever it is, and with it its session.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    fn kick(&self, id: String) -> Answer<'_, ()>;

    /// Everything this node counts, in the OpenMetrics text format.
    fn metrics_text(&self) -> String;
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// `None`: the node is of no cluster yet.
    pub cluster_id: Option<String>,
    /// The name of the node that answers.
    pub node: String,
    /// The leader's name, if there is one that this node knows of.
    pub leader: Option<String>,
    pub term: u64,
    /// What all members understand and therefore use; 0: not agreed on yet.
    pub feature_level: u32,
    /// SHA-256 of the certificate of the cluster's CA that this node uses, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// In the order of their names.
    pub members: Vec<Member>,
}

impl ClusterStatus {
    /// Whether the cluster works with all its members.
    pub fn is_healthy(&self) -> bool {
        self.wrong().is_empty()
    }

    /// What keeps it from being healthy, for a person.
    pub fn wrong(&self) -> Vec<String> {
        if self.cluster_id.is_none() {
            return vec![format!("{} is of no cluster yet", self.node)];
        }
        let mut wrong = Vec::new();
        if self.leader.is_none() {
            wrong.push("no leader is known".to_owned());
        }
        if self.members.is_empty() {
            wrong.push("no members are known".to_owned());
        }
        for member in &self.members {
            if member.state != MemberState::Up {
                wrong.push(format!("{} is down", member.name));
            }
            if let Some(trouble) = &member.trouble {
                wrong.push(format!("{}: {trouble}", member.name));
            }
        }
        wrong
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// 16 hexadecimal digits.
    pub id: String,
    pub name: String,
    pub role: Role,
    pub state: MemberState,
    /// It lets its clients go and nobody in.
    #[serde(default)]
    pub draining: bool,
    /// Addresses are HOST:PORT as others reach them; empty where the member does not listen.
    pub peer_addr: String,
    pub api_addr: String,
    pub mqtt_addr: String,
    pub ws_addr: String,
    /// The last log index that is known to be applied there.
    pub applied: u64,
    /// How many entries that is behind the answering node's knowledge of the log's end.
    pub lag: u64,
    pub version: String,
    pub leader: bool,
    /// What the member says is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Voter,
    Learner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    Up,
    Down,
}

/// A secret to join with. Not `Debug`: it must not reach a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub token: String,
    /// Seconds from now.
    pub expires_in_s: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLeader {
    pub leader: String,
}

/// The CA as its members know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// What the node that answers uses: SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// Some member believes two: a rotation is under way, or has to be gone on with.
    pub rotating: bool,
    /// In the order of their names.
    pub members: Vec<CaMember>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaMember {
    pub name: String,
    pub state: CaState,
    /// What it uses; `None`: it does not answer.
    pub fingerprint: Option<String>,
}

/// How far a member is with a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaState {
    /// It believes only what it uses.
    Settled,
    /// It believes the next one as well.
    TrustsNext,
    /// It uses the new one, and still believes the old.
    TrustsOld,
    Unreachable,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    /// Why not, for a person; empty when ready.
    pub reasons: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    pub started: bool,
    /// Why not, for a person; empty when started.
    pub reasons: Vec<String>,
}

/// The cluster's health as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub healthy: bool,
    /// Why not, for a person; empty when healthy.
    pub reasons: Vec<String>,
}

impl From<&ClusterStatus> for Health {
    fn from(status: &ClusterStatus) -> Self {
        let reasons = status.wrong();
        Self { healthy: reasons.is_empty(), reasons }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPage {
    pub clients: Vec<ClientInfo>,
    /// The cursor of the next page; `None`: this was the last.
    pub next: Option<String>,
}

/// What the cluster knows of a client id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    pub id: String,
    /// The name of the node that it is connected to.
    pub node: Option<String>,
    pub connected: bool,
    /// The session outlives the connection.
    pub persistent: bool,
    pub incarnation: u64,
    /// Session Expiry Interval, seconds; 4294967295: never.
    pub expiry_s: u32,
    /// Subscriptions of a persistent session; those of others are known to their node only.
    pub subscriptions: u64,
    /// Deliveries that are queued or not yet acknowledged.
    pub queued: u64,
    pub queued_bytes: u64,
    /// Where its connection comes from, if it is connected to the node that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Who it has proved to be, if it is connected to the node that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    pub kind: ErrorKind,
    /// For a person, without a full stop at the end.
    pub message: String,
}

impl ControlError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Kinds of failure; each has one code in JSON, one HTTP status and one exit code of the command
/// line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense.
    Invalid,
    NotFound,
    /// The node or cluster is in a state that does not allow it.
    Conflict,
    /// It would cost quorum or acknowledged data, or leave a member behind.
    Unsafe,
    /// No leader, no quorum, not started yet.
    Unavailable,
    Timeout,
    /// The caller may not do this, or a token was refused.
    Unauthorized,
    Internal,
}

impl ErrorKind {
    pub fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Unsafe => 412,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    pub code: ErrorKind,
    pub message: String,
}

/// Body of `POST /api/v1/cluster/token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    pub ttl_s: u64,
}

/// Body of `POST /api/v1/cluster/join`. Not `Debug`: it holds a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    pub seeds: Vec<String>,
    pub token: String,
}

/// Body of `POST /api/v1/cluster/forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    pub node: String,
    #[serde(default)]
    pub force: bool,
}

/// Body of `POST /api/v1/cluster/transfer-leader`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    #[serde(default)]
    pub to: Option<String>,
}

/// Body of `POST /api/v1/cluster/rotate-ca`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    #[serde(default)]
    pub force: bool,
}
