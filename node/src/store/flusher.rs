//! The one thread that writes the log: everything queued goes out with one write and one sync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::log::{Job, LogOptions, Shared};
use super::record::Record;
use super::segments::{Segments, Written};
use crate::env;

/// Between two attempts to write to a disk that was full.
const RETRY: Duration = Duration::from_millis(500);

pub(super) struct Flusher {
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Flusher {
    pub fn start(shared: Arc<Shared>, segments: Segments, options: LogOptions) -> io::Result<Self> {
        let worker = Worker { shared, segments, options };
        let thread = std::thread::Builder::new().name("log-flush".into()).spawn(move || worker.run())?;
        Ok(Self { thread: Mutex::new(Some(thread)) })
    }

    /// Waits until everything queued is written; the log must be marked closed before.
    pub fn join(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        // The last user of the log may be a callback, which runs on the thread itself.
        if thread.thread().id() != std::thread::current().id() {
            // Its only failure is a panic, which the panic hook has reported.
            let _ = thread.join();
        }
    }
}

/// Lets a moment pass before a write is tried again that found the disk full. False: the log is
/// being closed. Meanwhile changes wait in the queue, and nobody is told that they are durable.
fn wait_for_room(shared: &Shared, error: &io::Error) -> bool {
    if !shared.waiting.swap(true, Ordering::Relaxed) {
        tracing::error!(%error, "the disk is full; the log waits for room");
    }
    let until = env::now() + RETRY;
    let mut state = shared.state.lock();
    while !state.closed && env::now() < until {
        shared.wake.wait_for(&mut state, until.saturating_duration_since(env::now()));
    }
    !state.closed
}

struct Worker {
    shared: Arc<Shared>,
    segments: Segments,
    options: LogOptions,
}

impl Worker {
    fn run(mut self) {
        while let Some((jobs, hint)) = self.next_group() {
            let result = self.write(&jobs, hint);
            if let Err(error) = &result {
                tracing::error!(%error, "the log cannot be written; this node can acknowledge nothing any more");
            }
            for job in jobs {
                // Looked up before the call: no lock is held while somebody else's code runs.
                let result = self.shared.state.lock().failed();
                (job.done)(result);
            }
        }
    }

    /// Waits for work; `None`: the log is closed and nothing is left.
    fn next_group(&self) -> Option<(Vec<Job>, Option<Bytes>)> {
        let mut state = self.shared.state.lock();
        while state.queue.is_empty() && !state.closed {
            self.shared.wake.wait(&mut state);
        }
        let hint = state.committed_hint.take();
        if state.queue.is_empty() && (hint.is_none() || state.failure.is_some()) {
            return None;
        }
        Some((std::mem::take(&mut state.queue), hint))
    }

    /// Writes the group, and lets readers find it on disk.
    fn write(&mut self, jobs: &[Job], hint: Option<Bytes>) -> io::Result<()> {
        if self.shared.state.lock().failure.is_some() {
            return Ok(());
        }
        let records = jobs.iter().flat_map(|job| job.records.iter().cloned());
        // After the entries that it is about: a torn write loses it first.
        let records = records.chain(hint.map(Record::Committed)).collect::<Vec<_>>();
        if records.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let outcome = self.segments.write(&records, &|error| wait_for_room(shared, error));
        if shared.waiting.swap(false, Ordering::Relaxed) && outcome.is_ok() {
            tracing::info!("the log is written again");
        }
        match outcome {
            Ok(written) => {
                let purged = self.publish(&records, written);
                purged.map_or(Ok(()), |number| self.segments.drop_below(number)).inspect_err(|e| self.fail(e))
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    fn fail(&self, error: &io::Error) {
        self.shared.state.lock().failure = Some((error.kind(), error.to_string().into()));
    }

    /// Returns the number below which files are not needed any more.
    fn publish(&self, records: &[Record], written: Written) -> Option<u32> {
        let stats = &self.shared.stats;
        stats.groups.fetch_add(1, Ordering::Relaxed);
        stats.syncs.fetch_add(written.syncs, Ordering::Relaxed);
        stats.written_bytes.fetch_add(written.bytes, Ordering::Relaxed);
        let mut purged = None;
        let mut places = written.places.into_iter();
        let mut entries = 0;
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        state.durable.files.extend(written.opened);
        for record in records {
            match record {
                Record::Entry { index, .. } => {
                    entries += 1;
                    let pushed = places.next().map(|place| state.durable.places.push(*index, place));
                    debug_assert!(matches!(pushed, Some(Ok(()))), "the view let a hole through");
                }
                Record::Truncate { from } => state.durable.places.truncate(*from),
                Record::Purge { upto, .. } => {
                    state.durable.places.purge(*upto);
                    purged = Some(*upto);
                }
                Record::Vote(_) | Record::Committed(_) => {}
            }
        }
        state.durable.serial += entries;
        state.view.evict(state.durable.serial, self.options.cache_bytes, self.options.cache_min_entries);
        let droppable = self.segments.droppable(purged?);
        for number in &droppable {
            state.durable.files.remove(number);
        }
        droppable.last().map(|number| number + 1)
    }
}
