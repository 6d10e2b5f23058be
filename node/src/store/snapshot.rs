//! Snapshot files: a header of the caller's, then the state in checksummed chunks.
//!
//! ```text
//! magic 8 │ format u16 │ header length u32 │ header │ crc32c u32 of all this
//! chunk:   length u32 (not 0) │ crc32c u32 │ bytes
//! trailer: 0 u32 │ crc32c u32 of what follows │ bytes of state u64 │ chunks u64
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::files::{create_private_dir, remove_if_present, sync_dir};

const MAGIC: [u8; 8] = *b"RKRYSNAP";
/// Version of the format that is written; older ones are read.
const FORMAT: u16 = 1;
/// Bytes of state in one chunk.
const CHUNK_LEN: usize = 256 << 10;
/// Bytes of a header: what is larger is taken for damage.
const MAX_HEADER_LEN: u32 = 16 << 20;
/// Finished snapshots kept in the folder.
const KEPT: usize = 2;

const EXTENSION: &str = "snap";
const DAMAGED_EXTENSION: &str = "damaged";

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the snapshot is damaged: {what}"))
}

/// Writes the format around whatever is written to it.
pub struct SnapshotWriter<W: Write> {
    to: W,
    chunk: Vec<u8>,
    chunks: u64,
    bytes: u64,
}

impl<W: Write> SnapshotWriter<W> {
    /// # Errors
    /// Those of `to`; a header of more than 16 MiB.
    pub fn new(mut to: W, header: &[u8]) -> io::Result<Self> {
        let len = u32::try_from(header.len()).ok().filter(|len| *len <= MAX_HEADER_LEN);
        let len = len.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the header is too large"))?;
        let mut head = Vec::with_capacity(header.len() + 18);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&len.to_le_bytes());
        head.extend_from_slice(header);
        head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
        to.write_all(&head)?;
        Ok(Self { to, chunk: Vec::with_capacity(CHUNK_LEN), chunks: 0, bytes: 0 })
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.to.write_all(&(self.chunk.len() as u32).to_le_bytes())?;
        self.to.write_all(&crc32c::crc32c(&self.chunk).to_le_bytes())?;
        self.to.write_all(&self.chunk)?;
        self.chunks += 1;
        self.bytes += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }

    /// Without it what was written is not a snapshot.
    ///
    /// # Errors
    /// Those of the destination.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_chunk()?;
        let mut trailer = [0; 16];
        trailer[..8].copy_from_slice(&self.bytes.to_le_bytes());
        trailer[8..].copy_from_slice(&self.chunks.to_le_bytes());
        self.to.write_all(&[0; 4])?;
        self.to.write_all(&crc32c::crc32c(&trailer).to_le_bytes())?;
        self.to.write_all(&trailer)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for SnapshotWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK_LEN {
            self.end_chunk()?;
        }
        let taken = bytes.len().min(CHUNK_LEN - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Reads the state out of the format. Every byte it returns was checked; the end is reported
/// only where a snapshot really ends.
#[derive(Debug)]
pub struct SnapshotReader<R: Read> {
    from: R,
    header: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
    chunks: u64,
    bytes: u64,
    ended: bool,
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => damaged("it ends too early"),
        _ => e,
    })?;
    Ok(bytes)
}

fn counted(from: &mut impl Read, len: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len.into()).read_to_end(&mut bytes)?;
    if bytes.len() == len as usize { Ok(bytes) } else { Err(damaged("it ends too early")) }
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Those of `from`; `InvalidData`: damage; `Unsupported`: a newer format.
    pub fn new(mut from: R) -> io::Result<Self> {
        let fixed: [u8; 14] = array(&mut from)?;
        if fixed[..8] != MAGIC {
            return Err(damaged("it does not begin as a snapshot does"));
        }
        let format = u16::from_le_bytes([fixed[8], fixed[9]]);
        if format > FORMAT {
            let what = format!("the snapshot has format {format}, of a newer version (known: {FORMAT})");
            return Err(io::Error::new(ErrorKind::Unsupported, what));
        }
        let len = u32::from_le_bytes([fixed[10], fixed[11], fixed[12], fixed[13]]);
        if len > MAX_HEADER_LEN {
            return Err(damaged("its header is too long"));
        }
        let header = counted(&mut from, len)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&fixed), &header);
        if array(&mut from)? != crc.to_le_bytes() {
            return Err(damaged("the checksum of its header is wrong"));
        }
        Ok(Self { from, header, chunk: Vec::new(), at: 0, chunks: 0, bytes: 0, ended: false })
    }

    pub fn header(&self) -> &[u8] {
        &self.header
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let head: [u8; 8] = array(&mut self.from)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len as usize > CHUNK_LEN {
            return Err(damaged("a chunk is too long"));
        }
        if len == 0 {
            let trailer: [u8; 16] = array(&mut self.from)?;
            let (bytes, chunks) = trailer.split_at(8);
            let counted = bytes == self.bytes.to_le_bytes() && chunks == self.chunks.to_le_bytes();
            if crc32c::crc32c(&trailer) != crc || !counted {
                return Err(damaged("its trailer is wrong"));
            }
            if self.from.read(&mut [0])? != 0 {
                return Err(damaged("something follows its end"));
            }
            self.ended = true;
            return Ok(());
        }
        self.chunk = counted(&mut self.from, len)?;
        self.at = 0;
        if crc32c::crc32c(&self.chunk) != crc {
            return Err(damaged("the checksum of a chunk is wrong"));
        }
        self.chunks += 1;
        self.bytes += u64::from(len);
        Ok(())
    }

    /// Reads and checks the rest, and returns the header.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn verify(mut self) -> io::Result<Vec<u8>> {
        while !self.ended {
            self.next_chunk()?;
        }
        Ok(self.header)
    }
}

