//! **A persistent session is there when its client comes back.**
//!
//! After the first CONNACK of a client id whose session outlives its connections, each CONNECT sent
//! later is told that the session is present. A claim that is granted before it is committed, or a
//! takeover that starts afresh, says otherwise. Sessions that expire are in a file of their own.
//! Seen to fail with `settle` (state/ownership.rs) ending the session of a node that is down: seeds 1, 2
//! and 3.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::sim::actors::cast::{MEMBERS, QOS2_PUBLISHERS, SHARED_PUBLISHERS, Subscriber};
use crate::sim::history::{Entry, Event};

pub struct SessionsKept {
    persistent: BTreeSet<&'static str>,
    known: BTreeMap<&'static str, u64>,
}

impl SessionsKept {
    pub fn new(sessions: &[Subscriber]) -> Self {
        let mut persistent: BTreeSet<_> = sessions.iter().map(|s| s.client_id).collect();
        persistent.extend(QOS2_PUBLISHERS);
        persistent.extend([SHARED_PUBLISHERS[1], MEMBERS[0]]);
        Self { persistent, known: BTreeMap::new() }
    }
}

impl Invariant for SessionsKept {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        let Event::Connected { node, session_present, asked_ms, .. } = entry.event else { return None };
        if !self.persistent.contains(entry.client) {
            return None;
        }
        let known_ms = *self.known.entry(entry.client).or_insert(entry.at_ms);
        let lost = known_ms < asked_ms && !session_present;
        lost.then(|| format!("sessions kept: n{node} had no session for {}", entry.client))
    }
}
