//! Queued messages and where a node keeps them: in memory, or put away on its disk.
//!
//! Where a message is, is each node's own affair and no part of the replicated state: a disk copy
//! is no more than memory that is slow. The log and the snapshots hold every message durably.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::queue::is_expired;
use crate::mqtt::Message;

/// Bytes that are put away at a time.
const STORE_BYTES: u64 = 4 << 20;
/// Bytes of surplus that may wait to be put away.
const OVERFULL_BYTES: u64 = 32 << 20;

/// Takes messages off the memory. Calls block.
pub trait Shelf: Send + Sync {
    /// Stores these messages, and calls [`Parcel::put_away`] for each that it stored.
    ///
    /// # Errors
    /// Those of the disk; what was not put away is where it was.
    fn store(&self, parcels: &[Arc<Parcel>]) -> io::Result<()>;

    /// Frees what few messages still hold; to be called now and then.
    ///
    /// # Errors
    /// As [`Shelf::store`].
    fn tidy(&self) -> io::Result<()>;
}

/// One message on a shelf, which is freed when this is dropped.
pub trait Slot: Send + Sync {
    /// # Errors
    /// Those of the disk, and `InvalidData` if the bytes are not what was stored.
    fn read(&self) -> io::Result<Message>;
}

/// The queued messages of one node, and how many bytes of them it holds in memory.
#[derive(Default)]
pub struct Stock {
    shelf: Option<(Arc<dyn Shelf>, u64)>,
    held_bytes: AtomicU64,
    /// Queued or brought back while more was in memory than there should be.
    surplus: Mutex<Vec<Weak<Parcel>>>,
}

impl std::fmt::Debug for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stock").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

impl Stock {
    /// Keeps up to `memory_bytes` in memory and the rest on `shelf`.
    pub fn on(shelf: Arc<dyn Shelf>, memory_bytes: u64) -> Self {
        Self { shelf: Some((shelf, memory_bytes)), ..Self::default() }
    }

    /// Whether there is anything but memory.
    pub fn has_shelf(&self) -> bool {
        self.shelf.is_some()
    }

    /// Bytes of queued messages in memory.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Bytes above what is to be held in memory.
    pub fn surplus_bytes(&self) -> u64 {
        self.shelf.as_ref().map_or(0, |(_, memory_bytes)| self.held_bytes().saturating_sub(*memory_bytes))
    }

    /// There is so much surplus that it should be put away at once.
    pub fn is_overfull(&self) -> bool {
        self.surplus_bytes() >= OVERFULL_BYTES
    }

    /// What came in addition since the last call.
    pub fn take_surplus(&self) -> Vec<Weak<Parcel>> {
        std::mem::take(&mut self.surplus.lock())
    }

    /// Puts messages away, the first first, until no surplus is left. Blocks.
    ///
    /// # Errors
    /// See [`Shelf::store`].
    pub fn put_away(&self, candidates: impl IntoIterator<Item = Weak<Parcel>>) -> io::Result<()> {
        let Some((shelf, _)) = &self.shelf else { return Ok(()) };
        let mut candidates = candidates.into_iter();
        while self.surplus_bytes() > 0 {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            for parcel in candidates.by_ref().filter_map(|parcel| parcel.upgrade()) {
                if parcel.drop_copy() || !parcel.is_here() {
                    continue;
                }
                bytes += parcel.size_bytes() as u64;
                batch.push(parcel);
                if bytes >= STORE_BYTES || bytes >= self.surplus_bytes() {
                    break;
                }
            }
            if batch.is_empty() {
                break;
            }
            shelf.store(&batch)?;
        }
        Ok(())
    }

    /// See [`Shelf::tidy`].
    ///
    /// # Errors
    /// Its own.
    pub fn tidy(&self) -> io::Result<()> {
        self.shelf.as_ref().map_or(Ok(()), |(shelf, _)| shelf.tidy())
    }

    fn add(&self, parcel: &Arc<Parcel>) {
        self.held_bytes.fetch_add(parcel.size_bytes() as u64, Ordering::Relaxed);
        if self.surplus_bytes() > 0 {
            self.surplus.lock().push(Arc::downgrade(parcel));
        }
    }

