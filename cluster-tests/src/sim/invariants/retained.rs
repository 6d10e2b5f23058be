//! **Who subscribes sees what was retained.**
//!
//! A SUBSCRIBE that is sent, to any node, after a retained message got its PUBACK, and is granted,
//! brings that message or a later one of its topic. Acknowledging before every live node has
//! applied it, a lease that outlives its grant, or a SUBACK from a node that has fallen behind:
//! each shows an old one.

use crate::sim::actors::RETAINING_PUBLISHER;
use crate::sim::history::{Event, Log};

pub fn check(log: &Log) -> Vec<String> {
    let acknowledged = log.acknowledged(1);
    let mut found = Vec::new();
    for entry in &log.entries {
        let Event::Read { message, asked_ms } = &entry.event else { continue };
        let newest = acknowledged
            .iter()
            .filter(|(message, at_ms)| message.publisher == RETAINING_PUBLISHER && *at_ms < asked_ms)
            .map(|(message, _)| message.number)
            .max();
        if newest > message.as_ref().map(|message| message.number) {
            found.push(format!(
                "on connection {} a SUBSCRIBE at {asked_ms} ms saw {message:?} of what was acknowledged up to {newest:?}",
                entry.conn
            ));
        }
    }
    found
}
