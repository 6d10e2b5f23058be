//! A simulated disk: what was not synced is gone after a crash.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::identity::Stored;
use super::log::{Job, Shared};
use super::record::Record;
use super::view::Durable;

/// When a simulated disk syncs what was written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemorySync {
    /// Before the call that changes the log returns.
    AtOnce,
    /// This long after the first change that is not yet synced, on the runtime's clock.
    After(Duration),
    /// When `LogStore::sync_memory` is called.
    Manual,
}

/// The disk of a simulated node. Clones share it; it outlives the node's crashes.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    image: Arc<Mutex<Image>>,
}

#[derive(Default)]
struct Image {
    /// Counts crashes: what a crashed process still tries to write is refused.
    life: u64,
    log: LogImage,
    identity: Option<Stored>,
    snapshots: Vec<(String, Arc<[u8]>)>,
}

/// The log up to the synced watermark.
#[derive(Clone, Default)]
struct LogImage {
    first: u64,
    entries: VecDeque<Bytes>,
    purged: Option<(u64, Bytes)>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
}

impl LogImage {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Entry { index, payload } => {
                if self.entries.is_empty() {
                    self.first = index;
                }
                self.entries.push_back(payload);
            }
            Record::Truncate { from } => self.entries.truncate(from.saturating_sub(self.first) as usize),
            Record::Purge { upto, marker } => {
                let gone = (upto + 1).saturating_sub(self.first).min(self.entries.len() as u64);
                self.entries.drain(..gone as usize);
                self.first += gone;
                self.purged = Some((upto, marker));
            }
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(committed) => self.committed = Some(committed),
        }
    }
}

impl MemoryDisk {
    /// The machine loses power: what was not synced is gone, and the process that wrote it can
    /// write no more.
    pub fn crash(&self) {
        self.image.lock().life += 1;
    }

    pub(super) fn identity(&self) -> Option<Stored> {
        self.image.lock().identity.clone()
    }

    pub(super) fn set_identity(&self, stored: Stored) {
        self.image.lock().identity = Some(stored);
    }

    /// Snapshots, newest first.
    pub(crate) fn snapshots(&self) -> Vec<(String, Arc<[u8]>)> {
        self.image.lock().snapshots.clone()
    }

    /// Adds a snapshot, whole and durable, and keeps the newest `keep`; names order by age.
    pub(crate) fn add_snapshot(&self, name: String, bytes: Arc<[u8]>, keep: usize) {
        let mut image = self.image.lock();
        image.snapshots.retain(|(other, _)| *other != name);
        image.snapshots.push((name, bytes));
        image.snapshots.sort_by(|a, b| b.0.cmp(&a.0));
        image.snapshots.truncate(keep);
    }
}

/// The log of one life of a simulated node.
#[derive(Clone)]
pub(super) struct MemoryLog {
    disk: MemoryDisk,
    shared: Arc<Shared>,
    life: u64,
    sync: MemorySync,
    turn: Arc<Mutex<Turn>>,
}

#[derive(Default)]
struct Turn {
    /// A sync will come after the delay.
    due: bool,
    /// A sync is calling back, and will take what is queued meanwhile. Changes under the lock
    /// of the log's state.
    running: bool,
}

impl MemoryLog {
    pub fn open(disk: &MemoryDisk, sync: MemorySync) -> (Arc<Shared>, Self) {
        let (log, life) = {
            let image = disk.image.lock();
            (image.log.clone(), image.life)
        };
        let durable = Durable {
            purged: log.purged.clone(),
            vote: log.vote.clone(),
            committed: log.committed.clone(),
            ..Durable::default()
        };
        let shared = Shared::new(durable);
        {
            // Everything stays in memory, so that no read asks for a file.
            let view = &mut shared.state.lock().view;
            let entries = Vec::from(log.entries);
            if !entries.is_empty() {
                let appended = view.append(log.first, &entries);
                debug_assert!(appended.is_ok(), "the image of the log has a hole");
            }
        }
        let turn = Arc::default();
        (shared.clone(), Self { disk: disk.clone(), shared, life, sync, turn })
    }

    /// Something was queued.
    pub fn queued(&self) {
        match self.sync {
            MemorySync::AtOnce => self.sync(),
            MemorySync::Manual => {}
            MemorySync::After(delay) => {
                if std::mem::replace(&mut self.turn.lock().due, true) {
                    return;
                }
                let log = self.clone();
                crate::env::spawn(async move {
                    tokio::time::sleep(delay).await;
                    log.turn.lock().due = false;
                    log.sync();
                });
            }
        }
    }

    /// Makes everything queued durable and calls back, in order.
    pub fn sync(&self) {
        {
            let _state = self.shared.state.lock();
            if std::mem::replace(&mut self.turn.lock().running, true) {
                return;
            }
        }
        loop {
            let jobs = {
                let mut state = self.shared.state.lock();
                let hint = state.committed_hint.take();
                let jobs = std::mem::take(&mut state.queue);
                if jobs.is_empty() && hint.is_none() {
                    self.turn.lock().running = false;
                    return;
                }
                let mut image = self.disk.image.lock();
                if image.life == self.life {
                    for record in jobs.iter().flat_map(|job| &job.records) {
                        image.log.apply(record.clone());
                    }
                    image.log.committed = hint.or(image.log.committed.take());
                } else {
                    state.failure = Some((io::ErrorKind::BrokenPipe, "the simulated machine crashed".into()));
                }
                jobs
            };
            for Job { done, .. } in jobs {
                let result = self.shared.state.lock().failed();
                done(result);
            }
        }
    }
}
