//! **Each publisher's messages arrive in order.**
//!
//! Repetitions aside, what one publisher sent on one topic at one QoS comes to a session in that
//! order [MQTT-4.6.0-5]. A publish that overtakes another on its way to the log, or a queue that is
//! resumed from the wrong place, breaks it. Messages that were refused, and so sent again after
//! later ones, are excused; and only publishers count that repeat what is open on their next
//! connection before they send anything new.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::actors::{QOS1_PUBLISHERS, QOS2_PUBLISHERS};
use crate::sim::history::{Event, Log};

/// Sessions with one client.
const CLIENTS: [&str; 2] = ["one", "two"];

pub fn check(log: &Log) -> Vec<String> {
    let refused: BTreeSet<_> = log
        .entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Refused { message, .. } => Some(message),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    for client in CLIENTS {
        let mut seen = BTreeSet::new();
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        for (entry, message) in log.deliveries(client) {
            let repeats = QOS1_PUBLISHERS.iter().chain(&QOS2_PUBLISHERS).any(|p| *p == message.publisher);
            if !repeats || !seen.insert(message) {
                continue;
            }
            match newest.get(message.publisher.as_str()) {
                Some(before) if *before > message.number && !refused.contains(message) => {
                    found.push(format!(
                        "{client} got {message} at {} ms, after {}:{before}",
                        entry.at_ms, message.publisher
                    ));
                }
                _ => {
                    newest.insert(&message.publisher, message.number);
                }
            }
        }
    }
    found
}
