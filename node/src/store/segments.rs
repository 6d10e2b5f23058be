//! The files of the log, written by one thread.
//!
//! What is older than a file's first record is repeated at its head (vote, purge, commit hint),
//! so that the log can be read from any file on and old ones can go.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::OpenError;
use super::files::{create_private_dir, is_full};
use super::pool::{Pool, fill};
use super::record::{self, HEADER_LEN, Kind, Raw, Record, SEAL_LEN, Stamp};
use super::segment::{self, End, HEAD_LEN, Progress, Segment, file_name, number_of, scan};
use super::view::{Durable, Place};

/// Bytes above which the buffer for writing is given back after use.
const KEPT_BUFFER_LEN: usize = 4 << 20;
/// Bytes of a purge record's payload before the caller's marker.
const PURGE_PREFIX_LEN: usize = 4;

/// How the log lies on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub owner: u64,
    pub segment_len: u32,
    pub max_spares: usize,
}

pub(super) struct Segments {
    dir: PathBuf,
    layout: Layout,
    pool: Pool,
    /// Ascending, without gaps; the last is written to.
    live: VecDeque<Segment>,
    /// Offset of the next record in the last segment.
    at: u32,
    group: u64,
    buffer: Vec<u8>,
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    committed: Option<Bytes>,
    /// The next record to be written is preceded by what the older files say besides entries.
    carries: bool,
}

/// Asked, with the error, when the disk is full; waits a while and says whether to try again.
pub(super) type Wait<'a> = &'a dyn Fn(&io::Error) -> bool;

fn patiently<T>(wait: Wait<'_>, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if is_full(&error) && wait(&error) => {}
            outcome => return outcome,
        }
    }
}

/// What writing a group did.
#[derive(Default)]
pub(super) struct Written {
    /// Of each entry, in order.
    pub places: Vec<Place>,
    /// Files that the group went on in.
    pub opened: Vec<(u32, Arc<File>)>,
    /// Bytes written, and syncs made.
    pub bytes: u64,
    pub syncs: u64,
}

fn list(dir: &Path) -> io::Result<(Vec<u32>, Vec<PathBuf>)> {
    let (mut numbers, mut spares) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(number) = number_of(&path) {
            numbers.push(number);
        } else if name.starts_with("spare-") && name.ends_with(".log") {
            spares.push(path);
        } else if name.ends_with(".tmp") {
            // A file whose making was interrupted; nothing was ever written to it.
            fs::remove_file(&path)?;
        }
    }
    numbers.sort_unstable();
    spares.sort_unstable();
    Ok((numbers, spares))
}

/// What the scan of the files adds up to.
#[derive(Default)]
struct Scanned {
    durable: Durable,
    first_segment: Option<u32>,
}

impl Scanned {
    fn apply(&mut self, segment: u32, offset: u32, raw: &Raw<'_>) -> Result<(), String> {
        let owned = || Bytes::copy_from_slice(raw.payload);
        match raw.kind {
            Kind::Entry => self.durable.places.push(raw.index, Place { segment, offset })?,
            Kind::Truncate => self.durable.places.truncate(raw.index),
            Kind::Purge => {
                let (first, marker) = raw.payload.split_first_chunk().ok_or("a purge record is too short")?;
                self.first_segment = Some(u32::from_le_bytes(*first));
                self.durable.places.purge(raw.index);
                self.durable.purged = Some((raw.index, Bytes::copy_from_slice(marker)));
            }
            Kind::Vote => self.durable.vote = Some(owned()),
            Kind::Committed => self.durable.committed = Some(owned()),
            Kind::Seal => {}
        }
        Ok(())
    }
}

