//! What a node keeps on disk: the only module that names sled.
//!
//! ```text
//! <data>/lock, format        one process at a time; the version of what is here
//! <data>/meta/               who this node is
//! <data>/cluster.keys        what members prove themselves with
//! <data>/raft/               the log: numbered segment files
//! <data>/snapshot/           the replicated state as of some index
//! <data>/queues/             queued messages that are not held in memory; nothing that must survive
//! ```

mod error;
mod files;
mod flusher;
mod identity;
mod log;
mod memory;
mod pool;
mod reader;
pub(crate) mod record;
pub(crate) mod segment;
mod segments;
mod shelf;
mod snapshot;
mod view;

#[cfg(test)]
mod log_tests;

use std::path::{Path, PathBuf};

pub use error::OpenError;
pub use identity::{ClusterKeys, Identity, KnownPeer};
pub use log::{Flushed, LogOptions, LogStats, LogStore, ignore_flushed};
pub use memory::{MemoryDisk, MemorySync};
pub use shelf::QueueFiles;
pub use snapshot::{SnapshotFolder, SnapshotReader, SnapshotWriter};

/// Where the parts of a node's data are.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn meta(&self) -> PathBuf {
        self.0.join("meta")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("raft")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshot")
    }

    pub fn queues(&self) -> PathBuf {
        self.0.join("queues")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    fn format(&self) -> PathBuf {
        self.0.join("format")
    }

    /// What members prove themselves with.
    pub fn keys(&self) -> PathBuf {
        self.0.join("cluster.keys")
    }
}
