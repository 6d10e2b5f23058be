//! Which member of a shared subscription gets a message, and the messages that wait for one.
//!
//! A message at QoS 1 or 2 that no connected member has room for waits in the subscription's own
//! queue, as long as it has a persistent member. Members are given from it when they connect,
//! subscribe or acknowledge; clean ones when their node asks for it, which knows their room. What
//! a session was given and not sent goes back there when its connection ends.

use std::sync::Arc;

use super::limits::{HANDED_OUT_MAX, MOVES_MAX};
use super::machine::State;
use super::parcel::Parcel;
use super::publish::Reach;
use super::queue::{Entry, Extra};
use super::shared::{Group, Member, Party};
use super::{Effect, NodeId};
use crate::mqtt::{Message, QoS};
use crate::sharing::{Strategy, choose};

/// Who gets a message.
enum Pick {
    /// A persistent member queues it.
    Queue { client: Arc<str>, qos: QoS, retain: bool, id: u32 },
    /// A member on the node takes it without the log.
    Node(NodeId),
}

/// Among whom.
#[derive(Clone, Copy)]
struct Among<'a> {
    /// The nodes with their clean members, too.
    nodes: bool,
    /// But for this persistent member.
    except: Option<&'a str>,
}

impl Among<'_> {
    const ALL: Self = Among { nodes: true, except: None };
    const PERSISTENT: Self = Among { nodes: false, except: None };
}

impl State {
    /// Gives the message to one member of the group, or has it wait for one.
    pub(super) fn deliver_to_group(
        &mut self,
        full: &Arc<str>,
        parcel: &Arc<Parcel>,
        head: &Message,
        effects: &mut Vec<Effect>,
    ) -> Reach {
        let Some(group) = self.shared.get(full) else { return Reach::default() };
        let durable = group.is_durable() && head.qos > QoS::AtMostOnce;
        // Nothing overtakes what waits.
        let in_line = durable && self.shared.backlog(full).is_some();
        match if in_line { None } else { self.pick(full, parcel, head, Among::ALL) } {
            Some(pick) => self.give_and_wake(full, parcel, head, 0, pick, effects),
            None if durable => self.wait(full, parcel, head, 0),
            None => Reach::default(),
        }
    }

    /// `Command::Redeliver`.
    pub(super) fn redeliver(
        &mut self,
        filter: &str,
        message: &Arc<Message>,
        moves: u8,
        effects: &mut Vec<Effect>,
    ) {
        let Some(group) = self.shared.get(filter) else { return };
        let (full, durable) = (Arc::clone(&group.full), group.is_durable());
        if moves > MOVES_MAX {
            return;
        }
        let parcel = Parcel::shared(Arc::clone(message), &self.stock);
        if let Some(pick) = self.pick(&full, &parcel, message, Among::PERSISTENT) {
            self.give_and_wake(&full, &parcel, message, moves, pick, effects);
        } else if durable && message.qos > QoS::AtMostOnce {
            self.wait(&full, &parcel, message, moves);
        }
    }

    /// The message waits for a member that has room.
    fn wait(&mut self, full: &Arc<str>, parcel: &Arc<Parcel>, head: &Message, moves: u8) -> Reach {
        let entry = waiting(full, parcel, head, moves);
        match self.shared.wait(full, entry, &self.allowed.queue, self.clock_ms) {
            true => Reach { queued: 1, ..Reach::default() },
            false => Reach { refused: 1, ..Reach::default() },
        }
    }

    /// `Command::Draw`: the origin has room for so many.
    pub(super) fn draw_waiting(&mut self, filter: &str, max: u32, effects: &mut Vec<Effect>) {
        for _ in 0..HANDED_OUT_MAX.min(max as usize) {
            let Some(entry) = self.shared.take_waiting(filter, self.clock_ms) else { return };
            let moves = entry.moves();
            let (node, filter) = (self.origin, filter.into());
            effects.push(Effect::DeliverShared { node, filter, parcel: entry.parcel, moves });
        }
    }

    /// The client has connected, subscribed or acknowledged: what waits for a member of its shared
    /// subscriptions is given to those that have room.
    pub(super) fn hand_out_to(&mut self, client: &str, effects: &mut Vec<Effect>) {
        if self.shared.backlogs().len() == 0 {
            return;
        }
        let Some(session) = self.sessions.session(client) else { return };
        let waits = |filter: &&str| self.shared.backlog(filter).is_some();
        let filters: Vec<Arc<str>> = session.shared_filters().filter(waits).map(Arc::from).collect();
        for filter in filters {
            self.hand_out(&filter, effects);
        }
    }

