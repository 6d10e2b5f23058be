//! The bytes of a snapshot on their way from one node to another: chunks with a checksum each
//! and one over all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use futures::stream;
use rookery_proto::consensus as pb;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::warn;

use super::types::SnapshotData;
use crate::env;

/// Bytes in one message.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Where the bytes come from.
pub struct Source {
    from: From,
    size: u64,
}

enum From {
    File(File),
    Memory(Arc<[u8]>),
}

impl Source {
    /// # Errors
    /// The snapshot's file cannot be opened.
    pub async fn open(snapshot: &SnapshotData) -> io::Result<Self> {
        Ok(match snapshot {
            SnapshotData::File(path) => {
                let file = File::open(path).await?;
                let size = file.metadata().await?.len();
                Self { from: From::File(file), size }
            }
            SnapshotData::Memory(bytes) => {
                Self { size: bytes.len() as u64, from: From::Memory(bytes.clone()) }
            }
        })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// The messages. A read error ends them before the last one, so that the receiver refuses
    /// what it has.
    pub fn chunks(
        self,
        header: pb::SnapshotHeader,
    ) -> impl Stream<Item = pb::SnapshotChunk> + Send + 'static {
        let start = Reading { source: self, header: Some(header), offset: 0, whole_crc: 0, done: false };
        stream::unfold(start, |mut reading| async move {
            if reading.done {
                return None;
            }
            match reading.next().await {
                Ok(chunk) => Some((chunk, reading)),
                Err(e) => {
                    warn!("sending a snapshot stopped: {e}");
                    None
                }
            }
        })
    }

    async fn read(&mut self, offset: u64) -> io::Result<Bytes> {
        let left = self.size - offset;
        let len = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        match &mut self.from {
            From::File(file) => {
                let mut chunk = BytesMut::zeroed(len);
                file.read_exact(&mut chunk).await?;
                Ok(chunk.freeze())
            }
            From::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                Ok(Bytes::copy_from_slice(&bytes[start..start + len]))
            }
        }
    }
}

struct Reading {
    source: Source,
    header: Option<pb::SnapshotHeader>,
    offset: u64,
    whole_crc: u32,
    done: bool,
}

impl Reading {
    async fn next(&mut self) -> io::Result<pb::SnapshotChunk> {
        let data = self.source.read(self.offset).await?;
        let offset = self.offset;
        self.offset += data.len() as u64;
        self.whole_crc = crc32c::crc32c_append(self.whole_crc, &data);
        self.done = self.offset == self.source.size;
        Ok(pb::SnapshotChunk {
            header: self.header.take(),
            offset,
            crc: crc32c::crc32c(&data),
            data,
            whole_crc: if self.done { self.whole_crc } else { 0 },
            last: self.done,
        })
    }
}

const PREFIX: &str = "incoming-";

/// Removes what a crash left of unfinished transfers.
///
/// # Errors
/// Those of the file system; a folder that is not there is none.
pub async fn clean(folder: &Path) -> io::Result<()> {
    let mut entries = match tokio::fs::read_dir(folder).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            tokio::fs::remove_file(entry.path()).await?;
        }
    }
    Ok(())
}

/// Where received bytes go: a file of the folder that takes unfinished snapshots, or memory.
pub struct Sink {
    to: To,
    offset: u64,
    size: u64,
    whole_crc: u32,
    finished: bool,
}

enum To {
    File { file: File, path: PathBuf },
    Memory(Vec<u8>),
}

