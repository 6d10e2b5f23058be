//! Where snapshots of the replicated state are kept: files of a folder, or memory under
//! simulation. Their bytes are the same in both, and on the wire.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use openraft::async_runtime::AsyncRuntime;

use super::SnapshotView;
use super::codec::{self, LogId, SnapshotMeta};
use super::types::{Runtime, SnapshotData};
use crate::env;
use crate::store::{MemoryDisk, OpenError, SnapshotFolder, SnapshotReader, SnapshotWriter};

/// Snapshots that memory keeps, as the folder does.
const KEPT_IN_MEMORY: usize = 2;

/// A node's finished snapshots.
#[derive(Clone)]
pub struct Snapshots {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Folder(SnapshotFolder),
    Memory(MemoryDisk),
}

/// A finished snapshot.
#[derive(Clone, Debug)]
pub struct Finished {
    pub meta: SnapshotMeta,
    pub data: SnapshotData,
    /// Its size.
    pub bytes: u64,
}

impl Finished {
    /// May block.
    fn new(meta: SnapshotMeta, data: SnapshotData) -> io::Result<Self> {
        let bytes = match &data {
            SnapshotData::File(path) => std::fs::metadata(path)?.len(),
            SnapshotData::Memory(bytes) => bytes.len() as u64,
        };
        Ok(Self { meta, data, bytes })
    }
}

/// Orders by index: what is committed up to one index is committed once.
fn name(meta: &SnapshotMeta) -> String {
    let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
    format!("{index:020}-{term:020}")
}

fn header_of(bytes: Vec<u8>) -> io::Result<SnapshotMeta> {
    codec::decode_snapshot_meta(bytes.into())
}

/// Reads a whole snapshot and returns what it says of itself. May block.
///
/// # Errors
/// `InvalidData`: it is damaged; those of the file.
pub fn verify(data: &SnapshotData) -> io::Result<SnapshotMeta> {
    header_of(match data {
        SnapshotData::File(path) => SnapshotFolder::verify(path)?,
        SnapshotData::Memory(bytes) => SnapshotReader::new(&bytes[..])?.verify()?,
    })
}

/// Reads the state out of a snapshot, checking it. May block.
pub(super) fn with_reader(
    data: &SnapshotData,
    read: impl FnOnce(&mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    match data {
        SnapshotData::File(path) => read(&mut SnapshotFolder::read(path)?),
        SnapshotData::Memory(bytes) => read(&mut SnapshotReader::new(&bytes[..])?),
    }
}

/// Runs what may block: elsewhere if it touches files. What it does in memory it does here, so
/// that a simulation stays on its one thread.
pub(super) async fn off_runtime<T: Send + 'static>(
    files: bool,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if files { <Runtime as AsyncRuntime>::spawn_blocking(work).await? } else { work() }
}

impl Snapshots {
    /// # Errors
    /// Those of the file system.
    pub fn in_folder(dir: &Path) -> Result<Self, OpenError> {
        Ok(Self { place: Place::Folder(SnapshotFolder::open(dir)?) })
    }

    pub fn in_memory(disk: &MemoryDisk) -> Self {
        Self { place: Place::Memory(disk.clone()) }
    }

