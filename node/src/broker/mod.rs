//! Who gets what. The broker of one node: its clean subscribers, the two paths of a publish, the
//! claims and subscriptions of its clients, and the local side of every committed command.
//!
//! Lock order, outermost first: a publisher's order, the replicated state, the local index, a
//! connection's outbox. Nothing is written to a socket under any of them.

mod apply;
mod clients;
mod clock;
mod connect;
mod deliver;
mod drain;
mod filters;
mod inbox;
mod lapse;
mod life;
mod local;
mod operator;
mod permissions;
mod policy;
mod portions;
mod progress;
mod publish;
mod queue;
mod retained;
mod service;
mod shared;
mod steward;
mod stowage;
mod subscribe;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

pub use apply::Applier;
pub use clients::Clients;
pub use clock::ClusterClock;
pub use inbox::FromPeers;
pub use lapse::{LapseRules, Minority};
pub use life::Rebirth;
pub use operator::Published;
pub use permissions::{NoMatch, Permissions};
pub use policy::ChangeFailed;
pub use service::Front;

use crate::audit::Refusals;
use crate::peer::forward::Forwarder;
use crate::peer::lease::Lease;
use crate::raft::{Done, Propose, Stored};
use crate::session;
use crate::sharing::Sharing;
use crate::state::{Command, Epoch, NodeId, State, Stock};
use local::Local;
use progress::LINGER_MS as PROGRESS_LINGER_MS;
use stowage::Bringing;
use turns::Turns;

/// What the broker works through; all of it is there before the first client is.
pub struct Wiring {
    pub me: NodeId,
    pub proposer: Arc<dyn Propose>,
    pub forwarder: Arc<Forwarder>,
    pub lease: Arc<Lease>,
    /// What is done without it.
    pub lapse: LapseRules,
    /// What clients may do that no rule says anything of.
    pub permissions: Permissions,
    /// Whether nothing should be written to this node's disk that need not be.
    pub disk_is_short: Box<dyn Fn() -> bool + Send + Sync>,
    /// Where work goes on that must not hold up whoever caused it.
    pub runtime: tokio::runtime::Handle,
    /// How the messages of shared subscriptions are divided.
    pub sharing: Sharing,
    /// Called when this life of the node was declared over.
    pub rebirth: Rebirth,
}

/// The broker of one node.
pub struct Broker {
    state: RwLock<State>,
    stock: Arc<Stock>,
    bringing: Bringing,
    local: RwLock<Local>,
    clients: Clients,
    progress: progress::Progress,
    clock: ClusterClock,
    lapse: lapse::Lapse,
    /// The life of this node that its connections belong to.
    epoch: AtomicU64,
    /// This node has applied the start of its present life: effects are carried out.
    alive: AtomicBool,
    /// Of this life: how long the cluster was down before it, if it was, is made up for.
    knows_the_time: AtomicBool,
    policy: policy::Current,
    draining: drain::Draining,
    refusals: Refusals,
    /// Told when a life begins.
    begun: tokio::sync::Notify,
    /// A planned stop has begun: nobody is let in, and no further life follows this one.
    stopping: AtomicBool,
    /// Which node, and which member here, had the last message of a shared subscription.
    node_turns: Turns,
    member_turns: Turns,
    /// Shared subscriptions for which waiting messages have been asked for.
    drawing: Mutex<BTreeSet<Arc<str>>>,
    wiring: std::sync::OnceLock<Wiring>,
}

impl Broker {
    /// `stock`: where this node keeps the messages of persistent sessions.
    pub fn new(stock: Arc<Stock>) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State::new(stock.clone())),
            stock,
            bringing: Bringing::default(),
            local: RwLock::new(Local::default()),
            clients: Clients::default(),
            progress: progress::Progress::default(),
            clock: ClusterClock::new(),
            lapse: lapse::Lapse::default(),
            epoch: AtomicU64::new(0),
            alive: AtomicBool::new(false),
            knows_the_time: AtomicBool::new(false),
            policy: policy::Current::default(),
            draining: drain::Draining::default(),
            refusals: Refusals::default(),
            begun: tokio::sync::Notify::new(),
            stopping: AtomicBool::new(false),
            node_turns: Turns::default(),
            member_turns: Turns::default(),
            drawing: Mutex::default(),
            wiring: std::sync::OnceLock::new(),
        })
    }

    /// Connects the broker with the rest of the node, once.
    pub fn wire(&self, wiring: Wiring) {
        let _ = self.wiring.set(wiring);
    }

    fn wiring(&self) -> Option<&Wiring> {
        self.wiring.get()
    }

    /// The replicated state, for reading.
    pub fn state(&self) -> parking_lot::RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    pub fn clock(&self) -> &ClusterClock {
        &self.clock
    }

    /// Whether this node may acknowledge what the cluster must not contradict.
    pub fn may_acknowledge(&self) -> bool {
        self.is_alive() && self.knows_the_time() && self.wiring().is_some_and(|w| w.lease.is_valid())
    }

    /// Whether the cluster's clock can be relied on: not before it is known, after this node's
    /// start, for how long all nodes were down.
    pub fn knows_the_time(&self) -> bool {
        self.knows_the_time.load(Ordering::Acquire)
    }

    /// Whether clients of this node are refused what would have to be written.
    fn refuses_writes(&self) -> bool {
        self.wiring().is_some_and(|w| (w.disk_is_short)())
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch.load(Ordering::Acquire)
    }

    /// Bytes of persistent sessions' messages that are in memory.
    pub fn queue_memory_bytes(&self) -> u64 {
        self.stock.held_bytes()
    }

    /// How many filters have clean subscribers here.
    pub fn local_filters(&self) -> usize {
        self.local.read().len()
    }

    fn propose(&self, command: Command, done: Done) {
        match self.wiring() {
            Some(wiring) => wiring.proposer.propose(command, done),
            None => done(Err(crate::raft::Abandoned)),
        }
    }

    /// As [`Self::propose`]; `stored` is called when the command is on this node's disk.
    fn propose_stored(&self, command: Command, stored: Stored, done: Done) {
        match self.wiring() {
            Some(wiring) => wiring.proposer.propose_stored(command, stored, done),
            None => done(Err(crate::raft::Abandoned)),
        }
    }

    /// Does something soon, on a thread and a turn of its own; never, once the node is stopped.
    fn later(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(wiring) = self.wiring() {
            wiring.runtime.spawn(async move { session::turn(work) });
        }
    }

    /// Proposes what nobody waits for.
    fn propose_quietly(&self, command: Command) {
        self.propose(command, Box::new(|_| {}));
    }
}