/// Received bytes that are not what was sent.
#[derive(Debug, thiserror::Error)]
pub enum Damaged {
    #[error("a chunk of the snapshot is damaged or out of place")]
    Chunk,
    #[error("the snapshot as a whole is damaged")]
    Whole,
    #[error("the snapshot ended early")]
    Early,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Sink {
    /// # Errors
    /// The file cannot be made.
    pub async fn create(folder: Option<&Path>, size: u64) -> io::Result<Self> {
        let to = match folder {
            Some(folder) => {
                tokio::fs::create_dir_all(folder).await?;
                let path = folder.join(format!("{PREFIX}{:016x}.tmp", env::random_u64()));
                To::File { file: File::create_new(&path).await?, path }
            }
            None => To::Memory(Vec::new()),
        };
        Ok(Self { to, offset: 0, size, whole_crc: 0, finished: false })
    }

    /// # Errors
    /// The chunk is not what was sent, or cannot be written.
    pub async fn write(&mut self, chunk: &pb::SnapshotChunk) -> Result<(), Damaged> {
        let end = self.offset + chunk.data.len() as u64;
        if self.finished
            || chunk.offset != self.offset
            || end > self.size
            || crc32c::crc32c(&chunk.data) != chunk.crc
        {
            return Err(Damaged::Chunk);
        }
        match &mut self.to {
            To::File { file, .. } => file.write_all(&chunk.data).await?,
            To::Memory(bytes) => bytes.extend_from_slice(&chunk.data),
        }
        self.offset = end;
        self.whole_crc = crc32c::crc32c_append(self.whole_crc, &chunk.data);
        if chunk.last {
            if self.offset != self.size || self.whole_crc != chunk.whole_crc {
                return Err(Damaged::Whole);
            }
            self.finished = true;
        }
        Ok(())
    }

    /// The whole snapshot, durable.
    ///
    /// # Errors
    /// It is not whole, or cannot be synced.
    pub async fn finish(mut self) -> Result<SnapshotData, Damaged> {
        if !self.finished {
            return Err(Damaged::Early);
        }
        match std::mem::replace(&mut self.to, To::Memory(Vec::new())) {
            To::File { file, path } => {
                file.sync_all().await?;
                Ok(SnapshotData::File(path))
            }
            To::Memory(bytes) => Ok(SnapshotData::Memory(bytes.into())),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let To::File { path, .. } = &self.to
            && let Err(e) = std::fs::remove_file(path)
        {
            warn!("cannot remove {}: {e}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    async fn send(
        bytes: &[u8],
        folder: Option<&Path>,
        spoil: impl Fn(&mut pb::SnapshotChunk),
    ) -> Result<Vec<u8>, Damaged> {
        let source = Source::open(&SnapshotData::Memory(bytes.into())).await?;
        let mut sink = Sink::create(folder, source.size()).await?;
        let mut chunks = std::pin::pin!(source.chunks(pb::SnapshotHeader::default()));
        while let Some(mut chunk) = chunks.next().await {
            spoil(&mut chunk);
            sink.write(&chunk).await?;
        }
        Ok(match sink.finish().await? {
            SnapshotData::File(path) => std::fs::read(path)?,
            SnapshotData::Memory(bytes) => bytes.to_vec(),
        })
    }

    #[tokio::test]
    async fn bytes_arrive_as_they_were_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        for len in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            for folder in [None, Some(folder.path())] {
                assert_eq!(send(&bytes, folder, |_| {}).await.expect("whole"), bytes);
            }
        }
    }

    #[tokio::test]
    async fn damage_is_noticed_and_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = vec![7; CHUNK_BYTES + 5];
        let flip = |c: &mut pb::SnapshotChunk| c.data = c.data.iter().map(|b| b ^ 1).collect();
        assert!(matches!(send(&bytes, Some(folder.path()), flip).await, Err(Damaged::Chunk)));
        let cut = |c: &mut pb::SnapshotChunk| c.last = false;
        assert!(matches!(send(&bytes, Some(folder.path()), cut).await, Err(Damaged::Early)));
        let other = |c: &mut pb::SnapshotChunk| c.whole_crc ^= 1;
        assert!(matches!(send(&bytes, Some(folder.path()), other).await, Err(Damaged::Whole)));
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[tokio::test]
    async fn leftovers_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("incoming-1.tmp"), b"x").expect("written");
        std::fs::write(folder.path().join("other"), b"x").expect("written");
        clean(folder.path()).await.expect("cleaned");
        clean(&folder.path().join("nowhere")).await.expect("nothing to clean");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").flatten().collect();
        assert_eq!(left.iter().map(|e| e.file_name()).collect::<Vec<_>>(), ["other"]);
    }
}