impl Segments {
    /// Opens the log in `dir`, creating it if there is none, and returns what it holds.
    pub fn open(dir: &Path, layout: Layout) -> Result<(Self, Durable), OpenError> {
        let here = || OpenError::io(dir);
        create_private_dir(dir).map_err(here())?;
        let (numbers, spares) = list(dir).map_err(here())?;
        let pool = Pool::new(dir, layout.segment_len, layout.max_spares, spares).map_err(here())?;
        let mut scanned = Scanned::default();
        let mut progress = Progress::default();
        let mut live = VecDeque::new();
        let mut end = End::Sealed;
        for (i, &number) in numbers.iter().enumerate() {
            let path = dir.join(file_name(number));
            if i > 0 && numbers[i - 1] + 1 != number {
                let missing = dir.join(file_name(number - 1));
                return Err(OpenError::damaged(&missing, 0, "the file is missing, later ones exist"));
            }
            let mut last_entry = None;
            let is_last = i + 1 == numbers.len();
            let (capacity, ends) = scan(&path, number, layout.owner, is_last, &mut progress, |at, raw| {
                if raw.kind == Kind::Entry {
                    last_entry = last_entry.max(Some(raw.index));
                }
                scanned.apply(number, at, &raw)
            })?;
            end = ends;
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(OpenError::io(&path))?;
            live.push_back(Segment { number, path, file: Arc::new(file), capacity, last_entry });
        }
        let needed = scanned.first_segment.unwrap_or(1);
        if let Some(first) = numbers.first()
            && *first > needed
        {
            return Err(OpenError::damaged(&dir.join(file_name(needed)), 0, "the file is missing"));
        }
        if let (Some((upto, _)), Some(first)) = (&scanned.durable.purged, scanned.durable.places.first())
            && first != upto + 1
        {
            let what = format!("the log was purged up to index {upto}, but begins at {first}");
            return Err(OpenError::damaged(dir, 0, what));
        }
        let mut segments = Self {
            dir: dir.to_owned(),
            layout,
            pool,
            live,
            at: 0,
            group: progress.group,
            buffer: Vec::new(),
            vote: scanned.durable.vote.clone(),
            purged: scanned.durable.purged.clone(),
            committed: scanned.durable.committed.clone(),
            // The head of the last file may be what an interrupted write did not finish.
            carries: true,
        };
        match (end, segments.live.back()) {
            (End::Open { at, dirty }, Some(last)) => {
                if dirty {
                    // What an interrupted write left must never follow a new record.
                    let cleaned = fill(&last.file, at.into(), last.capacity.into());
                    cleaned.map_err(OpenError::io(&last.path))?;
                }
                segments.at = at;
            }
            _ => segments.begin_segment(0, &|_| false).map_err(here())?,
        }
        // Files that a purge had given up when the process ended.
        while segments.live.len() > 1 && segments.live[0].number < needed {
            segments.drop_first().map_err(here())?;
        }
        scanned.durable.files = segments.live.iter().map(|s| (s.number, s.file.clone())).collect();
        Ok((segments, scanned.durable))
    }

    /// Writes `records` as one group and returns when they are durable. When the disk is full,
    /// `wait` is asked whether to try again. After an error the log must not be written to any
    /// more: how much of the group is on disk is not known.
    pub fn write(&mut self, records: &[Record], wait: Wait<'_>) -> io::Result<Written> {
        self.group += 1;
        let mut written = Written::default();
        let mut start = self.at;
        self.buffer.clear();
        for (i, record) in records.iter().enumerate() {
            let mut need = encoded_len(record);
            if self.carries {
                need += self.carried().iter().map(encoded_len).sum::<usize>();
            }
            if !self.fits(need) {
                self.seal(start, &mut written, wait)?;
                let carried = self.carried().iter().map(encoded_len).sum::<usize>();
                self.begin_segment(encoded_len(record) + carried, wait)?;
                start = HEAD_LEN as u32;
                if let Some(last) = self.live.back() {
                    written.opened.push((last.number, last.file.clone()));
                }
            }
            if std::mem::take(&mut self.carries) {
                let stamp = self.stamp(false);
                for carried in self.carried() {
                    self.put(&carried, stamp, &mut Vec::new());
                }
            }
            let stamp = self.stamp(i + 1 == records.len());
            self.put(record, stamp, &mut written.places);
        }
        self.write_out(start, &mut written, wait)?;
        if self.buffer.capacity() > KEPT_BUFFER_LEN {
            self.buffer = Vec::new();
        }
        Ok(written)
    }

    /// Numbers of the files that no entry after `upto` is in.
    pub fn droppable(&self, upto: u64) -> Vec<u32> {
        let first = self.first_needed(upto);
        self.live.iter().map(|s| s.number).take_while(|n| *n < first).collect()
    }

    /// Gives up the files below `number`. Nobody may take a new handle of them any more.
    pub fn drop_below(&mut self, number: u32) -> io::Result<()> {
        while self.live.len() > 1 && self.live[0].number < number {
            self.drop_first()?;
        }
        Ok(())
    }

    fn drop_first(&mut self) -> io::Result<()> {
        let Some(old) = self.live.pop_front() else { return Ok(()) };
        // A reader that looked its place up before keeps its handle: the file is then unlinked,
        // not overwritten.
        let in_use = Arc::strong_count(&old.file) > 1;
        self.pool.give_back(&old.path, old.capacity, in_use)
    }