    /// Gives what waits to the persistent members that have room.
    fn hand_out(&mut self, full: &Arc<str>, effects: &mut Vec<Effect>) {
        let mut receivers: Vec<Arc<str>> = Vec::new();
        for _ in 0..HANDED_OUT_MAX {
            let Some(entry) = self.shared.take_waiting(full, self.clock_ms) else { break };
            let Some(head) = entry.parcel.head() else { continue };
            let Some(pick) = self.pick(full, &entry.parcel, &head, Among::PERSISTENT) else {
                self.shared.wait_first(full, entry);
                break;
            };
            if let Pick::Queue { client, .. } = &pick
                && !receivers.contains(client)
            {
                receivers.push(Arc::clone(client));
            }
            self.give(full, &entry.parcel, &head, entry.moves(), pick, effects);
        }
        for client in receivers {
            self.wake(&client, effects);
        }
    }

    /// The client's connection ended: what it was given of shared subscriptions and certainly not
    /// sent goes to other members.
    pub(super) fn give_back(&mut self, client: &str, effects: &mut Vec<Effect>) {
        // Looking first: most sessions have none, and what is changed is copied.
        if self.sessions.session(client).is_none_or(|s| s.shared_filters().next().is_none()) {
            return;
        }
        let Some(session) = self.sessions.session_mut(client) else { return };
        let entries = session.queue.take_waiting_shared();
        self.wait_again(entries, effects);
        self.hand_out_to(client, effects);
    }

    /// These, the oldest first, wait for a member again, before all others. Of a group without
    /// members nothing is left.
    pub(super) fn wait_again(&mut self, entries: Vec<Entry>, effects: &mut Vec<Effect>) {
        let mut groups: Vec<Arc<str>> = Vec::new();
        for entry in entries.into_iter().rev() {
            let Some(full) = entry.group().cloned() else { continue };
            if self.shared.get(&full).is_none() {
                continue;
            }
            let Some(head) = entry.parcel.head() else { continue };
            let entry = waiting(&full, &entry.parcel, &head, entry.moves());
            self.shared.wait_first(&full, entry);
            if !groups.contains(&full) {
                groups.push(full);
            }
        }
        for full in groups.into_iter().rev() {
            self.hand_out(&full, effects);
        }
    }

    /// A member refused the delivery: it goes to another one, connected if there is one, and is
    /// discarded if there is none, or it went round often enough.
    pub(super) fn move_on(&mut self, entry: Entry, refused_by: &str, effects: &mut Vec<Effect>) {
        let Some(full) = entry.group().cloned() else { return };
        let moves = entry.moves().saturating_add(1);
        if moves > MOVES_MAX {
            return;
        }
        let among = Among { nodes: true, except: Some(refused_by) };
        let parcel = &entry.parcel;
        let Some(head) = parcel.head() else { return };
        let pick = self.pick(&full, parcel, &head, among).or_else(|| self.absent(&full, &head, refused_by));
        if let Some(pick) = pick {
            self.give_and_wake(&full, parcel, &head, moves, pick, effects);
        }
    }

    /// A persistent member that is not connected, or has no room, but keeps the message.
    fn absent(&self, full: &str, message: &Message, except: &str) -> Option<Pick> {
        let group = self.shared.get(full)?;
        let mut others = group.members().iter().filter(|m| *m.client != *except && m.sub.is_durable());
        others.next().map(|member| queue(member, message))
    }

    /// Hands the message over, and wakes whoever is to send it.
    fn give_and_wake(
        &mut self,
        full: &Arc<str>,
        parcel: &Arc<Parcel>,
        head: &Message,
        moves: u8,
        pick: Pick,
        effects: &mut Vec<Effect>,
    ) -> Reach {
        let receiver = match &pick {
            Pick::Queue { client, .. } => Some(Arc::clone(client)),
            Pick::Node(_) => None,
        };
        let reach = self.give(full, parcel, head, moves, pick, effects);
        if let Some(client) = receiver {
            self.wake(&client, effects);
        }
        reach
    }

