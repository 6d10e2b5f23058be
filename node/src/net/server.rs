//! The event loops of a node, as the rest of it sees them.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::listener::{Bound, Kind, Listener};
use super::loops::Loop;
use super::mailbox::{Mailbox, ToLoop};
use super::share::Door;
use super::tls::Step;
use crate::mqtt::ReasonCode;
use crate::session::Context;
use crate::workers::{Share, Workers};

/// Steps of TLS handshakes that may wait where few clients may be half-open: those of clients that have
/// gone wait too.
const STEPS_MIN: usize = 1024;

/// Runs the event loops, each on a thread of its own.
pub struct Server {
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The loop that gets the next adopted connection.
    next: AtomicUsize,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("loops", &self.mailboxes.len()).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts `loops` (at least one) threads, named `mqtt-0` and so on, and half as many for TLS
    /// handshakes, named `tls-0` and so on: a flood of them leaves the cores to those who are in. Nobody is
    /// served before [`Server::open`].
    ///
    /// # Errors
    /// The system refuses threads or descriptors.
    pub fn start(context: &Arc<Context>, loops: usize) -> io::Result<Self> {
        let door = Arc::new(Door::new(context.limits.accept_rate));
        let loops = loops.max(1);
        let steps_max = (context.limits.handshakes_max as usize).max(STEPS_MIN);
        let shakers = Arc::new(Workers::start("tls", loops.div_ceil(2), Share::Idle, steps_max, Step::take)?);
        let mut mailboxes = Vec::new();
        let mut threads = Vec::new();
        for index in 0..loops {
            let event_loop = Loop::new(context.clone(), door.clone(), shakers.clone())?;
            mailboxes.push(event_loop.mailbox().clone());
            let thread =
                std::thread::Builder::new().name(format!("mqtt-{index}")).spawn(move || event_loop.run())?;
            threads.push(thread);
        }
        Ok(Self { mailboxes, threads: Mutex::new(threads), next: AtomicUsize::new(0) })
    }

    /// Starts to serve on an address.
    ///
    /// # Errors
    /// The system does not let a socket listen: another process got the address in between.
    pub fn open(&self, bound: Bound) -> io::Result<()> {
        for (index, socket) in bound.sockets.into_iter().enumerate() {
            let listener = Listener::open(socket, bound.options.clone())?;
            self.mailboxes[index % self.mailboxes.len()].post(ToLoop::Listen(listener));
        }
        Ok(())
    }

    /// The longest turn of any loop since this was last asked.
    pub fn longest_turn(&self) -> Duration {
        self.mailboxes.iter().map(|mailbox| mailbox.drift.take()).max().unwrap_or_default()
    }

    /// Whether clients are accepted. While not, they wait in the system's backlog.
    pub fn set_accepting(&self, accepting: bool) {
        for mailbox in &self.mailboxes {
            mailbox.post(ToLoop::Accepting(accepting));
        }
    }

    /// Serves a connection that was accepted elsewhere, not encrypted.
    pub fn adopt(&self, stream: TcpStream, kind: Kind) {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len();
        self.mailboxes[index].post(ToLoop::Adopt { stream, kind });
    }

    /// Closes every connection there is, as ended by the server, and goes on serving new ones.
    pub fn close_all(&self, reason: ReasonCode) {
        for mailbox in &self.mailboxes {
            mailbox.post(ToLoop::CloseAll(reason));
        }
    }

    /// Accepts nobody any more, closes all with 0x8B and ends the loops, the whole within
    /// `within`. Blocks until then. Listeners are closed last, so that clients the system has
    /// already accepted are not reset one by one meanwhile.
    pub fn drain(&self, within: Duration) {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        for mailbox in &self.mailboxes {
            mailbox.post(ToLoop::Drain { within_ms });
        }
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("an event loop ended badly");
            }
        }
    }
}
