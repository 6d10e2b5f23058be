//! Segment files: made ahead of need by a thread of their own, recycled after use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::files::{remove_if_present, sync_dir};

/// Bytes written at once while a file is filled with zeros, each step synced, so that making a
/// file ahead of need never queues more than this before the log's own sync.
const FILL_STEP: usize = 1 << 20;

/// Spare files of one folder.
pub(super) struct Pool {
    shelf: Arc<Shelf>,
    order: Option<SyncSender<()>>,
    worker: Option<JoinHandle<()>>,
}

struct Shelf {
    dir: PathBuf,
    /// Bytes of each spare.
    size: u32,
    max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<PathBuf>,
    next_name: u64,
}

/// Opens or creates a file readable by its owner only.
fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes zeros over `from..to`, so that later writes there change no metadata.
pub(super) fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0u8; FILL_STEP.min((to.saturating_sub(from)) as usize)];
    let mut at = from;
    while at < to {
        let step = (to - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..step as usize], at)?;
        file.sync_data()?;
        at += step;
    }
    Ok(())
}

/// A new file of zeros. What a full disk leaves of it is removed: others need the room.
fn filled(path: &Path, size: u32) -> io::Result<File> {
    remove_if_present(path)?;
    let file = open_private(path)?;
    match fill(&file, 0, u64::from(size)) {
        Ok(()) => Ok(file),
        // The first failure is the one to tell.
        Err(error) => remove_if_present(path).and(Err(error)),
    }
}

impl Shelf {
    fn name(&self) -> PathBuf {
        let mut state = self.state.lock();
        state.next_name += 1;
        self.dir.join(format!("spare-{:06}.log", state.next_name))
    }

    fn stock(&self) -> io::Result<()> {
        if self.state.lock().free.len() >= self.max.min(1) {
            return Ok(());
        }
        let tmp = self.dir.join("spare.tmp");
        filled(&tmp, self.size)?.sync_all()?;
        let path = self.name();
        fs::rename(&tmp, &path)?;
        self.state.lock().free.push(path);
        Ok(())
    }
}

impl Pool {
    /// `found`: spare files that are already in `dir`.
    pub fn new(dir: &Path, size: u32, max: usize, found: Vec<PathBuf>) -> io::Result<Self> {
        let mut state = State::default();
        for path in found {
            let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.strip_prefix("spare-"));
            state.next_name = state.next_name.max(number.and_then(|n| n.parse().ok()).unwrap_or(0));
            // One of another size was made under other settings.
            if fs::metadata(&path)?.len() == u64::from(size) && state.free.len() < max {
                state.free.push(path);
            } else {
                fs::remove_file(&path)?;
            }
        }
        let shelf = Arc::new(Shelf { dir: dir.to_owned(), size, max, state: Mutex::new(state) });
        let (order, orders) = sync_channel(1);
        let stocked = shelf.clone();
        let worker = std::thread::Builder::new().name("log-prepare".into()).spawn(move || {
            while orders.recv().is_ok() {
                // Not fatal: the log makes the file itself when none is ready, and reports why
                // it cannot.
                if let Err(error) = stocked.stock() {
                    tracing::warn!(%error, "cannot prepare a spare log segment");
                }
            }
        })?;
        Ok(Self { shelf, order: Some(order), worker: Some(worker) })
    }

    /// A file of `size` bytes at `path`, durably there, beginning with `header`. What follows
    /// the header is zeros or the records of the file's earlier life.
    pub fn take(&self, path: &Path, size: u32, header: &[u8]) -> io::Result<File> {
        let spare = if size == self.shelf.size { self.shelf.state.lock().free.pop() } else { None };
        let (file, from) = match spare {
            Some(spare) => (open_private(&spare)?, spare),
            None => {
                let tmp = path.with_extension("tmp");
                (filled(&tmp, size)?, tmp)
            }
        };
        file.write_all_at(header, 0)?;
        file.sync_all()?;
        fs::rename(&from, path)?;
        sync_dir(&self.shelf.dir)?;
        self.order_one();
        Ok(file)
    }

    /// A segment that is needed no more. `in_use`: somebody may still be reading it, so that
    /// its bytes must not change.
    pub fn give_back(&self, path: &Path, size: u32, in_use: bool) -> io::Result<()> {
        let wanted = size == self.shelf.size && self.shelf.state.lock().free.len() < self.shelf.max;
        if in_use || !wanted {
            return fs::remove_file(path);
        }
        let name = self.shelf.name();
        fs::rename(path, &name)?;
        self.shelf.state.lock().free.push(name);
        Ok(())
    }

    fn order_one(&self) {
        if let Some(order) = &self.order {
            match order.try_send(()) {
                // Full: one is being made. Disconnected: the worker died, `take` does without.
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.order = None;
        if let Some(worker) = self.worker.take() {
            // Its only failure is a panic, which the panic hook has reported.
            let _ = worker.join();
        }
    }
}
