//! **What a group shares goes to one of its members.**
//!
//! At QoS 2 no message comes to two members, whatever happens. At QoS 1 none does while nothing is
//! lost: no member, no node, no message between nodes, and no publisher that repeats.
//! Seen to fail with one call of `deliver_to_group` too many in `publish` (state/publish.rs): seeds 2
//! and 3.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::actors::cast::{MEMBERS, SHARED_PUBLISHERS};
use crate::sim::history::{ConnId, Entry, Event, MessageId};

/// How long a disturbance has an effect beyond its end: whoever was cut off may have to find out.
const AFTERMATH_MS: u64 = 5_000;

#[derive(Default)]
pub struct Shared {
    /// Who got it first: the connection and the client, and when.
    got: BTreeMap<MessageId, (ConnId, &'static str, u64)>,
    active: usize,
    /// The last moment at which something was lost.
    disturbed_ms: u64,
}

impl Shared {
    fn delivered(&mut self, entry: &Entry, message: MessageId, qos: u8) -> Option<String> {
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
            Event::Crashed { .. } | Event::LifeEnded { .. } => self.disturbed_ms = entry.at_ms,
            Event::Closed { .. }
                if MEMBERS.contains(&entry.client) || SHARED_PUBLISHERS.contains(&entry.client) =>
            {
                self.disturbed_ms = entry.at_ms;
            }
            Event::Delivered { message, qos, new: true, .. } if MEMBERS.contains(&entry.client) => {
                return self.delivered(entry, message, qos);
            }
            _ => {}
        }
        None
    }
}
