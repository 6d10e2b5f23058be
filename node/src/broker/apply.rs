//! The local side of the replicated log: `apply` changes the state, and what that means for this
//! node's clients is carried out after the state's lock is released, in log order.

use std::io;
use std::sync::Arc;

use super::Broker;
use super::local::Matches;
use crate::env;
use crate::mqtt::ReasonCode;
use crate::raft::{Replica, SnapshotView};
use crate::session::{self, Ended};
use crate::state::{Command, Effect, Frozen, LogIndex, Outcome, Pack, PackError, State};

/// The broker as consensus drives it.
pub struct Applier(pub Arc<Broker>);

impl Replica for Applier {
    fn apply(&self, index: LogIndex, term: u64, pack: Pack) -> Result<Option<Vec<Outcome>>, PackError> {
        let mut effects = Vec::new();
        let mut matches: Vec<Matches> = Vec::new();
        let outcomes = {
            let mut state = self.0.state.write();
            let outcomes = state.apply(index, term, &pack, &mut effects)?;
            self.0.check_outdated(&effects)?;
            self.0.clock.ticked(state.clock_ms());
            self.0.note_the_time(&state);
            if effects.iter().any(|effect| matches!(effect, Effect::Settings(_))) {
                self.0.policy.follow(&state);
            }
            if self.0.is_alive() {
                // Who gets a logged message is decided together with its retained value: a
                // SUBSCRIBE sees it as the one or as the other.
                let local = self.0.local.read();
                matches.extend(effects.iter().filter_map(|effect| match effect {
                    Effect::Deliver { message, .. } => Some(local.matches(&message.topic)),
                    _ => None,
                }));
            }
            outcomes
        };
        let _turn = session::Turn::begin();
        let mut matches = matches.into_iter();
        for effect in effects {
            self.0.carry_out(effect, &mut matches);
        }
        if let Some(wiring) = self.0.wiring() {
            let awaited = outcomes.is_some() && pack.commands.iter().any(others_wait_for);
            wiring.lease.applied(index, awaited);
        }
        Ok(outcomes)
    }

    fn flush(&self) {
        session::flush();
    }

    fn snapshot(&self) -> Box<dyn SnapshotView> {
        Box::new(FrozenView(self.0.state().freeze()))
    }

    fn install(&self, index: LogIndex, from: &mut dyn io::Read) -> io::Result<()> {
        let state = State::read(from, self.0.stock.clone())?;
        self.0.note_the_time(&state);
        self.0.policy.follow(&state);
        let old = std::mem::replace(&mut *self.0.state.write(), state);
        if let Some(wiring) = self.0.wiring() {
            // A million sessions take a second to free: no reason to hold up what follows.
            wiring.runtime.spawn(env::blocking(move || drop(old)));
            for (node, epoch) in self.0.live_peers() {
                wiring.forwarder.peer_up(node, epoch);
            }
            wiring.lease.applied(index, true);
            self.0.drain_as_noted(&self.0.state(), wiring.me);
        }
        // Deliveries and takeovers that the skipped entries held are lost to this life's
        // connections. Its start may have been among them: then nobody would ever begin it.
        let is_up = self.0.wiring().is_some_and(|w| self.0.state().is_live(w.me, self.0.epoch()));
        if self.0.is_alive() || is_up {
            self.0.end_life();
        }
        Ok(())
    }
}

/// Whether somebody on another node may be waiting for this command to be applied everywhere.
fn others_wait_for(command: &Command) -> bool {
    match command {
        Command::RouteAdd { .. }
        | Command::Subscribe { .. }
        | Command::NodeUp { .. }
        | Command::Settings(_)
        | Command::Drain { .. } => true,
        Command::Publish { message, .. } => message.retain,
        // It may have been any of them.
        Command::Part { last, .. } => *last,
        _ => false,
    }
}

struct FrozenView(Frozen);

impl SnapshotView for FrozenView {
    fn write(&self, to: &mut dyn io::Write) -> io::Result<()> {
        self.0.write(to)
    }
}

