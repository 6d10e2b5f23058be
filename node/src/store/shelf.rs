//! Queued messages that a node does not hold in memory, in files that live as long as the process.
//!
//! Nothing here has to survive: the log and the snapshots hold every message durably, and a start
//! begins with an empty folder. So nothing is synced, and a file is gone with its last message.
//!
//! ```text
//! record:  length u32 │ crc32c u32 of the rest │ message (postcard)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::files::create_private_dir;
use crate::mqtt::Message;
use crate::state::{Parcel, Shelf, Slot};

/// A file is full when it is larger.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of a record before the message.
const HEADER_LEN: usize = 8;
/// A full file of which less than one part in so many is in use is emptied.
const SPARSE: u64 = 4;

const EXTENSION: &str = "messages";

/// One file. It is removed when the last that uses it is gone.
struct Segment {
    file: File,
    path: PathBuf,
    /// Of messages that are still queued.
    live_bytes: AtomicU64,
    written_bytes: AtomicU64,
    parcels: Mutex<Vec<Weak<Parcel>>>,
}

impl Segment {
    fn create(path: PathBuf) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let (live_bytes, written_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Arc::new(Self { file, path, live_bytes, written_bytes, parcels: Mutex::default() }))
    }

    fn is_full(&self) -> bool {
        self.written_bytes.load(Ordering::Relaxed) >= SEGMENT_BYTES
    }

    fn is_sparse(&self) -> bool {
        let live = self.live_bytes.load(Ordering::Relaxed);
        live < self.written_bytes.load(Ordering::Relaxed) / SPARSE
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a file of queued messages");
        }
    }
}

/// One message in a file.
struct Place {
    segment: Arc<Segment>,
    offset: u64,
    len: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.segment.live_bytes.fetch_sub(u64::from(self.len), Ordering::Relaxed);
    }
}

impl Slot for Place {
    fn read(&self) -> io::Result<Message> {
        let damaged = |what: &str| {
            let (path, offset) = (self.segment.path.display(), self.offset);
            io::Error::new(io::ErrorKind::InvalidData, format!("{path} is damaged at {offset}: {what}"))
        };
        let mut record = vec![0; self.len as usize];
        self.segment.file.read_exact_at(&mut record, self.offset)?;
        let (head, body) = record.split_at(HEADER_LEN);
        if head != header(body) {
            return Err(damaged("wrong length or checksum"));
        }
        postcard::from_bytes(body).map_err(|error| damaged(&error.to_string()))
    }
}

fn header(body: &[u8]) -> [u8; HEADER_LEN] {
    let mut head = [0; HEADER_LEN];
    head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    head
}

#[derive(Default)]
struct Segments {
    current: Option<Arc<Segment>>,
    full: Vec<Weak<Segment>>,
    count: u64,
}

/// The files of one node.
pub struct QueueFiles {
    dir: PathBuf,
    segments: Mutex<Segments>,
}

impl QueueFiles {
    /// Begins with an empty folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path) -> io::Result<Self> {
        create_private_dir(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { dir: dir.to_owned(), segments: Mutex::default() })
    }

    /// The file to write to; only one thread writes.
    fn current(&self) -> io::Result<Arc<Segment>> {
        let mut segments = self.segments.lock();
        if let Some(current) = segments.current.take_if(|current| current.is_full()) {
            segments.full.push(Arc::downgrade(&current));
        }
        if let Some(current) = &segments.current {
            return Ok(current.clone());
        }
        segments.count += 1;
        let path = self.dir.join(format!("{:010}.{EXTENSION}", segments.count));
        let segment = Segment::create(path)?;
        segments.current = Some(segment.clone());
        Ok(segment)
    }
}

