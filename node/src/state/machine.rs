//! The replicated state machine: which packs count, and which module carries out which command.

use super::limits::RETAINED_EXPIRED_PER_TICK;
use super::nodes::{Accepted, LifeId, Nodes};
use super::retained::Retained;
use super::routes::Routes;
use super::sessions::Sessions;
use super::shared::Shared;
use super::subscribers::SubscriberIndex;
use super::{Command, Effect, Incarnation, LogIndex, Outcome, Pack};
use crate::topic::split_shared;

/// Bits of an incarnation that count the commands of one log entry.
const POSITION_BITS: u32 = 16;

/// Everything the cluster agrees on.
///
/// [`State::apply`] changes it, on every node alike; the queries are for any thread under a
/// reader's lock.
#[derive(Debug, Default)]
pub struct State {
    pub(super) clock_ms: u64,
    pub(super) last_incarnation: Incarnation,
    pub(super) nodes: Nodes,
    pub(super) routes: Routes,
    pub(super) shared: Shared,
    pub(super) subscribers: SubscriberIndex,
    pub(super) sessions: Sessions,
    pub(super) retained: Retained,
}

/// Where the command being applied comes from.
#[derive(Clone, Copy)]
pub(super) struct Cause {
    pub index: LogIndex,
    /// The term of its entry.
    pub term: u64,
    /// Position in its pack.
    pub position: usize,
    /// The life of the node it comes from.
    pub life: LifeId,
}

impl State {
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the pack committed at `index`, which must grow from call to call, in an entry of
    /// the leader of `term`. Appends what is to be done outside to `effects`, and returns an
    /// outcome per command.
    ///
    /// `None`: the pack was a duplicate, out of sequence or of an epoch that is not up, and
    /// changed nothing.
    pub fn apply(
        &mut self,
        index: LogIndex,
        term: u64,
        pack: &Pack,
        effects: &mut Vec<Effect>,
    ) -> Option<Vec<Outcome>> {
        let life = match self.nodes.accept(pack)? {
            Accepted::Opens => self.node_up(pack, effects)?,
            Accepted::Continues(life) => life,
        };
        self.nodes.advance(pack.origin);
        let outcomes = pack.commands.iter().enumerate().map(|(position, command)| {
            let cause = Cause { index, term, position, life };
            // A pack may end its own origin's life; what follows is then void.
            match self.nodes.up(life) {
                Some(up) if up == (pack.origin, pack.epoch) => self.command(cause, command, effects),
                _ => Outcome::Stale,
            }
        });
        Some(outcomes.collect())
    }

    fn node_up(&mut self, pack: &Pack, effects: &mut Vec<Effect>) -> Option<LifeId> {
        let Some(Command::NodeUp { info }) = pack.commands.first() else { return None };
        let node = pack.origin;
        if let Some(epoch) = self.nodes.down(node, None, self.clock_ms) {
            effects.push(Effect::NodeDown { node, epoch });
        }
        let life = self.nodes.open(node, pack.epoch, info.clone());
        effects.push(Effect::NodeUp { node, epoch: pack.epoch, info: info.clone() });
        Some(life)
    }

    fn command(&mut self, cause: Cause, command: &Command, effects: &mut Vec<Effect>) -> Outcome {
        match command {
            // The pack filter has opened the epoch; anywhere else it means nothing.
            Command::NodeUp { .. } => Outcome::Ok,
            Command::NodeDown { term, .. } if *term != cause.term => Outcome::Stale,
            Command::NodeDown { node, epoch, .. } => {
                if let Some(epoch) = self.nodes.down(*node, Some(*epoch), self.clock_ms) {
                    effects.push(Effect::NodeDown { node: *node, epoch });
                }
                Outcome::Ok
            }
            Command::Farewell => {
                if let Some((node, epoch)) = self.nodes.up(cause.life) {
                    self.nodes.down(node, Some(epoch), self.clock_ms);
                    effects.push(Effect::NodeDown { node, epoch });
                }
                Outcome::Ok
            }
            Command::Tick { elapsed_ms } => {
                self.clock_ms = self.clock_ms.saturating_add(*elapsed_ms);
                self.retained.expire(self.clock_ms, RETAINED_EXPIRED_PER_TICK);
                Outcome::Ok
            }
            Command::Claim(claim) => self.claim(cause, claim, effects),
            Command::Release { client, incarnation, will, expiry_s, sent } => {
                self.release(client, *incarnation, *will, *expiry_s, *sent, effects)
            }
            Command::RouteAdd { filter } => {
                self.route_add(cause.life, filter);
                Outcome::Ok
            }
            Command::RouteRemove { filter } => {
                self.route_remove(cause.life, filter);
                Outcome::Ok
            }
            Command::Subscribe { client, incarnation, subscriptions } => {
                self.subscribe(client, *incarnation, subscriptions, effects)
            }
            Command::Unsubscribe { client, incarnation, filters } => {
                self.unsubscribe(client, *incarnation, filters)
            }
            Command::Publish { message, exactly_once } => {
                self.logged_publish(message, *exactly_once, effects)
            }
            Command::Forget { client, incarnation, packet_id } => {
                match self.sessions.current_mut(client, *incarnation) {
                    Some(session) => Outcome::Forgotten { known: session.received.remove(packet_id) },
                    None => Outcome::Stale,
                }
            }
            Command::Progress { client, incarnation, steps } => {
                self.progress(client, *incarnation, steps, effects)
            }
            Command::Sweep { clients, routes } => {
                for client in clients {
                    self.sweep(client, effects);
                }
                for filter in routes {
                    self.sweep_routes(filter);
                }
                Outcome::Ok
            }
        }
    }

    /// Grows with every claim, even if a rebuilt log counts its entries from lower again.
    pub(super) fn next_incarnation(&mut self, cause: Cause) -> Incarnation {
        let from_log = (cause.index << POSITION_BITS) | cause.position as u64;
        self.last_incarnation = from_log.max(self.last_incarnation + 1);
        self.last_incarnation
    }

    pub(super) fn route_add(&mut self, life: LifeId, filter: &str) {
        if self.routes.add(filter, life) {
            self.nodes.route_added(life);
            if split_shared(filter).is_some() {
                self.shared.add_node(filter, life);
            }
        }
    }

    fn route_remove(&mut self, life: LifeId, filter: &str) {
        if self.routes.remove(filter, life) {
            if split_shared(filter).is_some() {
                self.shared.remove_node(filter, life);
            }
            self.nodes.route_removed(life);
        }
    }

    /// Frees what ended lives left at this filter.
    fn sweep_routes(&mut self, filter: &str) {
        let Some(lives) = self.routes.get(filter) else { return };
        let ended: Vec<LifeId> = lives.iter().copied().filter(|l| !self.nodes.is_up(*l)).collect();
        for life in ended {
            self.route_remove(life, filter);
        }
    }
}
