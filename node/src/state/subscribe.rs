//! What persistent sessions subscribe to, and what they acknowledge.

use std::sync::Arc;

use super::limits::REPLAY_VISITS_MAX;
use super::machine::State;
use super::replay::Part;
use super::session::Session;
use super::subscribers::Sub;
use super::{Added, DeliveryStep, Effect, Incarnation, Outcome, QueueSeq, Replay, Subscription};

impl State {
    pub(super) fn subscribe(
        &mut self,
        client: &str,
        incarnation: Incarnation,
        subscriptions: &[Subscription],
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Some(key) = self.sessions.key(client).map(Arc::clone) else { return Outcome::Stale };
        let Some(session) = self.sessions.current_mut(client, incarnation) else { return Outcome::Stale };
        let most = self.allowed.subscriptions_per_client as usize;
        // A subscription to the same filter replaces the earlier one [MQTT-3.8.4-3], however many
        // there are.
        let added: Vec<Added> = subscriptions
            .iter()
            .map(|s| {
                if let Some(old) = session.subs.get_mut(&s.filter) {
                    *old = sub_of(s);
                    Added::Replaced
                } else if session.subs.len() >= most {
                    Added::Refused
                } else {
                    session.subs.insert(s.filter.clone(), sub_of(s));
                    Added::New
                }
            })
            .collect();
        let mut visits = REPLAY_VISITS_MAX;
        for (subscription, added) in subscriptions.iter().zip(&added).filter(|(_, a)| **a != Added::Refused) {
            let owner = self.sessions.session(client).and_then(|session| session.owner);
            self.link(&subscription.filter, &key, sub_of(subscription), owner);
            self.begin_replay(&key, subscription, *added == Added::New, effects);
            self.queue_retained(&key, &mut visits);
        }
        self.hand_out_to(client, effects);
        self.wake(client, effects);
        self.ask_for_replay(client, effects);
        Outcome::Subscribed { added }
    }

    /// Sees to it that a subscription gets its retained messages [MQTT-3.3.1-9 to MQTT-3.3.1-11]:
    /// those at QoS 1 and 2 are queued, those at QoS 0 sent by the owner. Shared subscriptions get
    /// none. What an earlier subscription to the filter has not got yet, the session still gets,
    /// unless it is all sent again.
    fn begin_replay(
        &mut self,
        client: &Arc<str>,
        subscription: &Subscription,
        is_new: bool,
        effects: &mut Vec<Effect>,
    ) {
        let (filter, sub) = (&subscription.filter, sub_of(subscription));
        if !sub.wants_retained(filter, is_new) {
            return;
        }
        let Self { retained, sessions, .. } = self;
        let Some(session) = sessions.session_mut(client) else { return };
        let queued = sub.is_durable().then(|| retained.replay(filter, sub, Part::Queued)).flatten();
        session.set_replay(filter, queued);
        let unqueued = retained.replay(filter, sub, Part::Unqueued);
        if unqueued.is_some() || !is_new {
            self.replay_at_owner(client, filter, unqueued, effects);
        }
    }

    fn replay_at_owner(&self, client: &str, filter: &str, replay: Option<Replay>, effects: &mut Vec<Effect>) {
        let Some(session) = self.sessions.session(client) else { return };
        if let Some((node, epoch)) = session.owner.and_then(|owner| self.nodes.up(owner))
            && let Some(client) = self.sessions.key(client)
        {
            let (client, incarnation) = (Arc::clone(client), session.incarnation);
            effects.push(Effect::Replay { client, node, epoch, incarnation, filter: filter.into(), replay });
        }
    }

    /// Queues retained messages that the session is to get; see [`Session::queue_retained`].
    fn queue_retained(&mut self, client: &str, visits: &mut usize) {
        let Self { retained, sessions, clock_ms, allowed, stock, .. } = self;
        if sessions.session(client).is_some_and(|session| session.is_hungry(&allowed.queue))
            && let Some(session) = sessions.session_mut(client)
        {
            session.queue_retained(retained, client, stock, &allowed.queue, *clock_ms, visits);
        }
    }

    /// If the queue should hold more retained messages already: the rest is for another command.
    pub(super) fn ask_for_replay(&mut self, client: &str, effects: &mut Vec<Effect>) {
        let limits = &self.allowed.queue;
        let waits = |s: &Session| s.is_hungry(limits) && s.replaying.as_ref().is_some_and(|r| !r.asked);
        let Some(session) = self.sessions.session(client).filter(|s| waits(s)) else { return };
        let Some((node, epoch)) = session.owner.and_then(|owner| self.nodes.up(owner)) else { return };
        let Some(key) = self.sessions.key(client).map(Arc::clone) else { return };
        let Some(session) = self.sessions.session_mut(client) else { return };
        if let Some(replaying) = &mut session.replaying {
            replaying.asked = true;
        }
        effects.push(Effect::ReplayNext { client: key, node, epoch, incarnation: session.incarnation });
    }

    /// `Command::Replay`.
    pub(super) fn replay_next(
        &mut self,
        client: &str,
        incarnation: Incarnation,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Some(session) = self.sessions.current_mut(client, incarnation) else { return Outcome::Stale };
        session.answer_replay();
        self.refill(client, effects);
        Outcome::Ok
    }

    /// After the session's queue may have got room.
    pub(super) fn refill(&mut self, client: &str, effects: &mut Vec<Effect>) {
        let mut visits = REPLAY_VISITS_MAX;
        self.queue_retained(client, &mut visits);
        self.wake(client, effects);
        self.ask_for_replay(client, effects);
    }

    pub(super) fn unsubscribe(
        &mut self,
        client: &str,
        incarnation: Incarnation,
        filters: &[Box<str>],
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Some(session) = self.sessions.current_mut(client, incarnation) else { return Outcome::Stale };
        let existed: Vec<bool> = filters.iter().map(|f| session.subs.remove(f).is_some()).collect();
        filters.iter().for_each(|filter| session.set_replay(filter, None));
        for (filter, _) in filters.iter().zip(&existed).filter(|(_, existed)| **existed) {
            self.unlink(filter, client);
            self.replay_at_owner(client, filter, None, effects);
        }
        Outcome::Unsubscribed { existed }
    }

    pub(super) fn progress(
        &mut self,
        client: &str,
        incarnation: Incarnation,
        steps: &[(QueueSeq, DeliveryStep)],
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let Some(session) = self.sessions.current_mut(client, incarnation) else { return Outcome::Stale };
        let mut refused = Vec::new();
        for (seq, step) in steps {
            let over = session.queue.progress(*seq, *step);
            refused.extend(over.filter(|_| *step == DeliveryStep::Refused));
        }
        let replays = session.replaying.is_some();
        for entry in refused {
            self.move_on(entry, client, effects);
        }
        self.hand_out_to(client, effects);
        if replays {
            self.refill(client, effects);
        } else {
            self.wake(client, effects);
        }
        Outcome::Ok
    }
}

fn sub_of(subscription: &Subscription) -> Sub {
    Sub { options: subscription.options, id: subscription.id }
}
