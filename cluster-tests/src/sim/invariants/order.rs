//! **Each publisher's messages arrive in order.**
//!
//! Repetitions aside, what one publisher sent on one topic at one QoS comes to a session in that
//! order [MQTT-4.6.0-5], and to a clean subscriber on one connection. A publish that overtakes
//! another on its way to the log, or a queue that is resumed from the wrong place, breaks it.
//! Messages that were refused, and so sent again after later ones, are excused, and those that a
//! clean subscriber was too late for; and only publishers count that repeat what is open on their
//! next connection before they send anything new.
//! Seen to fail with `unreserve` (state/queue.rs) putting what was not sent behind what waits: seeds 8,
//! 12 and 24; with forwards without the barrier of the log (broker/publish.rs): seed 46; and with
//! publishes to be logged that do not wait for forwards (session/order.rs): seeds 3 and 33.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::sim::actors::cast::{
    DIRECT_PUBLISHERS, EXPIRING_PUBLISHER, ONE, QOS1_PUBLISHERS, QOS2_PUBLISHERS, TWO, WATCHERS,
};
use crate::sim::history::{ConnId, Entry, Event, MessageId};

/// Where messages arrive in order: a session of one client, or one connection of a clean one.
type Place = (&'static str, Option<ConnId>);

#[derive(Default)]
pub struct Order {
    refused: BTreeSet<MessageId>,
    seen: BTreeMap<Place, BTreeSet<MessageId>>,
    /// Per place and publisher, the first number and the highest one.
    newest: BTreeMap<(Place, &'static str), (u64, u64)>,
}

fn place(entry: &Entry) -> Option<Place> {
    match entry.client {
        client if [ONE.client_id, TWO.client_id].contains(&client) => Some((client, None)),
        client if WATCHERS.iter().any(|(name, _)| *name == client) => Some((client, Some(entry.conn))),
        _ => None,
    }
}

impl Invariant for Order {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        if let Event::Refused { message, .. } = entry.event {
            self.refused.insert(message);
        }
        let Event::Delivered { message, new: true, .. } = entry.event else { return None };
        let place = place(entry)?;
        let all = [&QOS1_PUBLISHERS, &QOS2_PUBLISHERS, &DIRECT_PUBLISHERS, &[EXPIRING_PUBLISHER][..]];
        let repeats = all.iter().any(|publishers| publishers.contains(&message.publisher));
        if !repeats || !self.seen.entry(place).or_default().insert(message) {
            return None;
        }
        let (first, newest) =
            self.newest.entry((place, message.publisher)).or_insert((message.number, message.number));
        // Repeated, after it had been missed.
        let missed = place.1.is_some() && message.number < *first;
        if *newest > message.number && !missed && !self.refused.contains(&message) {
            return Some(format!(
                "order: {} got {message} after {}:{newest}",
                entry.client, message.publisher
            ));
        }
        *newest = message.number.max(*newest);
        None
    }
}