    fn subtract(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

/// A message in any number of queues.
pub struct Parcel {
    stock: Arc<Stock>,
    size_bytes: usize,
    expires_at_ms: u64,
    /// `apply` may have to choose another receiver for it, by its head.
    is_shared: bool,
    place: RwLock<Place>,
}

/// At least one of message and slot is there.
struct Place {
    here: Option<Arc<Message>>,
    /// Of a shared message that is not here.
    head: Option<Arc<Message>>,
    slot: Option<Arc<dyn Slot>>,
}

impl Parcel {
    pub fn new(message: Arc<Message>, stock: &Arc<Stock>) -> Arc<Self> {
        Self::make(message, stock, false)
    }

    /// One that came through a shared subscription. Its [`Self::head`] stays in memory.
    pub(super) fn shared(message: Arc<Message>, stock: &Arc<Stock>) -> Arc<Self> {
        Self::make(message, stock, true)
    }

    fn make(message: Arc<Message>, stock: &Arc<Stock>, is_shared: bool) -> Arc<Self> {
        let parcel = Arc::new(Self {
            stock: Arc::clone(stock),
            size_bytes: message.size_bytes(),
            expires_at_ms: message.expires_at_ms,
            is_shared,
            place: RwLock::new(Place { here: Some(message), head: None, slot: None }),
        });
        stock.add(&parcel);
        parcel
    }

    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Of a shared message: what it says beside payload and properties, wherever these are.
    pub(super) fn head(&self) -> Option<Arc<Message>> {
        let place = self.place.read();
        place.here.as_ref().or(place.head.as_ref()).map(Arc::clone)
    }

    /// Bytes of the message, for limits.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub(super) fn is_expired(&self, clock_ms: u64) -> bool {
        is_expired(self.expires_at_ms, clock_ms)
    }

    /// The message, if it is in memory.
    pub fn here(&self) -> Option<Arc<Message>> {
        self.place.read().here.clone()
    }

    pub fn is_here(&self) -> bool {
        self.place.read().here.is_some()
    }

    /// The message, wherever it is; it stays there. May block.
    ///
    /// # Errors
    /// See [`Slot::read`].
    pub fn read(&self) -> io::Result<Arc<Message>> {
        let slot = match &*self.place.read() {
            Place { here: Some(message), .. } => return Ok(Arc::clone(message)),
            Place { slot, .. } => slot.clone(),
        };
        let slot = slot.ok_or_else(|| io::Error::other("a queued message is nowhere"))?;
        slot.read().map(Arc::new)
    }

    /// Brings the message back into memory. May block.
    ///
    /// # Errors
    /// See [`Slot::read`].
    pub fn bring(self: &Arc<Self>) -> io::Result<()> {
        let message = self.read()?;
        let mut place = self.place.write();
        if place.here.is_none() {
            place.here = Some(message);
            place.head = None;
            drop(place);
            self.stock.add(self);
        }
        Ok(())
    }

    /// It is on a shelf now, and in memory no more.
    pub fn put_away(&self, slot: Arc<dyn Slot>) {
        self.place.write().slot = Some(slot);
        self.drop_copy();
    }

    /// Frees the memory if there is a copy on a shelf; whether it did.
    fn drop_copy(&self) -> bool {
        let mut place = self.place.write();
        if place.slot.is_none() {
            return false;
        }
        let Some(message) = place.here.take() else { return false };
        if self.is_shared {
            place.head = Some(Arc::new(message.head()));
        }
        drop(place);
        self.stock.subtract(self.size_bytes);
        true
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if self.place.get_mut().here.is_some() {
            self.stock.subtract(self.size_bytes);
        }
    }
}

/// The same message, wherever it is.
impl PartialEq for Parcel {
    fn eq(&self, other: &Self) -> bool {
        matches!((self.read(), other.read()), (Ok(mine), Ok(theirs)) if mine == theirs)
    }
}

impl Eq for Parcel {}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parcel").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}
