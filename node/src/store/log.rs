//! The log of consensus as opaque bytes: entries by index, the vote and the purge marker, all in
//! one stream, so that a change is durable only with everything before it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::error::OpenError;
use super::flusher::Flusher;
use super::memory::{MemoryDisk, MemoryLog, MemorySync};
use super::reader::{self, Wanted};
use super::record::Record;
use super::segments::{Layout, Segments};
use super::view::{Durable, View};

/// Called once, when the change it came with and all before it are durable, or never will be.
/// Callbacks run one after the other, in the order of the changes.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Settings of a log on disk.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// The node that the log belongs to.
    pub owner: u64,
    /// Bytes of one file, all of it preallocated; an entry that is larger gets a file of its own.
    pub segment_len: u32,
    /// Files kept for reuse.
    pub max_spares: usize,
    /// Bytes of recent entries held in memory; older ones are read back from the files.
    pub cache_bytes: usize,
    /// Recent entries held in memory whatever their size.
    pub cache_min_entries: usize,
}

impl LogOptions {
    /// 16 MiB.
    pub const DEFAULT_SEGMENT_LEN: u32 = 16 << 20;
    pub const DEFAULT_MAX_SPARES: usize = 4;
    /// 8 MiB.
    pub const DEFAULT_CACHE_BYTES: usize = 8 << 20;
    pub const DEFAULT_CACHE_MIN_ENTRIES: usize = 64;

    pub fn new(owner: u64) -> Self {
        Self {
            owner,
            segment_len: Self::DEFAULT_SEGMENT_LEN,
            max_spares: Self::DEFAULT_MAX_SPARES,
            cache_bytes: Self::DEFAULT_CACHE_BYTES,
            cache_min_entries: Self::DEFAULT_CACHE_MIN_ENTRIES,
        }
    }
}

/// What the log did since it was opened.
#[derive(Debug, Default)]
pub struct LogStats {
    pub appended_entries: AtomicU64,
    /// Writes, each of everything that was queued.
    pub groups: AtomicU64,
    pub syncs: AtomicU64,
    pub written_bytes: AtomicU64,
}

/// The log. Clones share it; the last one to go writes out what is queued.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    backing: Backing,
}

enum Backing {
    Files(Flusher),
    Memory(MemoryLog),
}

/// Changes submitted together.
pub(super) struct Job {
    pub records: Vec<Record>,
    pub done: Flushed,
}

/// Between the log's users and its writer.
pub(super) struct Shared {
    pub state: Mutex<State>,
    pub wake: Condvar,
    pub stats: LogStats,
    /// A write waits for the disk to have room.
    pub waiting: AtomicBool,
}

pub(super) struct State {
    pub view: View,
    pub durable: Durable,
    pub queue: Vec<Job>,
    /// Written with the next group, not by itself.
    pub committed_hint: Option<Bytes>,
    /// The first failure; everything after it fails too.
    pub failure: Option<(io::ErrorKind, Arc<str>)>,
    pub closed: bool,
}

impl State {
    /// What every submission fails with by now, if it does.
    pub fn failed(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some((kind, what)) => Err(io::Error::new(*kind, what.to_string())),
        }
    }
}

impl Shared {
    pub fn new(durable: Durable) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                view: View::of(&durable),
                durable,
                queue: Vec::new(),
                committed_hint: None,
                failure: None,
                closed: false,
            }),
            wake: Condvar::new(),
            stats: LogStats::default(),
            waiting: AtomicBool::new(false),
        })
    }
}

