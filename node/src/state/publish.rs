//! Publishes that go through the log: who queues them, and who has to be told.

use std::cell::OnceCell;
use std::sync::Arc;

use super::machine::State;
use super::parcel::Parcel;
use super::queue::{Entry, Extra};
use super::subscribers::Hit;
use super::{AtQos0, Effect, Incarnation, Outcome};
use crate::mqtt::{Message, QoS};

/// Whom a message reached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    /// Sessions that queued it.
    pub queued: u32,
    /// Sessions whose queue is full.
    pub refused: u32,
    /// It goes to others, without a queue.
    pub elsewhere: bool,
}

impl Reach {
    fn add(&mut self, other: Reach) {
        self.queued += other.queued;
        self.refused += other.refused;
        self.elsewhere |= other.elsewhere;
    }

    /// It was refused by all that it is for.
    fn is_refused(&self) -> bool {
        self.refused > 0 && self.queued == 0 && !self.elsewhere
    }
}

impl State {
    /// `Command::Publish`.
    pub(super) fn logged_publish(
        &mut self,
        message: &Arc<Message>,
        exactly_once: Option<(Incarnation, u16)>,
        or_refuse: bool,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        if let Some((incarnation, packet_id)) = exactly_once {
            let Some(session) = self.sessions.current_mut(&message.publisher, incarnation) else {
                return Outcome::Stale;
            };
            if session.received.contains(&packet_id) {
                return Outcome::Published { matched: 0, duplicate: true };
            }
        }
        if or_refuse && message.retain && !self.retained.has_room(message, &self.allowed) {
            return Outcome::Refused;
        }
        let reach = self.publish(message, effects);
        // A retained message is kept for those to come.
        if or_refuse && !message.retain && reach.is_refused() {
            return Outcome::Refused;
        }
        if let Some((incarnation, packet_id)) = exactly_once
            && let Some(session) = self.sessions.current_mut(&message.publisher, incarnation)
        {
            session.received.insert(packet_id);
        }
        Outcome::Published { matched: reach.queued, duplicate: false }
    }

    /// Stores the message if retained and within the limits, queues it for every persistent session it reaches, and
    /// has the nodes deliver it to all others.
    pub(super) fn publish(&mut self, message: &Arc<Message>, effects: &mut Vec<Effect>) -> Reach {
        if message.retain {
            self.retained.publish(message, &self.allowed);
        }
        let mut reach = self.deliver_to_subscribers(message, effects);
        let mut groups = Vec::new();
        self.shared.matches(&message.topic, |group| groups.push(Arc::clone(&group.full)));
        if !groups.is_empty() {
            let parcel = Parcel::shared(Arc::clone(message), &self.stock);
            for group in groups {
                reach.add(self.deliver_to_group(&group, &parcel, message, effects));
            }
        }
        if reach.is_refused() {
            self.routes.matches(&message.topic, |life| reach.elsewhere |= self.nodes.is_up(life));
        }
        reach
    }

    /// Queues the message for the persistent sessions that get it at QoS 1 and 2, and says which
    /// of the others are online.
    fn deliver_to_subscribers(&mut self, message: &Arc<Message>, effects: &mut Vec<Effect>) -> Reach {
        let Self { subscribers, sessions, retained, nodes, clock_ms, allowed, stock, .. } = self;
        let limits = &allowed.queue;
        let parcel = OnceCell::new();
        let (mut reach, mut online, mut wakes) = (Reach::default(), Vec::new(), Vec::new());
        for hit in subscribers.hits(&message.topic, &message.publisher) {
            let qos = hit.qos.min(message.qos);
            if qos == QoS::AtMostOnce {
                let owner = sessions.session(hit.client).and_then(|session| session.owner);
                if owner.is_some_and(|owner| nodes.is_up(owner)) {
                    let client = Arc::clone(hit.client);
                    let Hit { ids, retain_as_published, .. } = hit;
                    online.push(AtQos0 { client, subscription_ids: ids, retain_as_published });
                }
                continue;
            }
            let Some(session) = sessions.session_mut(hit.client) else { continue };
            let retain = message.retain && hit.retain_as_published;
            session.queue_retained_of(message, retained, hit.client, stock, limits, *clock_ms);
            let extra = Extra { ids: hit.ids, ..Extra::default() };
            let parcel = parcel.get_or_init(|| Parcel::new(Arc::clone(message), stock));
            let entry = Entry::new(Arc::clone(parcel), qos, retain, extra);
            if !session.queue.push(entry, limits, *clock_ms) {
                reach.refused += 1;
                continue;
            }
            reach.queued += 1;
            if let Some((node, epoch)) = session.owner.and_then(|o| nodes.up(o))
                && session.queue.reserve(session.reserved_max(), *clock_ms)
            {
                let incarnation = session.incarnation;
                wakes.push(Effect::Wake { client: Arc::clone(hit.client), node, epoch, incarnation });
            }
        }
        reach.elsewhere = !online.is_empty();
        effects.push(Effect::Deliver { message: Arc::clone(message), online });
        effects.append(&mut wakes);
        reach
    }

    /// Reserves what may be sent now, and wakes the owner if that is more than before.
    pub(super) fn wake(&mut self, client: &str, effects: &mut Vec<Effect>) {
        let Self { sessions, nodes, clock_ms, .. } = self;
        let Some(session) = sessions.session_mut(client) else { return };
        let Some((node, epoch)) = session.owner.and_then(|o| nodes.up(o)) else { return };
        if session.queue.reserve(session.reserved_max(), *clock_ms) {
            let incarnation = session.incarnation;
            if let Some(client) = sessions.key(client) {
                effects.push(Effect::Wake { client: Arc::clone(client), node, epoch, incarnation });
            }
        }
    }
}
