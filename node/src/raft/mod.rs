//! Consensus: the only module that names openraft.

mod backlog;
mod change;
#[cfg(test)]
mod cluster_tests;
pub mod codec;
mod greet;
mod growth;
mod heard;
mod log;
mod machine;
mod membership;
mod network;
mod node;
mod proposer;
mod replica;
mod rotate;
mod scope;
mod service;
pub mod snapshot;
mod status;
#[cfg(test)]
mod storage_tests;
mod transfer;
pub mod types;
mod upkeep;
pub mod wire;
mod writes;

pub use backlog::{MAX_PACK_BYTES, MAX_PACK_COMMANDS, MAX_WAITING_BYTES, MAX_WAITING_COMMANDS, WINDOW};
pub use change::Change;
pub use growth::SnapshotStats;
pub use log::RaftLog;
pub use machine::{Builder, Machine, Observer};
pub use node::{ChangeError, Node, NodeConfig, StartError};
pub use proposer::{Proposer, Route};
pub use replica::*;
pub use scope::scoped;
pub use service::routes;
pub use snapshot::Snapshots;
pub use status::{FollowerStatus, Role, Status};

/// openraft with this cluster's types.
pub(crate) type Consensus = openraft::Raft<types::TypeConfig, Machine>;
