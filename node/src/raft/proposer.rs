//! From this node's commands to entries of the log, and back to those who wait for them.
//!
//! Nobody waits for an answer from the leader: a pack is done when this node itself applies it.
//! Whatever happens in between (a new leader, a lost connection, a refused write) is healed by
//! sending everything again from the oldest pack that was not applied, in order; `apply` takes
//! only the next sequence of an origin, so nothing is done twice and nothing out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_proto::consensus as pb;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, error};

use super::backlog::{Backlog, Resend, STALL};
use super::network;
use super::types::Packed;
use super::wire::{GROUP, WIRE_VERSION};
use super::writes::Writes;
use super::{Abandoned, Applied, Consensus, Done, Observer, Propose, Stored};
use crate::env;
use crate::peer::Channels;
use crate::state::{At, Command, Epoch, LogIndex, NodeId, NodeInfo, Outcome};

/// Pause after a stream to the leader ended or could not be opened.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Packs that the stream to the leader holds before it counts as stuck.
const STREAM_QUEUE: usize = 64;

/// To whom packs go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub term: u64,
    pub leader: Option<NodeId>,
}

/// Takes this node's commands, see [`Propose`]. Cheap to clone.
#[derive(Clone)]
pub struct Proposer(Arc<Inner>);

struct Inner {
    me: NodeId,
    backlog: Mutex<Backlog>,
    wake: Notify,
    applied: watch::Sender<LogIndex>,
    /// Somebody has asked to be told when a command is on this node's disk.
    asks_for_stored: AtomicBool,
}

impl Proposer {
    /// Takes commands once [`Self::reopen`] has begun an epoch.
    pub fn new(me: NodeId) -> Self {
        Self(Arc::new(Inner {
            me,
            backlog: Mutex::new(Backlog::new(me)),
            wake: Notify::new(),
            applied: watch::channel(0).0,
            asks_for_stored: AtomicBool::new(false),
        }))
    }

    /// Begins a new life of this node: its first pack is `NodeUp{info}`. Whoever still waits for
    /// the outcome of an older command is told, on this thread, that it is unknown. The returned
    /// receiver gets the index at which `NodeUp` was applied here.
    pub fn reopen(&self, epoch: Epoch, info: NodeInfo) -> tokio::sync::oneshot::Receiver<LogIndex> {
        let (up, receiver) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| {
            if let Ok(applied) = result {
                // Nobody has to wait for it.
                let _ = up.send(applied.at.index);
            }
        });
        match postcard::to_stdvec(&Command::NodeUp { info }) {
            Ok(first) => {
                let abandoned = self.0.backlog.lock().reopen(epoch, first, done);
                abandon(abandoned);
                self.0.wake.notify_one();
            }
            Err(e) => error!("this node's description cannot be encoded: {e}"),
        }
        receiver
    }

    /// Ends this node's life: nothing more is taken or sent. Waiters are told on this thread.
    pub fn close(&self) {
        let abandoned = self.0.backlog.lock().close();
        abandon(abandoned);
        self.0.wake.notify_one();
    }

    /// To be told of every applied pack: own commands complete there, before the state is
    /// flushed.
    pub fn observer(&self) -> Observer {
        let proposer = self.clone();
        Box::new(move |at, seq, outcomes| {
            proposer.0.applied.send_if_modified(|applied| std::mem::replace(applied, at.index) != at.index);
            if at.origin == proposer.0.me {
                proposer.applied(at, seq, outcomes);
            }
        })
    }

    /// To be asked, for every pack that is to be stored on this node, whether to be told once it is.
    pub fn asks_for(&self, origin: NodeId) -> bool {
        origin == self.0.me && self.0.asks_for_stored.load(Ordering::Relaxed)
    }

    /// One of this node's packs is on its disk.
    pub fn stored(&self, epoch: Epoch, seq: u64) {
        let stored = self.0.backlog.lock().stored(epoch, seq);
        stored.into_iter().for_each(|stored| stored());
    }

    /// The last log position applied on this node, as far as the proposer was told, and its
    /// changes.
    pub(super) fn applied_changes(&self) -> &watch::Sender<LogIndex> {
        &self.0.applied
    }

    /// Commands that wait to be sent or applied.
    pub fn waiting(&self) -> usize {
        self.0.backlog.lock().commands()
    }

    /// What waits to be sent or applied, as a part of what may; 1 and more: nothing else is taken of
    /// what can be refused.
    pub fn congestion(&self) -> f64 {
        self.0.backlog.lock().congestion()
    }

    /// Sends what there is until the task is aborted.
    pub(super) async fn run(self, raft: Consensus, channels: Channels, mut route: watch::Receiver<Route>) {
        let mut sender = Sender {
            writes: Writes::new(raft),
            channels,
            me: self.0.me,
            route: Route::default(),
            stream: None,
        };
        let mut retry_at: Option<env::Instant> = None;
        loop {
            let now = env::now();
            if retry_at.is_some_and(|at| at <= now) {
                retry_at = None;
            }
            let current = *route.borrow_and_update();
            if current != sender.route {
                sender.turn_to(current);
                self.0.backlog.lock().send_all_again(now);
                retry_at = None;
            }
            let mut wait_until = retry_at;
            if retry_at.is_none() && current.leader.is_some() {
                let (batch, next) = self.0.backlog.lock().next_packs(now);
                wait_until = next;
                for pack in batch {
                    if !sender.send(pack).await {
                        sender.hang_up();
                        self.0.backlog.lock().send_all_again(now);
                        retry_at = Some(now + RETRY_PAUSE);
                        wait_until = retry_at;
                        break;
                    }
                }
            }
            let sleep = async {
                match wait_until {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.wake.notified() => {}
                changed = route.changed() => if changed.is_err() { return },
                () = sender.ended() => {
                    debug!("the leader takes no more packs for now");
                    sender.hang_up();
                    self.0.backlog.lock().send_all_again(env::now());
                    retry_at = Some(env::now() + RETRY_PAUSE);
                }
                () = sleep => {
                    if self.0.backlog.lock().stalled(env::now()) {
                        debug!("no pack was applied for {STALL:?}, sending all again");
                        sender.hang_up();
                        self.0.backlog.lock().send_all_again(env::now());
                    }
                }
            }
        }
    }

    fn applied(&self, at: At, seq: u64, outcomes: Option<Vec<Outcome>>) {
        let Some(outcomes) = outcomes else {
            let resend = self.0.backlog.lock().refused(at.epoch, seq);
            if resend == Resend::Now {
                self.0.wake.notify_one();
            }
            return;
        };
        let (waiters, wake) = {
            let mut backlog = self.0.backlog.lock();
            let waiters = backlog.applied(at.epoch, seq, env::now());
            (waiters, backlog.has_more())
        };
        if wake {
            self.0.wake.notify_one();
        }
        let Some(waiters) = waiters else { return };
        if waiters.len() != outcomes.len() {
            error!(
                "pack {seq} has {} commands but {} outcomes; the commands' fate is reported as unknown",
                waiters.len(),
                outcomes.len()
            );
            return abandon(waiters);
        }
        for (done, outcome) in waiters.into_iter().zip(outcomes) {
            done(Ok(Applied { at, outcome }));
        }
    }
}

