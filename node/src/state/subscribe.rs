//! What persistent sessions subscribe to, and what they acknowledge.

use std::sync::Arc;

use super::machine::State;
use super::parcel::Parcel;
use super::queue::{Entry, Extra};
use super::subscribers::Sub;
use super::{Added, DeliveryStep, Effect, Incarnation, Outcome, QueueSeq, Subscription};
use crate::mqtt::QoS;
use crate::topic::split_shared;

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
        for (subscription, added) in subscriptions.iter().zip(&added).filter(|(_, a)| **a != Added::Refused) {
            self.link(&subscription.filter, &key, sub_of(subscription));
            let is_new = *added == Added::New;
            self.give_retained(&key, &subscription.filter, sub_of(subscription), is_new, effects);
        }
        self.wake(client, effects);
        Outcome::Subscribed { added }
    }

    /// Gives a subscription its retained messages, in the order of topics [MQTT-3.3.1-9 to
    /// MQTT-3.3.1-11]: those at QoS 1 and 2 are queued, those at QoS 0 sent by the owner. Shared
    /// subscriptions get none.
    fn give_retained(
        &mut self,
        client: &Arc<str>,
        filter: &str,
        sub: Sub,
        is_new: bool,
        effects: &mut Vec<Effect>,
    ) {
        let wanted = match sub.options.retain_handling {
            0 => true,
            1 => is_new,
            _ => false,
        };
        if !wanted || split_shared(filter).is_some() {
            return;
        }
        let Self { retained, sessions, clock_ms, nodes, allowed, stock, .. } = self;
        let Some(session) = sessions.session_mut(client) else { return };
        let mut messages = Vec::new();
        retained.matches(filter, *clock_ms, |message| {
            let qos = message.qos.min(sub.options.qos);
            if sub.excludes(client, &message.publisher) {
                return;
            }
            if qos == QoS::AtMostOnce {
                return messages.push(Arc::clone(message));
            }
            let ids = std::iter::once(sub.id).filter(|id| *id != 0).collect();
            let extra = Extra { ids, group: None };
            let parcel = Parcel::new(Arc::clone(message), stock);
            session.queue.push(Entry::new(parcel, qos, true, extra), &allowed.queue, *clock_ms);
        });
        if let Some((node, epoch)) = session.owner.and_then(|owner| nodes.up(owner))
            && !messages.is_empty()
        {
            let (client, incarnation, subscription_id) = (Arc::clone(client), session.incarnation, sub.id);
            effects.push(Effect::Retained { client, node, epoch, incarnation, subscription_id, messages });
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        client: &str,
        incarnation: Incarnation,
        filters: &[Box<str>],
    ) -> Outcome {
        let Some(session) = self.sessions.current_mut(client, incarnation) else { return Outcome::Stale };
        let existed: Vec<bool> = filters.iter().map(|f| session.subs.remove(f).is_some()).collect();
        for (filter, _) in filters.iter().zip(&existed).filter(|(_, existed)| **existed) {
            self.unlink(filter, client);
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
        for (seq, step) in steps {
            session.queue.progress(*seq, *step);
        }
        self.wake(client, effects);
        Outcome::Ok
    }
}

fn sub_of(subscription: &Subscription) -> Sub {
    Sub { options: subscription.options, id: subscription.id }
}
