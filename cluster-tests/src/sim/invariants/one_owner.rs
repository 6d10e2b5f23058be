//! **A client id has one owner.**
//!
//! Two connections may overlap for a moment: the CONNACK of the new one does not wait for the node
//! of the old one. But once both have their CONNACK and the fencing time has passed, only one of
//! them may still be acknowledged a publish or be delivered a message of the session. An `apply`
//! that does not close the owner it replaces, or a node that acknowledges without a lease, lets
//! both go on. Seen to fail with `Effect::TakenOver` not closing the connection: seeds 1 and 2.

use std::collections::BTreeMap;

use crate::sim::history::{ConnId, Event, Log};

/// A node may lag by a lease (1.8 s) before it is refused another, and the last one it got serves
/// for the fencing time (1.4 s) after it was asked for; the rest is the network's.
const OVERLAP_MAX_MS: u64 = 1800 + 1400 + 300;

pub fn check(log: &Log) -> Vec<String> {
    let mut connected: BTreeMap<ConnId, u64> = BTreeMap::new();
    // The last sign of ownership on each connection.
    let mut last: BTreeMap<ConnId, (u64, String)> = BTreeMap::new();
    for entry in &log.entries {
        match &entry.event {
            Event::Connected { .. } => {
                connected.insert(entry.conn, entry.at_ms);
            }
            Event::Acknowledged { message, .. } => {
                last.insert(entry.conn, (entry.at_ms, format!("was acknowledged {message}")));
            }
            Event::Delivered { message, .. } => {
                last.insert(entry.conn, (entry.at_ms, format!("was delivered {message}")));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (a, (a_ms, a_did)) in &last {
        for (b, (b_ms, b_did)) in last.range(a + 1..) {
            let both_ms = connected[a].max(connected[b]);
            if log.client(*a) == log.client(*b) && *a_ms.min(b_ms) > both_ms + OVERLAP_MAX_MS {
                found.push(format!(
                    "{}: connections {a} and {b} both own it since {both_ms} ms: one {a_did} at {a_ms} ms, the other {b_did} at {b_ms} ms",
                    log.client(*a)
                ));
            }
        }
    }
    found
}
