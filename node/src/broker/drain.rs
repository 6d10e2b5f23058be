//! A node that lets its clients go: for a while, for good, or because it stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;

use super::{Broker, ChangeFailed};
use crate::mqtt::ReasonCode;
use crate::session::{self, Conn};
use crate::state::{Command, Drain, NodeId, State};

/// Whether and how this node drains, which its lives have in common.
pub(super) struct Draining {
    wanted: watch::Sender<Option<Drain>>,
    /// Connections that were ended by it.
    let_go: AtomicU64,
    /// Whose turn it is of those that clients can be told of.
    turn: AtomicUsize,
}

impl Default for Draining {
    fn default() -> Self {
        Self { wanted: watch::channel(None).0, let_go: AtomicU64::new(0), turn: AtomicUsize::new(0) }
    }
}

impl Draining {
    fn set(&self, drain: Option<Drain>) {
        let changed = self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, drain) != drain);
        match drain {
            Some(Drain { rate_per_s, for_good }) if changed => {
                tracing::info!(rate_per_s, for_good, "letting the clients go");
            }
            None if changed => tracing::info!("serving clients again"),
            _ => {}
        }
    }
}

impl Broker {
    /// Has a node that is up let its clients go, or keep them again. When it returns, all live nodes
    /// act by it.
    ///
    /// # Errors
    /// See [`ChangeFailed`]: `NotFound` is a node that is down.
    pub async fn drain_node(
        self: &Arc<Self>,
        node: NodeId,
        drain: Option<Drain>,
    ) -> Result<(), ChangeFailed> {
        self.change(Command::Drain { node, drain }).await
    }

    /// How this node lets its clients go, and changes of that.
    pub fn drains(&self) -> watch::Receiver<Option<Drain>> {
        self.draining.wanted.subscribe()
    }

    /// This node lets its clients go.
    pub fn is_draining(&self) -> bool {
        self.draining.wanted.borrow().is_some()
    }

    /// It is to be taken out of the cluster.
    pub fn is_leaving(&self) -> bool {
        self.draining.wanted.borrow().is_some_and(|drain| drain.for_good)
    }

    /// How many connections were ended by draining.
    pub fn clients_let_go(&self) -> u64 {
        self.draining.let_go.load(Ordering::Relaxed)
    }

    /// This node stops, and lets its clients go, whether the cluster hears of it or not.
    pub fn drain_to_stop(&self, rate_per_s: u32) {
        let for_good = self.is_leaving();
        self.draining.set(Some(Drain { rate_per_s, for_good }));
        self.say_draining();
    }

    /// The cluster wants this node to drain, or not to.
    pub(super) fn drain_as_told(&self, drain: Option<Drain>) {
        // A node that stops goes on with it, whatever comes.
        if !self.is_stopping() {
            self.draining.set(drain);
        }
    }

    /// As [`Self::drain_as_told`], after a snapshot: what it says of the present life counts.
    pub(super) fn drain_as_noted(&self, state: &State, me: NodeId) {
        if state.is_live(me, self.epoch()) {
            self.drain_as_told(state.draining(me));
        }
    }

    /// Lets the cluster know of a drain that it does not, as a life of its own ended with the last.
    pub(super) fn say_draining(&self) {
        let drain = *self.draining.wanted.borrow();
        if let Some(wiring) = self.wiring().filter(|_| drain.is_some()) {
            self.propose_quietly(Command::Drain { node: wiring.me, drain });
        }
    }

    /// Ends these connections. The clients are told to go elsewhere, and where, the nodes with room
    /// in turn; or, if all nodes drain, that this one goes away.
    pub fn let_go(&self, conns: &[Arc<Conn>], drain: Drain) {
        let me = self.wiring().map_or(0, |wiring| wiring.me);
        let (has_refuge, references) = {
            let state = self.state();
            let references: Vec<Arc<str>> = state.references(me).map(|(_, name)| name.into()).collect();
            (state.has_refuge(me), references)
        };
        let reason = match drain.for_good {
            true => ReasonCode::ServerMoved,
            false if has_refuge => ReasonCode::UseAnotherServer,
            false => ReasonCode::ServerShuttingDown,
        };
        session::turn(|| {
            for conn in conns {
                let turn = self.draining.turn.fetch_add(1, Ordering::Relaxed);
                let reference = references.get(turn % references.len().max(1));
                conn.let_go(reason, reference.map(|name| &**name));
            }
        });
        self.draining.let_go.fetch_add(conns.len() as u64, Ordering::Relaxed);
    }
}