impl Shelf for QueueFiles {
    fn store(&self, parcels: &[Arc<Parcel>]) -> io::Result<()> {
        let segment = self.current()?;
        let begin = segment.written_bytes.load(Ordering::Relaxed);
        let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(parcels.len()));
        for parcel in parcels {
            let message = parcel.read()?;
            let start = bytes.len();
            bytes.extend_from_slice(&[0; HEADER_LEN]);
            bytes = postcard::to_extend(&*message, bytes).map_err(io::Error::other)?;
            let head = header(&bytes[start + HEADER_LEN..]);
            bytes[start..start + HEADER_LEN].copy_from_slice(&head);
            let len = u32::try_from(bytes.len() - start).map_err(io::Error::other)?;
            places.push((begin + start as u64, len));
        }
        segment.file.write_all_at(&bytes, begin)?;
        segment.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        segment.live_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        segment.parcels.lock().extend(parcels.iter().map(Arc::downgrade));
        for (parcel, (offset, len)) in parcels.iter().zip(places) {
            parcel.put_away(Arc::new(Place { segment: segment.clone(), offset, len }));
        }
        Ok(())
    }

    fn tidy(&self) -> io::Result<()> {
        let full: Vec<Arc<Segment>> = {
            let mut segments = self.segments.lock();
            segments.full.retain(|segment| segment.strong_count() > 0);
            segments.full.iter().filter_map(Weak::upgrade).collect()
        };
        for segment in full.into_iter().filter(|segment| segment.is_sparse()) {
            let parcels = std::mem::take(&mut *segment.parcels.lock());
            let parcels: Vec<_> = parcels.into_iter().filter_map(|parcel| parcel.upgrade()).collect();
            if !parcels.is_empty()
                && let Err(error) = self.store(&parcels)
            {
                segment.parcels.lock().extend(parcels.iter().map(Arc::downgrade));
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::QoS;
    use crate::state::Stock;

    fn message(text: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: "a/b".into(),
            payload: text.as_bytes().into(),
            properties: Box::default(),
            qos: QoS::AtLeastOnce,
            retain: false,
            expires_at_ms: 7,
            publisher: "p".into(),
        })
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).expect("a folder").count()
    }

    /// A stock that puts away everything that it is asked to.
    fn stock(dir: &Path) -> (Arc<QueueFiles>, Arc<Stock>) {
        let shelf = Arc::new(QueueFiles::open(dir).expect("opens"));
        (shelf.clone(), Arc::new(Stock::on(shelf, 0)))
    }

    #[test]
    fn what_was_put_away_comes_back_and_its_file_goes_with_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let (shelf, stock) = stock(dir.path());
        let texts = ["one", "two", "three"];
        let parcels: Vec<_> = texts.iter().map(|text| Parcel::new(message(text), &stock)).collect();
        assert!(stock.held_bytes() > 0);
        stock.put_away(stock.take_surplus()).expect("stored");
        assert_eq!((stock.held_bytes(), files(dir.path())), (0, 1));
        for (parcel, text) in parcels.iter().zip(texts) {
            assert!(parcel.here().is_none());
            assert_eq!(parcel.read().expect("stored"), message(text));
            assert!(parcel.here().is_none(), "reading is not bringing");
            parcel.bring().expect("stored");
            assert_eq!(parcel.here(), Some(message(text)));
        }
        assert_eq!(stock.held_bytes(), parcels.iter().map(|p| p.size_bytes() as u64).sum::<u64>());
        // There is a copy: memory is freed without writing.
        stock.put_away(stock.take_surplus()).expect("stored");
        assert_eq!(stock.held_bytes(), 0);
        shelf.segments.lock().current = None;
        drop(parcels);
        assert_eq!((stock.held_bytes(), files(dir.path())), (0, 0));
    }

    #[test]
    fn a_sparse_file_is_emptied() {
        let dir = tempfile::tempdir().expect("a folder");
        let (shelf, stock) = stock(dir.path());
        let mut parcels: Vec<_> =
            (0..100).map(|i| Parcel::new(message(&format!("{i:1000}")), &stock)).collect();
        shelf.store(&parcels).expect("stored");
        let segment = shelf.segments.lock().current.take().expect("written to");
        shelf.segments.lock().full.push(Arc::downgrade(&segment));
        let first = segment.path.clone();
        drop(segment);
        parcels.truncate(50);
        shelf.tidy().expect("tidy");
        assert!(first.exists(), "half of it is in use");
        parcels.truncate(20);
        shelf.tidy().expect("tidy");
        assert!(!first.exists() && files(dir.path()) == 1);
        for (i, parcel) in parcels.iter().enumerate() {
            assert_eq!(parcel.read().expect("stored"), message(&format!("{i:1000}")));
        }
    }

    #[test]
    fn damage_is_noticed_and_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let (shelf, stock) = stock(dir.path());
        let parcel = Parcel::new(message("some text"), &stock);
        shelf.store(std::slice::from_ref(&parcel)).expect("stored");
        let path = shelf.segments.lock().current.as_ref().expect("written to").path.clone();
        let good = fs::read(&path).expect("readable");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).expect("writable");
            let error = parcel.read().expect_err("damaged");
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn a_start_forgets_what_was_there() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(format!("0000000001.{EXTENSION}")), "of a crash").expect("written");
        fs::write(dir.path().join("notes.txt"), "not ours").expect("written");
        QueueFiles::open(dir.path()).expect("opens");
        assert_eq!(files(dir.path()), 1);
        assert!(dir.path().join("notes.txt").exists());
    }
}
