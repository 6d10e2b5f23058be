//! **A client id has one owner.**
//!
//! Two connections may overlap for a moment: the CONNACK of the new one does not wait for the node
//! of the old one. But once both have their CONNACK and the fencing time has passed, only one of
//! them may still be acknowledged a publish or be delivered a message of the session. An `apply`
//! that does not close the owner it replaces, or a node that acknowledges without a lease, lets
//! both go on.
//! Seen to fail with `Effect::TakenOver` (broker/apply.rs) not closing the connection: seeds 4 and 9.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sim::history::{ConnId, Entry, Event, MessageId};

/// A node may lag by a lease (1.7 s) before it is refused another, and the last one it got serves
/// for the fencing time (1.4 s) after it was asked for; the rest is the clocks'.
const OVERLAP_MAX_MS: u64 = 1700 + 1400 + 300;

#[derive(Default)]
pub struct OneOwner {
    /// Per client id, its connections.
    conns: BTreeMap<&'static str, BTreeMap<ConnId, Owner>>,
    /// When a message was sent, as far as it was acknowledged.
    sent_ms: BTreeMap<MessageId, u64>,
}

struct Owner {
    since_ms: u64,
    /// The last time at which it is known to have owned the id, and by what.
    last: Option<(u64, String)>,
}

impl OneOwner {
    fn sign(&mut self, entry: &Entry, owned_ms: u64, did: String) -> Option<String> {
        let conns = self.conns.get_mut(entry.client)?;
        let since_ms = conns.get(&entry.conn)?.since_ms;
        let rival = conns.iter().filter(|(conn, _)| **conn != entry.conn).find_map(|(conn, other)| {
            let (last_ms, other_did) = other.last.as_ref()?;
            let both_ms = since_ms.max(other.since_ms);
            (*last_ms.min(&owned_ms) > both_ms + OVERLAP_MAX_MS).then(|| {
                format!(
                    "one owner: connections {} and {conn} both own {} since {both_ms} ms: one {did}, the other {other_did}, sent at {last_ms} ms",
                    entry.conn, entry.client
                )
            })
        });
        let owner = conns.get_mut(&entry.conn)?;
        if owner.last.as_ref().is_none_or(|(last_ms, _)| owned_ms > *last_ms) {
            owner.last = Some((owned_ms, did));
        }
        rival
    }
}

impl Invariant for OneOwner {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        match entry.event {
            Event::Connected { .. } => {
                let owner = Owner { since_ms: entry.at_ms, last: None };
                self.conns.entry(entry.client).or_default().insert(entry.conn, owner);
                None
            }
            // Whatever arrives may have been on its way for long: it was owned when the message was
            // sent, or later.
            Event::Acknowledged { message, sent_ms, .. } => {
                self.sent_ms.entry(message).or_insert(sent_ms);
                self.sign(entry, sent_ms, format!("was acknowledged {message}"))
            }
            Event::Delivered { message, .. } => {
                let sent_ms = *self.sent_ms.get(&message)?;
                self.sign(entry, sent_ms, format!("was delivered {message}"))
            }
            _ => None,
        }
    }
}
