//! One write per connection and turn: what a thread appends to outboxes while it works off a
//! batch is written when the batch is done.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::Conn;

thread_local! {
    static DIRTY: RefCell<Vec<Arc<Conn>>> = const { RefCell::new(Vec::new()) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Runs `work` and then writes what it appended to outboxes. Turns nest; the outermost writes.
/// Appending outside of any turn writes at once, so a turn is only a matter of cost.
pub fn turn<R>(work: impl FnOnce() -> R) -> R {
    let _hold = Turn::begin();
    work()
}

/// Runs `work` without writing what it appended: the caller calls [`flush`] on this very thread,
/// before it awaits anything.
pub fn hold<R>(work: impl FnOnce() -> R) -> R {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let result = work();
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    result
}

/// A turn that lasts as long as this value, for threads that work in a loop of their own and
/// call [`flush`] themselves.
#[must_use]
#[derive(Debug)]
pub struct Turn {
    /// The turn belongs to the thread that began it.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Turn {
    pub fn begin() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self { _not_send: std::marker::PhantomData }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let outermost = DEPTH.with(|depth| {
            depth.set(depth.get() - 1);
            depth.get() == 0
        });
        if outermost {
            flush();
        }
    }
}

/// Writes everything this thread has appended and not yet written.
pub fn flush() {
    let mut dirty = DIRTY.with(RefCell::take);
    for conn in dirty.drain(..) {
        conn.flush();
    }
    // Keeps the list's room, unless a flush made others dirty.
    DIRTY.with(|list| {
        let mut list = list.borrow_mut();
        if list.is_empty() {
            *list = dirty;
        }
    });
}

/// Called by the first to append to a clean outbox, without its lock.
pub(super) fn note(conn: &Arc<Conn>) {
    if DEPTH.with(Cell::get) == 0 {
        conn.flush();
    } else {
        DIRTY.with(|list| list.borrow_mut().push(conn.clone()));
    }
}
