//! The types that this cluster's consensus runs with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

#[cfg(not(feature = "simulation"))]
pub type Runtime = openraft::impls::TokioRuntime;
/// Task order and randomness come from a seed.
#[cfg(feature = "simulation")]
pub type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Packed,
        R = (),
        NodeId = u64,
        Node = PeerNode,
        AsyncRuntime = Runtime,
);

/// A [`crate::state::Pack`] in its wire form: encoded once by its origin, decoded only by `apply`.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed(pub Bytes);

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A member as consensus stores it. The address is where it was reached when it was added;
/// today's address comes from the address book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    pub name: String,
    pub peer_addr: String,
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer_addr)
    }
}

/// A finished snapshot: a file of the snapshot folder, or bytes under simulation.
#[derive(Clone, Debug)]
pub enum SnapshotData {
    File(PathBuf),
    Memory(Arc<[u8]>),
}
