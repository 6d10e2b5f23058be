//! **What is published after a SUBACK reaches the subscriber.**
//!
//! A clean subscriber whose connection stays up gets every message at QoS 1 and 2 that was sent, to
//! any node, after its SUBACK, and acknowledged. A SUBACK before the route is applied on every live
//! node, a node that acknowledges without a lease and does not know the route, a PUBACK before the
//! owner has taken the message over: each loses one. A connection is up as long as a node that has
//! a lease answers on it.
//! Seen to fail with a publish that is acknowledged as soon as its forwards are queued (`send_direct` in
//! broker/publish.rs): seeds 6, 10 and 37.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use super::lives::Lives;
use crate::sim::actors::cast::{self, EXPIRING_PUBLISHER, WATCHERS};
use crate::sim::history::{ConnId, Entry, Event, MessageId};

/// How far a node that has a lease may lag: by the lease (1.7 s) when it asked, at most the fencing
/// time (1.4 s) ago. Then what it was not granted again has to run out (1.7 s).
const LAG_MAX_MS: u64 = 5_000;

#[derive(Default)]
pub struct Subacked {
    lives: Lives,
    /// All that was acknowledged, in that order: when it was sent and acknowledged.
    acknowledged: Vec<(MessageId, u64, u64)>,
    watchers: BTreeMap<ConnId, Watcher>,
}

struct Watcher {
    filter: &'static str,
    since_ms: u64,
    got: BTreeSet<MessageId>,
    /// What was acknowledged so far is checked.
    checked: usize,
}

impl Subacked {
    /// The connection is up.
    fn check(&mut self, entry: &Entry) -> Option<String> {
        if !self.lives.intact(entry.conn, entry.at_ms) {
            self.watchers.remove(&entry.conn);
            return None;
        }
        let watcher = self.watchers.get_mut(&entry.conn)?;
        while let Some((message, sent_ms, at_ms)) = self.acknowledged.get(watcher.checked) {
            if at_ms + LAG_MAX_MS > entry.at_ms {
                break;
            }
            watcher.checked += 1;
            if *sent_ms > watcher.since_ms
                && cast::matches(watcher.filter, message.publisher)
                && !watcher.got.contains(message)
            {
                return Some(format!(
                    "subacked: {} on connection {}, subscribed at {} ms, did not get {message}, sent at {sent_ms} ms and acknowledged at {at_ms} ms",
                    entry.client, entry.conn, watcher.since_ms
                ));
            }
        }
        None
    }
}

impl Invariant for Subacked {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        self.lives.see(entry);
        match entry.event {
            // What is repeated at QoS 2 may have been published before, and what expires may be late.
            Event::Acknowledged { message, qos, sent_ms, again, .. }
                if (qos == 1 || !again) && message.publisher != EXPIRING_PUBLISHER =>
            {
                self.acknowledged.push((message, sent_ms, entry.at_ms));
            }
            Event::Subscribed { filter } if WATCHERS.iter().any(|(name, _)| *name == entry.client) => {
                let checked = self.acknowledged.len();
                let watcher = Watcher { filter, since_ms: entry.at_ms, got: BTreeSet::new(), checked };
                self.watchers.insert(entry.conn, watcher);
            }
            Event::Delivered { message, .. } => {
                if let Some(watcher) = self.watchers.get_mut(&entry.conn) {
                    watcher.got.insert(message);
                }
            }
            Event::Heard => return self.check(entry),
            Event::Closed { .. } => {
                self.watchers.remove(&entry.conn);
            }
            _ => {}
        }
        None
    }
}
