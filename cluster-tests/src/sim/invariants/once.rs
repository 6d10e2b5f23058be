//! **QoS 2 is delivered once.**
//!
//! What was published at QoS 2, by a client that goes on with its handshakes where they were, comes
//! to a QoS 2 subscription once, counted as the standard's receiver counts [MQTT-4.3.3-10]. A
//! broker that forgets a packet id it received, or gives a delivery another packet id after a
//! failover, delivers twice.
//! Seen to fail without the look at `session.received` in `logged_publish` (state/publish.rs): seeds 7,
//! 8 and 11.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::actors::cast::{QOS2_PUBLISHERS, TWO};
use crate::sim::history::{Entry, Event, MessageId};

#[derive(Default)]
pub struct Once {
    got: BTreeMap<MessageId, u64>,
}

impl Invariant for Once {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        let Event::Delivered { message, new: true, .. } = entry.event else { return None };
        if entry.client != TWO.client_id || !QOS2_PUBLISHERS.contains(&message.publisher) {
            return None;
        }
        let before_ms = self.got.insert(message, entry.at_ms)?;
        Some(format!("once: {} got {message} at {before_ms} ms and again", entry.client))
    }
}
