use serde::{Deserialize, Serialize};

use crate::state::NodeId;

/// A node as membership knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub name: String,
    /// host:port of its peer listener as the others reach it.
    pub peer_addr: String,
}

impl From<Member> for rookery_proto::consensus::Member {
    fn from(m: Member) -> Self {
        Self { node: m.node, name: m.name, peer_addr: m.peer_addr }
    }
}

impl From<rookery_proto::consensus::Member> for Member {
    fn from(m: rookery_proto::consensus::Member) -> Self {
        Self { node: m.node, name: m.name, peer_addr: m.peer_addr }
    }
}