fn abandon(waiters: Vec<Done>) {
    for done in waiters {
        done(Err(Abandoned));
    }
}

impl Proposer {
    fn push(&self, command: &Command, stored: Option<Stored>, done: Done) {
        let encoded = match postcard::to_stdvec(command) {
            Ok(encoded) => encoded,
            Err(e) => {
                error!("a command cannot be encoded: {e}");
                return done(Err(Abandoned));
            }
        };
        let pushed = self.0.backlog.lock().push(encoded, stored, done);
        match pushed {
            Ok(true) => self.0.wake.notify_one(),
            Ok(false) => {}
            Err(done) => done(Err(Abandoned)),
        }
    }
}

impl Propose for Proposer {
    /// While no epoch is open, `done` is called at once, on this thread.
    fn propose(&self, command: Command, done: Done) {
        self.push(&command, None, done);
    }

    fn propose_stored(&self, command: Command, stored: Stored, done: Done) {
        self.0.asks_for_stored.store(true, Ordering::Relaxed);
        self.push(&command, Some(stored), done);
    }

    fn is_congested(&self) -> bool {
        self.0.backlog.lock().is_congested()
    }
}

/// The way packs take now: into the own log, or over one stream to the leader.
struct Sender {
    writes: Writes,
    channels: Channels,
    me: NodeId,
    route: Route,
    stream: Option<Stream>,
}

struct Stream {
    packs: mpsc::Sender<pb::Proposal>,
    task: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sender {
    fn turn_to(&mut self, route: Route) {
        self.hang_up();
        self.route = route;
    }

    fn hang_up(&mut self) {
        self.stream = None;
        self.writes.clear();
    }

    /// Resolves when the stream to the leader has ended, or the own log has refused a pack.
    async fn ended(&mut self) {
        match &mut self.stream {
            // A failure of the task ends the stream as well.
            Some(stream) => drop((&mut stream.task).await),
            None => self.writes.refused().await,
        }
    }

    /// Whether the pack is on its way.
    async fn send(&mut self, pack: Bytes) -> bool {
        let Some(leader) = self.route.leader else { return false };
        if leader == self.me {
            return self.writes.write(Packed(pack)).await;
        }
        if self.stream.is_none() {
            self.stream = self.open(leader);
        }
        let Some(stream) = &self.stream else { return false };
        stream.packs.try_send(pb::Proposal { wire: WIRE_VERSION, group: GROUP, pack }).is_ok()
    }

    fn open(&self, leader: NodeId) -> Option<Stream> {
        let mut client = network::client(self.channels.consensus(leader)?);
        let channels = self.channels.clone();
        let (packs, queue) = mpsc::channel(STREAM_QUEUE);
        let task = env::spawn(async move {
            let refused = match client.propose(ReceiverStream::new(queue)).await {
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(_)) => {}
                            Ok(None) => return,
                            Err(status) => break status,
                        }
                    }
                }
                Err(status) => status,
            };
            channels.note_refusal(leader, &refused);
            debug!("node {leader:016x} takes no more proposals: {}", refused.message());
        });
        Some(Stream { packs, task })
    }
}
