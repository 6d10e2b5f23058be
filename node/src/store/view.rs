//! What the log holds: as its readers see it, and as it is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// Where an entry's record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u32,
    pub offset: u32,
}

/// The places of consecutive entries, 8 bytes each.
#[derive(Debug, Default)]
pub(super) struct Places {
    first: u64,
    slots: VecDeque<Place>,
}

impl Places {
    pub fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub fn range(&self) -> Range<u64> {
        self.first..self.next()
    }

    /// # Errors
    /// The entry does not follow the last one.
    pub fn push(&mut self, index: u64, place: Place) -> Result<(), String> {
        if self.slots.is_empty() {
            self.first = index;
        } else if index != self.next() {
            return Err(format!("entry {index} where {} belongs", self.next()));
        }
        self.slots.push_back(place);
        Ok(())
    }

    pub fn truncate(&mut self, from: u64) {
        self.slots.truncate(from.saturating_sub(self.first) as usize);
    }

    pub fn purge(&mut self, upto: u64) {
        let gone = (upto + 1).saturating_sub(self.first).min(self.slots.len() as u64);
        self.slots.drain(..gone as usize);
        self.first += gone;
    }

    pub fn get(&self, index: u64) -> Option<Place> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }
}

/// What is on disk as of the last sync.
#[derive(Default)]
pub(super) struct Durable {
    /// Of the newest durable entry; appends counted.
    pub serial: u64,
    pub places: Places,
    pub files: BTreeMap<u32, Arc<File>>,
    pub purged: Option<(u64, Bytes)>,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
}

struct Cached {
    /// Counts appends, so that an entry is told from a later one at the same index.
    serial: u64,
    payload: Bytes,
}

/// What readers see: every change as soon as it was submitted, durable or not.
#[derive(Default)]
pub(super) struct View {
    /// The entries: `first..next`.
    first: u64,
    next: u64,
    purged: Option<(u64, Bytes)>,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    /// The last entries, up to `next`.
    tail: VecDeque<Cached>,
    tail_bytes: usize,
    serial: u64,
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl View {
    /// As found on disk, none of it in memory.
    pub fn of(durable: &Durable) -> Self {
        let Range { start, end } = durable.places.range();
        let mut view = Self {
            first: start,
            next: end,
            purged: durable.purged.clone(),
            vote: durable.vote.clone(),
            committed: durable.committed.clone(),
            ..Self::default()
        };
        if let (true, Some((upto, _))) = (start == end, &view.purged) {
            (view.first, view.next) = (upto + 1, upto + 1);
        }
        view
    }

    pub fn range(&self) -> Range<u64> {
        self.first..self.next
    }

    pub fn purged(&self) -> Option<&(u64, Bytes)> {
        self.purged.as_ref()
    }

    /// Index of the first entry that is in memory.
    pub fn tail_first(&self) -> u64 {
        self.next - self.tail.len() as u64
    }

    /// # Errors
    /// There would be a hole, or an entry is there already.
    pub fn append(&mut self, first: u64, payloads: &[Bytes]) -> io::Result<()> {
        if self.first == self.next && self.purged.is_none() {
            (self.first, self.next) = (first, first);
        } else if first != self.next {
            return Err(refused(format!(
                "an entry {first} appended to a log that ends before {}",
                self.next
            )));
        }
        for payload in payloads {
            self.serial += 1;
            self.tail_bytes += payload.len();
            self.tail.push_back(Cached { serial: self.serial, payload: payload.clone() });
        }
        self.next += payloads.len() as u64;
        Ok(())
    }

    pub fn truncate(&mut self, from: u64) {
        while self.next > from.max(self.first) {
            self.next -= 1;
            if let Some(cached) = self.tail.pop_back() {
                self.tail_bytes -= cached.payload.len();
            }
        }
    }

    /// Returns whether it changed anything: a purge never goes back.
    pub fn purge(&mut self, upto: u64, marker: Bytes) -> bool {
        if self.purged.as_ref().is_some_and(|(before, _)| *before >= upto) {
            return false;
        }
        let first = (upto + 1).max(self.first);
        let cached = self.tail_first();
        for _ in cached..first.min(self.next) {
            self.drop_oldest();
        }
        self.first = first;
        self.next = self.next.max(first);
        self.purged = Some((upto, marker));
        true
    }

    /// Forgets cached entries, oldest first, that are durable (up to `serial`), until no more
    /// than `max_bytes` are held; the last `min_entries` stay in any case.
    pub fn evict(&mut self, serial: u64, max_bytes: usize, min_entries: usize) {
        while self.tail_bytes > max_bytes
            && self.tail.len() > min_entries
            && self.tail.front().is_some_and(|cached| cached.serial <= serial)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(cached) = self.tail.pop_front() {
            self.tail_bytes -= cached.payload.len();
        }
    }

    /// The cached entries of `range`, from its start, as many as fit `max_bytes` but at least
    /// one.
    pub fn cached(&self, range: Range<u64>, max_bytes: usize) -> Vec<Bytes> {
        let tail_first = self.tail_first();
        let (start, end) = (range.start.max(tail_first), range.end.min(self.next));
        let mut bytes = 0;
        let mut found = Vec::new();
        if start < end {
            let slots = (start - tail_first) as usize..(end - tail_first) as usize;
            for cached in self.tail.range(slots) {
                bytes += cached.payload.len();
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push(cached.payload.clone());
            }
        }
        found
    }
}