    /// Hands the message over.
    fn give(
        &mut self,
        full: &Arc<str>,
        parcel: &Arc<Parcel>,
        head: &Message,
        moves: u8,
        pick: Pick,
        effects: &mut Vec<Effect>,
    ) -> Reach {
        match pick {
            Pick::Node(node) => {
                let (filter, parcel) = (full.as_ref().into(), Arc::clone(parcel));
                effects.push(Effect::DeliverShared { node, filter, parcel, moves });
                Reach { elsewhere: true, ..Reach::default() }
            }
            Pick::Queue { client, qos, retain, id } => {
                let ids = std::iter::once(id).filter(|id| *id != 0).collect();
                let extra = Extra { ids, group: Some(Arc::clone(full)), moves };
                let entry = Entry::new(Arc::clone(parcel), qos, retain, extra);
                let Self { sessions, retained, clock_ms, allowed, stock, .. } = self;
                let Some(session) = sessions.session_mut(&client) else { return Reach::default() };
                session.queue_retained_of(head, retained, &client, stock, &allowed.queue, *clock_ms);
                if !session.queue.push(entry, &allowed.queue, *clock_ms) {
                    return Reach { refused: 1, ..Reach::default() };
                }
                Reach { queued: 1, ..Reach::default() }
            }
        }
    }

    /// The member whose turn it is among those that are connected and have room.
    fn pick(&mut self, full: &Arc<str>, parcel: &Parcel, head: &Message, among: Among<'_>) -> Option<Pick> {
        let group = self.shared.get(full)?;
        let strategy = self.sharing.strategy_of(full);
        let key = strategy.key(full, &head.borrow());
        let (before, mut draw) = (self.shared.turn(full), self.draw);
        let mut turn = before;
        let mut choice = |near: bool| {
            choose(strategy, group.slots(), key, &mut (&mut turn, &mut draw), |at| {
                (!near || self.is_near(group, at)) && self.is_able(group, at, parcel, head, strategy, among)
            })
        };
        let near = if strategy == Strategy::Local { choice(true) } else { None };
        let at = near.or_else(|| choice(false));
        let pick = at.and_then(|at| self.pick_at(group, at, head));
        if turn != before {
            self.shared.set_turn(full, turn);
        }
        self.draw = draw;
        pick
    }

    /// Whether this slot's member is connected and has room, as far as the state knows.
    fn is_able(
        &self,
        group: &Group,
        at: usize,
        parcel: &Parcel,
        head: &Message,
        strategy: Strategy,
        among: Among<'_>,
    ) -> bool {
        let member = match group.party(at) {
            Some(Party::Member(member)) => member,
            Some(Party::Node(life)) => return among.nodes && self.nodes.is_up(life),
            None => return false,
        };
        if !member.owner.is_some_and(|owner| self.nodes.is_up(owner)) || among.except == Some(&*member.client)
        {
            return false;
        }
        if member.sub.options.qos.min(head.qos) == QoS::AtMostOnce {
            return among.nodes;
        }
        self.sessions.session(&member.client).is_some_and(|session| {
            (strategy.is_affine() || session.has_credit())
                && session.queue.has_room(parcel.size_bytes(), &self.allowed.queue)
        })
    }

    /// Whether this slot's member is on the node that the command comes from.
    fn is_near(&self, group: &Group, at: usize) -> bool {
        let life = match group.party(at) {
            Some(Party::Member(member)) => member.owner,
            Some(Party::Node(life)) => Some(life),
            None => None,
        };
        life.and_then(|life| self.nodes.up(life)).is_some_and(|(node, _)| node == self.origin)
    }

    fn pick_at(&self, group: &Group, at: usize, message: &Message) -> Option<Pick> {
        let node = |life| self.nodes.up(life).map(|(node, _)| Pick::Node(node));
        match group.party(at)? {
            Party::Node(life) => node(life),
            // Without a place in the queue, it takes an owner to deliver it.
            Party::Member(member) if member.sub.options.qos.min(message.qos) == QoS::AtMostOnce => {
                node(member.owner?)
            }
            Party::Member(member) => Some(queue(member, message)),
        }
    }
}

fn queue(member: &Member, message: &Message) -> Pick {
    let options = member.sub.options;
    let retain = message.retain && options.retain_as_published;
    let qos = options.qos.min(message.qos);
    Pick::Queue { client: Arc::clone(&member.client), qos, retain, id: member.sub.id }
}

/// A message of the group that is nobody's yet.
fn waiting(full: &Arc<str>, parcel: &Arc<Parcel>, head: &Message, moves: u8) -> Entry {
    let extra = Extra { group: Some(Arc::clone(full)), moves, ..Extra::default() };
    Entry::new(Arc::clone(parcel), head.qos, head.retain, extra)
}
