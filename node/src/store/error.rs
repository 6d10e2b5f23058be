//! Why a node's data could not be opened.

use std::io;
use std::path::{Path, PathBuf};

/// Opening the data of a node failed. Nothing on disk was removed because of it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged at byte {offset}: {what}. Nothing was changed. This node may have lost writes it \
         acknowledged, so it must not rejoin with this data: keep a copy, remove its data directory, forget \
         the node in the cluster and let it join again; the other nodes still hold the data",
        path.display()
    )]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error(
        "{} has format {found}, written by a newer version; this program knows formats up to {known}. \
         Start the newer version",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error("{} belongs to node {found:016x}, but this is node {expected:016x}", path.display())]
    Foreign { path: PathBuf, found: u64, expected: u64 },
    #[error("{} is in use by another process{}", path.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, holder: Option<u32> },
    #[error(
        "{} has a log but no identity. Restore the whole data directory from one backup, or remove it and let \
         the node join again",
        path.display()
    )]
    IdentityLost { path: PathBuf },
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what: what.into() }
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { path, source } => {
                io::Error::new(source.kind(), format!("{}: {source}", path.display()))
            }
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}
