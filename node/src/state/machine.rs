//! The replicated state machine: which packs count, and which module carries out which command.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::limits::{NodeLimits, RETAINED_EXPIRED_PER_TICK};
use super::nodes::{Accepted, LifeId, Nodes};
use super::parcel::Stock;
use super::retained::Retained;
use super::routes::Routes;
use super::sessions::Sessions;
use super::settings::Settings;
use super::shared::Shared;
use super::subscribers::SubscriberIndex;
use super::wall::WallClocks;
use super::{Command, Drain, Effect, Epoch, Incarnation, LogIndex, NodeId, Outcome, Pack, PackError};
use crate::sharing::{Draw, Sharing};
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
    pub(super) walls: WallClocks,
    pub(super) last_incarnation: Incarnation,
    pub(super) feature_level: u32,
    pub(super) nodes: Nodes,
    pub(super) routes: Routes,
    pub(super) shared: Shared,
    pub(super) subscribers: SubscriberIndex,
    pub(super) sessions: Sessions,
    pub(super) retained: Retained,
    pub(super) settings: Settings,
    /// Of lives that are up: the parts of a command that is not whole yet.
    pub(super) parts: BTreeMap<LifeId, Vec<Bytes>>,
    /// Of lives that are up: those that let their clients go.
    pub(super) drains: BTreeMap<LifeId, Drain>,
    /// What the origin of the pack being applied may make the cluster keep.
    pub(super) allowed: NodeLimits,
    /// How it divides the messages of shared subscriptions.
    pub(super) sharing: Sharing,
    pub(super) origin: NodeId,
    /// Of the command being applied.
    pub(super) draw: Draw,
    /// This node's queued messages.
    pub(super) stock: Arc<Stock>,
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
    /// `stock`: where this node keeps queued messages.
    pub fn new(stock: Arc<Stock>) -> Self {
        Self { stock, ..Self::default() }
    }

    /// Applies the pack committed at `index`, which must grow from call to call, in an entry of
    /// the leader of `term`. Appends what is to be done outside to `effects`, and returns an
    /// outcome per command.
    ///
    /// `None`: the pack was a duplicate, out of sequence or of an epoch that is not up, and
    /// changed nothing.
    ///
    /// # Errors
    /// A command that came in parts is not one that this node knows; the state must not be used
    /// any more.
    pub fn apply(
        &mut self,
        index: LogIndex,
        term: u64,
        pack: &Pack,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Vec<Outcome>>, PackError> {
        let life = match self.nodes.accept(pack) {
            None => return Ok(None),
            Some(Accepted::Opens) => self.node_up(pack, effects),
            Some(Accepted::Continues(life)) => {
                self.walls.heard_from(life);
                Some(life)
            }
        };
        let Some(life) = life else { return Ok(None) };
        self.nodes.advance(pack.origin);
        self.allowed = self.nodes.limits(pack.origin);
        self.sharing = self.nodes.sharing(pack.origin);
        self.origin = pack.origin;
        let outcomes = pack.commands.iter().enumerate().map(|(position, command)| {
            let cause = Cause { index, term, position, life };
            // A pack may end its own origin's life; what follows is then void.
            match self.nodes.up(life) {
                Some(up) if up == (pack.origin, pack.epoch) => match command {
                    Command::Part { bytes, last } => self.part(cause, bytes, *last, effects),
                    command => Ok(self.command(cause, command, effects)),
                },
                _ => Ok(Outcome::Stale),
            }
        });
        let outcomes = outcomes.collect::<Result<_, _>>()?;
        self.settle_clock(effects);
        Ok(Some(outcomes))
    }

    /// After a stop of all nodes: makes up for the time that nobody counted, once it is known.
    fn settle_clock(&mut self, effects: &mut Vec<Effect>) {
        if let Some(by_ms) = self.walls.verdict(self.clock_ms, &self.nodes)
            && by_ms > 0
        {
            self.clock_ms = self.clock_ms.saturating_add(by_ms);
            effects.push(Effect::ClockAdvanced { by_ms });
        }
    }

    /// `Command::Part`.
    fn part(
        &mut self,
        cause: Cause,
        bytes: &Bytes,
        last: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, PackError> {
        let parts = self.parts.entry(cause.life).or_default();
        parts.push(bytes.clone());
        if !last {
            return Ok(Outcome::Ok);
        }
        let whole = parts.concat();
        self.parts.remove(&cause.life);
        let command = Command::decode(&whole)?;
        drop(whole);
        Ok(self.command(cause, &command, effects))
    }

    /// Ends the node's present life if it is `epoch` (any, if `None`).
    fn node_down(&mut self, node: NodeId, epoch: Option<Epoch>, effects: &mut Vec<Effect>) {
        if let Some(epoch) = self.nodes.down(node, epoch, self.clock_ms) {
            self.parts.retain(|life, _| self.nodes.is_up(*life));
            self.drains.retain(|life, _| self.nodes.is_up(*life));
            effects.push(Effect::NodeDown { node, epoch });
        }
    }

    fn node_up(&mut self, pack: &Pack, effects: &mut Vec<Effect>) -> Option<LifeId> {
        let Some(Command::NodeUp { info }) = pack.commands.first() else { return None };
        let node = pack.origin;
        if !self.understands(node, info, effects) {
            return None;
        }
        let returns = self.nodes.knows(node);
        self.node_down(node, None, effects);
        let life = self.nodes.open(node, pack.epoch, info.clone());
        self.walls.life_began(life, returns, self.clock_ms);
        effects.push(Effect::NodeUp { node, epoch: pack.epoch, info: info.clone() });
        Some(life)
    }

    fn command(&mut self, cause: Cause, command: &Command, effects: &mut Vec<Effect>) -> Outcome {
        self.draw = Draw::of_command(cause.index, cause.position);
        match command {
            // The pack filter has opened the epoch, and put parts together; anywhere else they mean
            // nothing.
            Command::NodeUp { .. } | Command::Part { .. } => Outcome::Ok,
            Command::NodeDown { term, .. } if *term != cause.term => Outcome::Stale,
            Command::NodeDown { node, epoch, .. } => {
                self.node_down(*node, Some(*epoch), effects);
                Outcome::Ok
            }
            Command::Farewell => {
                if let Some((node, epoch)) = self.nodes.up(cause.life) {
                    self.node_down(node, Some(epoch), effects);
                }
                Outcome::Ok
            }
            Command::Tick { elapsed_ms } => {
                self.clock_ms = self.clock_ms.saturating_add(*elapsed_ms);
                self.retained.expire(self.clock_ms, RETAINED_EXPIRED_PER_TICK);
                self.settings.expire(self.clock_ms);
                Outcome::Ok
            }
            Command::WallClock { wall_ms } => {
                if let Some((node, _)) = self.nodes.up(cause.life) {
                    self.walls.told(node, *wall_ms, self.clock_ms);
                }
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
                self.unsubscribe(client, *incarnation, filters, effects)
            }
            Command::Publish { message, exactly_once, or_refuse } => {
                self.logged_publish(message, *exactly_once, *or_refuse, effects)
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
            Command::Replay { client, incarnation } => self.replay_next(client, *incarnation, effects),
            Command::Raise { level } => {
                self.raise(*level);
                Outcome::Ok
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
            Command::SharedMembers { filter, members } => {
                self.shared.count_members(filter, cause.life, *members);
                Outcome::Ok
            }
            Command::Redeliver { filter, message, moves } => {
                self.redeliver(filter, message, *moves, effects);
                Outcome::Ok
            }
            Command::Draw { filter, max } => {
                self.draw_waiting(filter, *max, effects);
                Outcome::Ok
            }
            Command::Settings(change) => match self.settings.change(change, self.clock_ms) {
                Ok(changed) => {
                    effects.extend(changed.then(|| Effect::Settings(change.clone())));
                    Outcome::Ok
                }
                Err(why) => Outcome::Unchanged(why),
            },
            Command::Drain { node, drain } => self.drain(*node, *drain, effects),
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
                let node = self.nodes.life(life).map_or(0, |l| l.node);
                self.shared.add_node(filter, life, node);
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
