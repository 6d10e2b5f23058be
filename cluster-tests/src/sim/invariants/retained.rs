//! **Who subscribes sees what was retained.**
//!
//! A SUBSCRIBE that is sent, to any node, after a retained message got its PUBACK, and is granted,
//! brings that message or a later one of its topic. Acknowledging before every live node has
//! applied it, a lease that outlives its grant, or a SUBACK from a node that has fallen behind:
//! each shows an old one.
//! Seen to fail with the PUBACK of a retained message sent as soon as it is applied on its own node
//! (`Broker::logged` in broker/publish.rs): seeds 4, 10 and 55.

use super::Invariant;
use crate::sim::actors::cast::RETAINING_PUBLISHER;
use crate::sim::history::{Entry, Event};

#[derive(Default)]
pub struct Retained {
    /// When the newest number so far was acknowledged; both grow.
    acknowledged: Vec<(u64, u64)>,
}

impl Invariant for Retained {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        match &entry.event {
            Event::Acknowledged { message, .. }
                if message.publisher == RETAINING_PUBLISHER
                    && self.acknowledged.last().is_none_or(|(_, number)| message.number > *number) =>
            {
                self.acknowledged.push((entry.at_ms, message.number));
                None
            }
            Event::Read { message, asked_ms } => {
                let before = self.acknowledged.partition_point(|(at_ms, _)| at_ms < asked_ms);
                let newest = self.acknowledged[..before].last().map(|(_, number)| *number);
                let old = newest > message.as_ref().map(|message| message.number);
                old.then(|| {
                    format!(
                        "retained: on connection {} a SUBSCRIBE at {asked_ms} ms saw {message:?} of what was acknowledged up to {newest:?}",
                        entry.conn
                    )
                })
            }
            _ => None,
        }
    }
}