impl LogStore {
    /// Opens the log in the folder `dir`, creating it if there is none.
    ///
    /// # Errors
    /// [`OpenError`]: above all damage anywhere but at the very end of the last file, where an
    /// interrupted write leaves it. Nothing acknowledged is ever dropped silently.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, OpenError> {
        let layout =
            Layout { owner: options.owner, segment_len: options.segment_len, max_spares: options.max_spares };
        let (segments, durable) = Segments::open(dir, layout)?;
        let shared = Shared::new(durable);
        let flusher = Flusher::start(shared.clone(), segments, options).map_err(OpenError::io(dir))?;
        Ok(Self { inner: Arc::new(Inner { shared, backing: Backing::Files(flusher) }) })
    }

    /// A log on a simulated disk, as that disk has it.
    pub fn in_memory(disk: &MemoryDisk, sync: MemorySync) -> Self {
        let (shared, log) = MemoryLog::open(disk, sync);
        Self { inner: Arc::new(Inner { shared, backing: Backing::Memory(log) }) }
    }

    /// Appends consecutive entries, the first at index `first`. They can be read at once.
    ///
    /// # Errors
    /// There would be a hole, an entry is there already, or the log is closed; `done` is then dropped uncalled.
    pub fn append(&self, first: u64, payloads: Vec<Bytes>, done: Flushed) -> io::Result<()> {
        self.inner.shared.stats.appended_entries.fetch_add(payloads.len() as u64, Ordering::Relaxed);
        self.submit(done, |view| {
            view.append(first, &payloads)?;
            let entries = payloads.into_iter().zip(first..);
            Ok(entries.map(|(payload, index)| Record::Entry { index, payload }).collect())
        })
    }

    /// Removes the entries from index `from` on.
    ///
    /// # Errors
    /// The log is closed.
    pub fn truncate(&self, from: u64, done: Flushed) -> io::Result<()> {
        self.submit(done, |view| {
            view.truncate(from);
            Ok(vec![Record::Truncate { from }])
        })
    }

    /// Removes the entries up to and including `upto`, and remembers `marker` with it. What the
    /// entries did must be durable elsewhere before. An `upto` beyond the last entry lets the
    /// log go on after it.
    ///
    /// # Errors
    /// The log is closed.
    pub fn purge(&self, upto: u64, marker: Bytes, done: Flushed) -> io::Result<()> {
        self.submit(done, |view| {
            let changed = view.purge(upto, marker.clone());
            Ok(changed.then_some(Record::Purge { upto, marker }).into_iter().collect())
        })
    }

    /// Replaces the vote.
    ///
    /// # Errors
    /// The log is closed.
    pub fn set_vote(&self, vote: Bytes, done: Flushed) -> io::Result<()> {
        self.submit(done, |view| {
            view.vote = Some(vote.clone());
            Ok(vec![Record::Vote(vote)])
        })
    }

    pub fn vote(&self) -> Option<Bytes> {
        self.inner.shared.state.lock().view.vote.clone()
    }

    /// Remembers how far the log is known to be committed. Becomes durable with the next change,
    /// never before the changes submitted earlier.
    pub fn hint_committed(&self, committed: Bytes) {
        let mut state = self.inner.shared.state.lock();
        state.view.committed = Some(committed.clone());
        state.committed_hint = Some(committed);
    }

    pub fn committed(&self) -> Option<Bytes> {
        self.inner.shared.state.lock().view.committed.clone()
    }

    /// Indexes of the entries.
    pub fn range(&self) -> Range<u64> {
        self.inner.shared.state.lock().view.range()
    }

    /// Index and marker of the last purge.
    pub fn purged(&self) -> Option<(u64, Bytes)> {
        self.inner.shared.state.lock().view.purged().cloned()
    }

    /// A write waits for the disk to have room: nothing becomes durable until there is some.
    pub fn is_waiting(&self) -> bool {
        self.inner.shared.waiting.load(Ordering::Relaxed)
    }

    pub fn stats(&self) -> &LogStats {
        &self.inner.shared.stats
    }

    /// The entries of `range` that exist, from its start, as many as fit `max_bytes` but at
    /// least one; `None` if a file would have to be read.
    pub fn read_cached(&self, range: Range<u64>, max_bytes: usize) -> Option<Vec<Bytes>> {
        let state = self.inner.shared.state.lock();
        let start = range.start.max(state.view.range().start);
        let end = range.end.min(state.view.range().end);
        (start >= end || start >= state.view.tail_first()).then(|| state.view.cached(start..end, max_bytes))
    }

    /// As [`Self::read_cached`], reading files where it has to: it may block.
    ///
    /// # Errors
    /// Those of the files; an entry that is damaged on disk.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Bytes>> {
        // One lock for both parts: what is read is the log as of one moment. The files' handles
        // keep their content as it is.
        let (wanted, cached) = {
            let state = self.inner.shared.state.lock();
            let start = range.start.max(state.view.range().start);
            let end = range.end.min(state.view.range().end);
            let tail_first = state.view.tail_first();
            let wanted = (start..end.min(tail_first)).map(|index| {
                let place = state.durable.places.get(index);
                let file = place.and_then(|place| state.durable.files.get(&place.segment));
                place.zip(file).map(|(place, file)| Wanted { index, place, file: file.clone() }).ok_or(index)
            });
            let wanted = wanted.collect::<Result<Vec<_>, u64>>();
            (wanted, state.view.cached(start.max(tail_first)..end, max_bytes))
        };
        let lost = |index| io::Error::other(format!("log entry {index} is neither in memory nor on disk"));
        let wanted = wanted.map_err(lost)?;
        let mut found = reader::read(&wanted, max_bytes)?;
        if found.len() == wanted.len() {
            let mut bytes = found.iter().map(Bytes::len).sum::<usize>();
            for payload in cached {
                bytes = bytes.saturating_add(payload.len());
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push(payload);
            }
        }
        Ok(found)
    }

    /// Writes out what is queued, the commit hint too, and takes no more changes, whoever else
    /// still holds the log. Blocks until its folder can be opened again. A simulated log loses
    /// what was not synced.
    pub fn close(&self) {
        self.inner.close();
    }

    /// `change` updates what readers see and says what to write, under one lock, so that the
    /// order of both is the same.
    fn submit(
        &self,
        done: Flushed,
        change: impl FnOnce(&mut View) -> io::Result<Vec<Record>>,
    ) -> io::Result<()> {
        let shared = &self.inner.shared;
        {
            let mut state = shared.state.lock();
            if state.closed {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed"));
            }
            let records = change(&mut state.view)?;
            state.queue.push(Job { records, done });
        }
        match &self.inner.backing {
            Backing::Files(_) => {
                shared.wake.notify_one();
            }
            Backing::Memory(log) => log.queued(),
        }
        Ok(())
    }

    /// Makes everything queued durable on the simulated disk; of no effect on a real one, which
    /// does so by itself.
    pub fn sync_memory(&self) {
        if let Backing::Memory(log) = &self.inner.backing {
            log.sync();
        }
    }
}

impl Inner {
    fn close(&self) {
        self.shared.state.lock().closed = true;
        if let Backing::Files(flusher) = &self.backing {
            self.shared.wake.notify_one();
            flusher.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// For changes whose end nobody waits for.
pub fn ignore_flushed() -> Flushed {
    // A failure is permanent and reported with every later change too.
    Box::new(|_| {})
}
