//! The nodes of a cluster one by one: which clients they have, and letting those go.

pub(super) mod handlers;

use serde::{Deserialize, Serialize};

use super::{Answer, MemberState, Role};

/// Names the node that is asked, where one is to be named. No node is called that.
pub const SELF: &str = "@self";

/// What operators may ask of any node about any node, named by its name, its id or [`SELF`]. `by`
/// says who asks.
pub trait Nodes: Send + Sync {
    /// In the order of their names.
    fn nodes(&self) -> Answer<'_, NodeList>;

    /// # Errors
    /// `NotFound`.
    fn node(&self, node: String) -> Answer<'_, NodeInfo>;

    /// Has the node let its clients go and nobody in; it stays a member. Returns once all nodes know
    /// and it has begun. Asked again, it goes on with another rate.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is down.
    fn drain(&self, by: String, node: String, request: DrainRequest) -> Answer<'_, NodeInfo>;

    /// Has the node keep its clients and let others in again.
    ///
    /// # Errors
    /// As [`Self::drain`].
    fn undrain(&self, by: String, node: String) -> Answer<'_, NodeInfo>;

    /// Takes a node out of the cluster for good, once its clients have gone. Asked again after a
    /// time-out, it goes on.
    ///
    /// # Errors
    /// `NotFound`; `Unsafe` if the rest would have no quorum, and then its clients stay; `Timeout` if
    /// they have not gone in time, and then it goes on letting them go.
    fn decommission(&self, by: String, node: String, request: DecommissionRequest) -> Answer<'_, ()>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeList {
    pub nodes: Vec<NodeInfo>,
}

/// A member and its clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// 16 hexadecimal digits.
    pub id: String,
    pub name: String,
    pub role: Role,
    pub state: MemberState,
    pub leader: bool,
    /// How it lets its clients go, if it does.
    pub draining: Option<DrainInfo>,
    /// Client ids that are connected to it.
    pub clients: u64,
    /// HOST:PORT; empty where it does not listen.
    pub mqtt_addr: String,
    pub api_addr: String,
    /// What clients are told to reach it by; empty: they are not sent there.
    pub server_reference: String,
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainInfo {
    /// Connections that it ends a second, at most.
    pub rate_per_s: u32,
    /// It is to be taken out of the cluster.
    pub for_good: bool,
}

/// Body of `POST /api/v1/nodes/{node}/drain`, which may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// `None`: as the node that is asked is configured.
    #[serde(default)]
    pub rate_per_s: Option<u32>,
}

/// Body of `POST /api/v1/nodes/{node}/decommission`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecommissionRequest {
    /// As in [`DrainRequest`].
    #[serde(default)]
    pub rate_per_s: Option<u32>,
    /// How long its clients may take to go.
    pub timeout_s: u64,
}
