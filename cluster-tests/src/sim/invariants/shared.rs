//! **What a group shares goes to one of its members, and is not lost with one.**
//!
//! At QoS 2 no message comes to two members, whatever happens. At QoS 1 none does while nothing is
//! lost: no member, no node, no message between nodes, and no publisher that repeats. And since one
//! member has a persistent session, what was acknowledged at QoS 1 comes to a member in the end,
//! although members go. A node that dies may take with it what it had taken over for a clean member.
//! Seen to fail with one call of `deliver_to_group` too many in `publish` (state/publish.rs): seeds 2
//! and 3; and with what a lost clean member had not acknowledged given to nobody: seed 28.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::sim::actors::cast::{MEMBERS, SHARED_PUBLISHERS};
use crate::sim::history::{ConnId, Entry, Event, MessageId};
use crate::sim::world::World;

/// How long a disturbance has an effect beyond its end: whoever was cut off may have to find out.
const AFTERMATH_MS: u64 = 5_000;

#[derive(Default)]
pub struct Shared {
    subscribed: BTreeSet<&'static str>,
    /// Who got it first: the connection and the client, and when.
    got: BTreeMap<MessageId, (ConnId, &'static str, u64)>,
    /// Acknowledged at QoS 1 and not seen yet: when it was sent and when acknowledged.
    missing: BTreeMap<MessageId, (u64, u64)>,
    active: usize,
    /// The last moment at which something was lost.
    disturbed_ms: u64,
    /// The last death of a node.
    died_ms: u64,
}

impl Shared {
    fn delivered(&mut self, entry: &Entry, message: MessageId, qos: u8) -> Option<String> {
        self.missing.remove(&message);
        let first = *self.got.entry(message).or_insert((entry.conn, entry.client, entry.at_ms));
        if first.0 == entry.conn {
            return None;
        }
        let undisturbed = self.active == 0 && first.2 > self.disturbed_ms + AFTERMATH_MS;
        // A session that is resumed is sent again what it had.
        let other = first.1 != entry.client;
        (other && (qos == 2 || undisturbed))
            .then(|| format!("shared: {message} at QoS {qos} came to {} and to {}", first.1, entry.client))
    }
}

impl Invariant for Shared {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        match entry.event {
            Event::Faults { active } => {
                self.active = active;
                self.disturbed_ms = entry.at_ms;
            }
            Event::Crashed { .. } | Event::LifeEnded { .. } => {
                self.disturbed_ms = entry.at_ms;
                // It may have had them, and sent them nowhere yet.
                self.missing.retain(|_, (_, acknowledged_ms)| *acknowledged_ms + AFTERMATH_MS < entry.at_ms);
                self.died_ms = entry.at_ms;
            }
            Event::Closed { .. }
                if MEMBERS.contains(&entry.client) || SHARED_PUBLISHERS.contains(&entry.client) =>
            {
                self.disturbed_ms = entry.at_ms;
            }
            Event::Subscribed { .. } => {
                self.subscribed.insert(entry.client);
            }
            Event::Acknowledged { message, qos: 1, sent_ms, .. }
                if SHARED_PUBLISHERS.contains(&message.publisher)
                    && self.subscribed.contains(MEMBERS[0])
                    && self.died_ms + AFTERMATH_MS < sent_ms
                    && !self.got.contains_key(&message) =>
            {
                self.missing.insert(message, (sent_ms, entry.at_ms));
            }
            Event::Delivered { message, qos, new: true, .. } if MEMBERS.contains(&entry.client) => {
                return self.delivered(entry, message, qos);
            }
            _ => {}
        }
        None
    }

    fn owed(&self, _: &World) -> Vec<String> {
        let missing = self.missing.iter();
        missing
            .map(|(message, (sent_ms, at_ms))| {
                format!(
                    "shared: no member got {message}, sent at {sent_ms} ms and acknowledged at {at_ms} ms"
                )
            })
            .collect()
    }
}
