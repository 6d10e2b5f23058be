//! The Raft log of openraft over [`LogStore`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use bytes::{Bytes, BytesMut};
use openraft::async_runtime::AsyncRuntime;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};

use super::Proposer;
use super::codec::{self, Entry, LogId, Vote};
use super::types::{Runtime, TypeConfig};
use crate::session;
use crate::state::{Epoch, Pack};
use crate::store::{Flushed, LogStore};

/// Bytes of entries in one AppendEntries request, unless a single entry is larger.
pub const MAX_APPEND_BYTES: usize = 1 << 20;

/// The log as openraft sees it. Clones share it.
#[derive(Clone)]
pub struct RaftLog {
    store: LogStore,
    /// Whose packs' storing is told.
    proposer: Option<Proposer>,
}

impl RaftLog {
    pub fn new(store: LogStore) -> Self {
        Self { store, proposer: None }
    }

    /// Tells the proposer of this node, if it asks, when a pack of its own is on this node's disk.
    #[must_use]
    pub fn telling(self, proposer: Proposer) -> Self {
        Self { proposer: Some(proposer), ..self }
    }

    /// The newest of the proposer's packs among the entries.
    fn newest_asked_for(&self, entries: &[Entry]) -> Option<(Proposer, Epoch, u64)> {
        let proposer = self.proposer.as_ref()?;
        entries.iter().rev().find_map(|entry| {
            let EntryPayload::Normal(packed) = &entry.payload else { return None };
            let (origin, epoch, seq) = Pack::origin_of(&packed.0)?;
            proposer.asks_for(origin).then(|| (proposer.clone(), epoch, seq))
        })
    }

    pub fn store(&self) -> &LogStore {
        &self.store
    }

    /// Log id up to which, inclusive, entries are gone.
    ///
    /// # Errors
    /// It was written by a newer version.
    pub fn purged(&self) -> io::Result<Option<LogId>> {
        self.store.purged().map_or(Ok(None), |(_, marker)| codec::decode_log_id(marker))
    }

    async fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let payloads = match self.store.read_cached(range.clone(), max_bytes) {
            Some(payloads) => payloads,
            None => {
                let store = self.store.clone();
                <Runtime as AsyncRuntime>::spawn_blocking(move || store.read(range, max_bytes)).await??
            }
        };
        payloads.into_iter().map(codec::decode_entry).collect()
    }

    /// Queues a change and waits until it is durable.
    async fn durably(&self, change: impl FnOnce(Flushed) -> io::Result<()>) -> io::Result<()> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        change(Box::new(move |result| {
            // The waiter is gone only if its task was cancelled.
            let _ = tx.send(result);
        }))?;
        rx.await.map_err(|_| io::Error::other("the log was closed"))?
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// Encodes consecutive entries into one buffer, of which each is a slice.
fn encode(entries: &[Entry]) -> io::Result<Vec<Bytes>> {
    let mut buffer = BytesMut::with_capacity(entries.iter().map(codec::entry_len).sum());
    let mut encoded = Vec::with_capacity(entries.len());
    let first = entries.first().map_or(0, |entry| entry.log_id.index);
    for (entry, index) in entries.iter().zip(first..) {
        if entry.log_id.index != index {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "entries to append have a hole"));
        }
        codec::put_entry(&mut buffer, entry);
        encoded.push(buffer.split().freeze());
    }
    Ok(encoded)
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(bounds(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.store.vote().map(codec::decode_vote).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, MAX_APPEND_BYTES).await
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.purged()?;
        let range = self.store.range();
        let last_log_id = match range.end.checked_sub(1).filter(|_| !range.is_empty()) {
            Some(last) => self.read(last..range.end, usize::MAX).await?.last().map(|entry| entry.log_id),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = codec::encode_vote(vote);
        self.durably(|done| self.store.set_vote(vote, done)).await
    }

    /// Lazily: it is only a hint that lets a restarted node apply what it had applied before.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.store.hint_committed(codec::encode_log_id(committed.as_ref()));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.store.committed().map_or(Ok(None), codec::decode_log_id)?;
        // A hint beyond the log could only keep the node from starting.
        Ok(committed.filter(|log_id| log_id.index < self.store.range().end))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let asked_for = self.newest_asked_for(&entries);
        let flushed = move |result: io::Result<()>| {
            let is_stored = result.is_ok();
            callback.io_completed(result);
            if let Some((proposer, epoch, seq)) = asked_for.filter(|_| is_stored) {
                session::turn(|| proposer.stored(epoch, seq));
            }
        };
        self.store.append(first, encode(&entries)?, Box::new(flushed))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |log_id| log_id.index + 1);
        self.durably(|done| self.store.truncate(from, done)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let marker = codec::encode_log_id(Some(&log_id));
        self.durably(|done| self.store.purge(log_id.index, marker, done)).await
    }
}
