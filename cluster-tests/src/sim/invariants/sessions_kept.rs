//! **A persistent session is there when its client comes back.**
//!
//! After the first CONNACK of a client id whose session outlives its connections, each CONNECT sent
//! later is told that the session is present. A claim that is granted before it is committed, or a takeover
//! that starts afresh, says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::actors;
use crate::sim::history::{Event, Log};

pub fn check(log: &Log) -> Vec<String> {
    let persistent: BTreeSet<&str> =
        actors::sessions().map(|(client, _)| client).chain(actors::QOS2_PUBLISHERS).collect();
    let mut known: BTreeMap<&str, u64> = BTreeMap::new();
    let mut found = Vec::new();
    for entry in &log.entries {
        if let Event::Connected { client, node, session_present, asked_ms } = &entry.event
            && persistent.contains(client.as_str())
            && *known.entry(client).or_insert(entry.at_ms) < *asked_ms
            && !session_present
        {
            found.push(format!("n{node} had no session for {client} at {} ms", entry.at_ms));
        }
    }
    found
}