    /// The first file that still has an entry after `upto`, or the one being written.
    fn first_needed(&self, upto: u64) -> u32 {
        let needed = self.live.iter().find(|s| s.last_entry.is_some_and(|last| last > upto));
        needed.or(self.live.back()).map_or(1, |s| s.number)
    }

    fn stamp(&self, ends_group: bool) -> Stamp {
        let segment = self.live.back().map_or(0, |s| s.number);
        Stamp { segment, group: self.group, ends_group }
    }

    fn fits(&self, need: usize) -> bool {
        let capacity = self.live.back().map_or(0, |s| s.capacity as usize);
        self.at as usize + need + SEAL_LEN <= capacity
    }

    fn put(&mut self, record: &Record, stamp: Stamp, places: &mut Vec<Place>) {
        let before = self.buffer.len();
        let out = &mut self.buffer;
        match record {
            Record::Entry { index, payload } => {
                places.push(Place { segment: stamp.segment, offset: self.at });
                if let Some(segment) = self.live.back_mut() {
                    segment.last_entry = segment.last_entry.max(Some(*index));
                }
                record::put(out, stamp, Kind::Entry, *index, [payload, &[]]);
            }
            Record::Truncate { from } => record::put(out, stamp, Kind::Truncate, *from, [&[], &[]]),
            Record::Vote(vote) => {
                self.vote = Some(vote.clone());
                record::put(out, stamp, Kind::Vote, 0, [vote, &[]]);
            }
            Record::Committed(committed) => {
                self.committed = Some(committed.clone());
                record::put(out, stamp, Kind::Committed, 0, [committed, &[]]);
            }
            Record::Purge { upto, marker } => {
                self.purged = Some((*upto, marker.clone()));
                let first = self.first_needed(*upto).to_le_bytes();
                record::put(&mut self.buffer, stamp, Kind::Purge, *upto, [&first, marker]);
            }
        }
        self.at += (self.buffer.len() - before) as u32;
    }

    /// Ends the current segment, durably, so that a later one proves it whole.
    fn seal(&mut self, start: u32, written: &mut Written, wait: Wait<'_>) -> io::Result<()> {
        let stamp = self.stamp(false);
        record::put(&mut self.buffer, stamp, Kind::Seal, 0, [&[], &[]]);
        self.write_out(start, written, wait)
    }

    /// Where a file's room is not really its own, on a file system that copies on writing, writing
    /// into it may fail too. The same bytes are then written again, and synced with them.
    fn write_out(&mut self, start: u32, written: &mut Written, wait: Wait<'_>) -> io::Result<()> {
        let Some(segment) = self.live.back() else { return Ok(()) };
        let in_file = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", segment.path.display()));
        patiently(wait, || {
            segment.file.write_all_at(&self.buffer, start.into()).map_err(in_file)?;
            segment.file.sync_data().map_err(in_file)
        })?;
        written.bytes += self.buffer.len() as u64;
        written.syncs += 1;
        self.buffer.clear();
        Ok(())
    }

    /// Goes on in the next number, with room for `need` bytes of records.
    fn begin_segment(&mut self, need: usize, wait: Wait<'_>) -> io::Result<()> {
        let number = self.live.back().map_or(0, |s| s.number) + 1;
        let capacity = u32::try_from(HEAD_LEN + need + SEAL_LEN)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a log record of 4 GiB"))?
            .max(self.layout.segment_len);
        let path = self.dir.join(file_name(number));
        let head = segment::head(number, self.layout.owner, capacity);
        let file = Arc::new(patiently(wait, || self.pool.take(&path, capacity, &head))?);
        self.live.push_back(Segment { number, path, file, capacity, last_entry: None });
        self.at = HEAD_LEN as u32;
        self.carries = true;
        Ok(())
    }

    /// What the log says besides entries.
    fn carried(&self) -> Vec<Record> {
        let purged = self.purged.clone().map(|(upto, marker)| Record::Purge { upto, marker });
        let vote = self.vote.clone().map(Record::Vote);
        let committed = self.committed.clone().map(Record::Committed);
        [vote, purged, committed].into_iter().flatten().collect()
    }
}

/// Bytes that the record takes in a segment.
fn encoded_len(record: &Record) -> usize {
    HEADER_LEN
        + match record {
            Record::Entry { payload, .. } => payload.len(),
            Record::Truncate { .. } => 0,
            Record::Purge { marker, .. } => PURGE_PREFIX_LEN + marker.len(),
            Record::Vote(bytes) | Record::Committed(bytes) => bytes.len(),
        }
}