impl Broker {
    /// # Errors
    /// This node may not take part, and has to stop.
    fn check_outdated(&self, effects: &[Effect]) -> Result<(), PackError> {
        let me = self.wiring().map_or(0, |w| w.me);
        let outdated = effects.iter().find_map(|effect| match effect {
            Effect::Outdated { node, understood, used } if *node == me => Some((*understood, *used)),
            _ => None,
        });
        outdated.map_or(Ok(()), |(understood, used)| Err(PackError::Outdated { understood, used }))
    }

    fn carry_out(self: &Arc<Self>, effect: Effect, matches: &mut impl Iterator<Item = Matches>) {
        let Some(wiring) = self.wiring() else { return };
        let here = |node, epoch| node == wiring.me && epoch == self.epoch() && self.is_alive();
        match effect {
            Effect::NodeUp { node, epoch, .. } if node == wiring.me => {
                if epoch == self.epoch() {
                    self.begin_life();
                }
            }
            // What it concerns is said when it is applied.
            Effect::Outdated { .. } => {}
            Effect::NodeUp { node, epoch, .. } => {
                wiring.forwarder.peer_up(node, epoch);
                // It shows the new life that the cluster was not down before it.
                self.tell_wall_clock();
            }
            Effect::ClockAdvanced { by_ms } => {
                tracing::info!(by_ms, "all nodes were down: the cluster's clock makes up for it");
            }
            Effect::NodeDown { node, epoch } if node == wiring.me => {
                wiring.forwarder.peer_down(node, epoch);
                if epoch == self.epoch() && self.is_alive() {
                    self.end_life();
                }
            }
            Effect::NodeDown { node, epoch } => wiring.forwarder.peer_down(node, epoch),
            Effect::TakenOver { client, node, epoch, incarnation } => {
                if here(node, epoch)
                    && let Some(conn) = self.clients.owner(&client, incarnation)
                {
                    conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver);
                    self.clients.remove(&client, incarnation);
                }
            }
            Effect::Wake { client, node, epoch, incarnation } => {
                if here(node, epoch)
                    && let Some(conn) = self.clients.owner(&client, incarnation)
                {
                    self.pump(&conn);
                }
            }
            Effect::Replay { client, node, epoch, incarnation, filter, replay } => {
                if here(node, epoch)
                    && let Some(conn) = self.clients.owner(&client, incarnation)
                {
                    conn.set_replay(&filter, replay);
                    self.go_on_with_retained(&conn);
                }
            }
            Effect::ReplayNext { client, node, epoch, incarnation } => {
                if here(node, epoch) {
                    self.propose_quietly(Command::Replay { client, incarnation });
                }
            }
            Effect::Settings(change) => self.enforce(&change),
            Effect::Drain { node, epoch, drain } => {
                if here(node, epoch) {
                    self.drain_as_told(drain);
                }
            }
            Effect::Deliver { message, online } => {
                if let Some(found) = matches.next() {
                    self.deliver_logged(&message, &found, &online);
                }
            }
            Effect::DeliverShared { node, filter, parcel, moves } => {
                if node == wiring.me && self.is_alive() {
                    self.deliver_parcel(filter, parcel, moves);
                }
            }
        }
    }

    /// The other nodes' present lives.
    pub fn live_peers(&self) -> Vec<(crate::state::NodeId, crate::state::Epoch)> {
        let me = self.wiring().map_or(0, |w| w.me);
        let mut peers = Vec::new();
        peers.extend(
            self.state().live_nodes().map(|(node, epoch, _)| (node, epoch)).filter(|(node, _)| *node != me),
        );
        peers
    }

    /// Calls `done(true)` once everything up to `index` is applied on every live node, or
    /// `done(false)` when this node's life ends first.
    pub(super) fn when_applied_everywhere(&self, index: LogIndex, done: impl FnOnce(bool) + Send + 'static) {
        match self.wiring() {
            Some(wiring) => wiring.lease.when_applied_everywhere(index, Box::new(done)),
            None => done(false),
        }
    }
}