impl<R: Read> Read for SnapshotReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() && !self.ended {
            self.next_chunk()?;
        }
        let n = to.len().min(self.chunk.len() - self.at);
        to[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// The folder of the finished snapshots.
#[derive(Clone, Debug)]
pub struct SnapshotFolder {
    dir: PathBuf,
}

/// A snapshot on its way into the folder; removed unless it gets there.
pub struct Unfinished {
    pub file: BufWriter<File>,
    pub path: PathBuf,
}

impl SnapshotFolder {
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let prepare = || -> io::Result<()> {
            create_private_dir(dir)?;
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "tmp") {
                    remove_if_present(&path)?;
                }
            }
            Ok(())
        };
        prepare().map_err(OpenError::io(dir))?;
        Ok(Self { dir: dir.to_owned() })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The finished snapshots, newest first: their names order by age.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == EXTENSION) {
                found.push(path);
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// Opens one for reading its state.
    ///
    /// # Errors
    /// As [`SnapshotReader::new`], naming the file.
    pub fn read(path: &Path) -> io::Result<SnapshotReader<BufReader<File>>> {
        File::open(path)
            .and_then(|file| SnapshotReader::new(BufReader::with_capacity(CHUNK_LEN, file)))
            .map_err(|e| in_file(path, &e))
    }

    /// Reads all of one, checks it and returns its header.
    ///
    /// # Errors
    /// As [`SnapshotReader::new`], naming the file.
    pub fn verify(path: &Path) -> io::Result<Vec<u8>> {
        Self::read(path)?.verify().map_err(|e| in_file(path, &e))
    }

    /// A new file in the folder, to be written and then kept; `name` is for telling concurrent
    /// ones apart.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(&self, name: &str) -> io::Result<Unfinished> {
        let path = self.dir.join(format!("{name}.tmp"));
        remove_if_present(&path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Unfinished { file: BufWriter::with_capacity(CHUNK_LEN, file), path })
    }

    /// Makes the synced file at `from` the snapshot `name`, durably, and removes all but the
    /// newest two.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(&self, from: &Path, name: &str) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("{name}.{EXTENSION}"));
        if from != path {
            fs::rename(from, &path)?;
            sync_dir(&self.dir)?;
        }
        for old in self.list()?.into_iter().skip(KEPT) {
            remove_if_present(&old)?;
        }
        Ok(path)
    }

    /// Puts a damaged snapshot aside, where it is not taken for one any more.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let aside = path.with_extension(DAMAGED_EXTENSION);
        fs::rename(path, &aside)?;
        sync_dir(&self.dir)?;
        Ok(aside)
    }
}

impl Unfinished {
    /// # Errors
    /// Those of the file system.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already if it was kept; what stays is removed at the next start.
        if let Err(error) = remove_if_present(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove an unfinished snapshot");
        }
    }
}

fn in_file(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(header: &[u8], state: &[u8]) -> Vec<u8> {
        let mut writer = SnapshotWriter::new(Vec::new(), header).unwrap();
        writer.write_all(state).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn states_of_every_length_round_trip() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 3 * CHUNK_LEN] {
            let state: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let bytes = snapshot(b"header", &state);
            let mut reader = SnapshotReader::new(&bytes[..]).unwrap();
            assert_eq!(reader.header(), b"header");
            let mut found = Vec::new();
            reader.read_to_end(&mut found).unwrap();
            assert!(found == state);
            assert_eq!(SnapshotReader::new(&bytes[..]).unwrap().verify().unwrap(), b"header");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = snapshot(b"", b"state");
        bytes[8] = 2;
        assert_eq!(SnapshotReader::new(&bytes[..]).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #[test]
        fn every_kind_of_damage_is_noticed(
            state in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(), bit in 0..8u8, cut: bool,
        ) {
            let mut bytes = snapshot(b"header", &state);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            prop_assert!(SnapshotReader::new(&bytes[..]).and_then(SnapshotReader::verify).is_err());
        }
    }

    #[test]
    fn a_file_is_read_as_the_first_release_wrote_it() {
        let mut writer = SnapshotWriter::new(Vec::new(), b"header").unwrap();
        writer.write_all(b"the state").unwrap();
        let now = vec![("snapshot".to_owned(), writer.finish().unwrap())];
        for (_, kept) in crate::fixture::first_format("snapshot.hex", &now) {
            assert_eq!(SnapshotReader::new(&kept[..]).unwrap().verify().unwrap(), b"header");
            let mut state = Vec::new();
            SnapshotReader::new(&kept[..]).unwrap().read_to_end(&mut state).unwrap();
            assert_eq!(state, b"the state");
        }
    }
}
