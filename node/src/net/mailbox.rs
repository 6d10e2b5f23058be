//! What other threads want of an event loop.

use std::cell::Cell;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mio::{Token, Waker};
use parking_lot::Mutex;

use super::drift::Drift;
use super::listener::{Kind, Listener};
use super::tls::Stepped;
use crate::mqtt::ReasonCode;
use crate::session::Context;

pub(super) enum ToLoop {
    /// A connection needs its owner.
    Attend(Token),
    /// What waits in its outbox is to be written, which only its owner may do.
    Flush(Token),
    /// A step of a TLS handshake was taken.
    Stepped {
        token: Token,
        result: Result<Stepped, rustls::Error>,
    },
    Adopt {
        stream: TcpStream,
        kind: Kind,
    },
    Listen(Listener),
    /// Whether listeners accept; while not, clients wait in the system's backlog.
    Accepting(bool),
    CloseAll(ReasonCode),
    /// Close everything and end the loop, within this many milliseconds.
    Drain {
        within_ms: u64,
    },
}

pub(super) struct Mailbox {
    id: u64,
    letters: Mutex<Vec<ToLoop>>,
    waker: Waker,
    pub context: Arc<Context>,
    /// Of the loop whose mailbox it is.
    pub drift: Drift,
}

thread_local!(static OWN: Cell<u64> = const { Cell::new(0) });

impl Mailbox {
    pub fn new(waker: Waker, context: Arc<Context>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, letters: Mutex::default(), waker, context, drift: Drift::new() })
    }

    /// Says that the calling thread is the one that reads this mailbox before it sleeps.
    pub fn belongs_here(&self) {
        OWN.set(self.id);
    }

    /// Whether the calling thread is that one.
    pub fn is_read_here(&self) -> bool {
        OWN.get() == self.id
    }

    pub fn post(&self, letter: ToLoop) {
        let first = {
            let mut letters = self.letters.lock();
            letters.push(letter);
            letters.len() == 1
        };
        if first && !self.is_read_here() && self.waker.wake().is_err() {
            // Its only failure is a full counter, and then the loop is awake already.
        }
    }

    pub fn take(&self) -> Vec<ToLoop> {
        std::mem::take(&mut *self.letters.lock())
    }

    pub fn is_empty(&self) -> bool {
        self.letters.lock().is_empty()
    }
}