    pub(super) fn uses_files(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// The newest whole snapshot. A damaged one is passed over (and put aside) only if nothing
    /// is lost by it: an older one and the log, which begins after `purged`, make up for it.
    ///
    /// # Errors
    /// [`OpenError`], naming the file.
    pub(super) fn newest(&self, purged: Option<LogId>) -> Result<Option<Finished>, OpenError> {
        let mut damaged: Vec<(PathBuf, io::Error)> = Vec::new();
        let mut newest = None;
        for (path, data) in self.list()? {
            match verify(&data).and_then(|meta| Finished::new(meta, data)) {
                Ok(found) => {
                    newest = Some(found);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => damaged.push((path, error)),
                Err(source) => return Err(OpenError::Io { path, source }),
            }
        }
        let reached = newest.as_ref().and_then(|found| found.meta.last_log_id);
        if purged.map(|id| id.index) > reached.map(|id| id.index) {
            let purged = purged.map_or(0, |id| id.index);
            return Err(match damaged.into_iter().next() {
                Some((path, error)) => {
                    let what = format!("{error} (and the log begins only after index {purged})");
                    OpenError::Damaged { path, offset: 0, what }
                }
                None => {
                    let what =
                        format!("the log begins after index {purged}, and no snapshot reaches that far");
                    OpenError::Damaged { path: self.path(), offset: 0, what }
                }
            });
        }
        for (path, error) in damaged {
            if let Place::Folder(folder) = &self.place {
                let aside = folder.put_aside(&path).map_err(|source| OpenError::Io { path, source })?;
                tracing::warn!(
                    %error, path = %aside.display(),
                    "put a damaged snapshot aside; an older one and the log hold what it held"
                );
            }
        }
        Ok(newest)
    }

    fn path(&self) -> PathBuf {
        match &self.place {
            Place::Folder(folder) => folder.dir().to_owned(),
            Place::Memory(_) => PathBuf::from("(memory)"),
        }
    }

    fn list(&self) -> Result<Vec<(PathBuf, SnapshotData)>, OpenError> {
        Ok(match &self.place {
            Place::Folder(folder) => {
                let listed = folder
                    .list()
                    .map_err(|source| OpenError::Io { path: folder.dir().to_owned(), source })?;
                listed.into_iter().map(|path| (path.clone(), SnapshotData::File(path))).collect()
            }
            Place::Memory(disk) => {
                let listed = disk.snapshots().into_iter();
                listed.map(|(name, bytes)| (name.into(), SnapshotData::Memory(bytes))).collect()
            }
        })
    }

    /// Writes a snapshot; it is durable when this returns. May block.
    ///
    /// # Errors
    /// Those of the view and of the file system.
    pub(super) fn write(&self, meta: SnapshotMeta, view: &dyn SnapshotView) -> io::Result<Finished> {
        let header = codec::encode_snapshot_meta(&meta);
        let name = name(&meta);
        let data = match &self.place {
            Place::Folder(folder) => {
                let mut unfinished = folder.create(&format!("{name}-{:016x}.snap", env::random_u64()))?;
                let mut writer = SnapshotWriter::new(&mut unfinished.file, &header)?;
                view.write(&mut writer)?;
                writer.finish()?;
                unfinished.sync()?;
                SnapshotData::File(folder.keep(&unfinished.path, &name)?)
            }
            Place::Memory(disk) => {
                let mut writer = SnapshotWriter::new(Vec::new(), &header)?;
                view.write(&mut writer)?;
                let bytes: std::sync::Arc<[u8]> = writer.finish()?.into();
                disk.add_snapshot(name, bytes.clone(), KEPT_IN_MEMORY);
                SnapshotData::Memory(bytes)
            }
        };
        Finished::new(meta, data)
    }

    /// Takes over a received snapshot, whose file is already synced: checks it, and makes it
    /// durably one of this node's. May block.
    ///
    /// # Errors
    /// `InvalidData`: it is damaged or not the one that `meta` describes; those of the file
    /// system.
    pub(super) fn take_over(&self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<Finished> {
        if verify(&data)? != *meta {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the snapshot received is not the one announced ({meta})"),
            ));
        }
        let data = match (&self.place, data) {
            (Place::Folder(folder), SnapshotData::File(path)) => {
                SnapshotData::File(folder.keep(&path, &name(meta))?)
            }
            (Place::Memory(disk), SnapshotData::Memory(bytes)) => {
                disk.add_snapshot(name(meta), bytes.clone(), KEPT_IN_MEMORY);
                SnapshotData::Memory(bytes)
            }
            _ => return Err(io::Error::other("a snapshot was received into the wrong kind of place")),
        };
        Finished::new(meta.clone(), data)
    }
}
