//! **No acknowledged message is lost to a persistent session.**
//!
//! Every message that was published after a session's SUBACK and got its PUBACK or PUBREC reaches
//! that session on some connection, whatever crashed in between. Acknowledging before the quorum
//! has synced, an `apply` that misses a session, a lost queue in a snapshot, a route that is not
//! live everywhere at the SUBACK: each loses one. Judged when faults have ended and time was given.
//! Seen to fail with a logged publish that `send_logged` (broker/publish.rs) acknowledges before it is
//! committed: seeds 1 and 8.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::sim::actors::cast::{self, Subscriber};
use crate::sim::history::{Entry, Event, MessageId};
use crate::sim::world::World;

pub struct Delivered {
    sessions: Vec<Session>,
}

struct Session {
    who: Subscriber,
    subscribed_ms: Option<u64>,
    got: BTreeSet<MessageId>,
    /// Acknowledged and not got: when it was sent and when it was acknowledged.
    missing: BTreeMap<MessageId, (u64, u64)>,
}

impl Delivered {
    pub fn new(sessions: &[Subscriber]) -> Self {
        let session = |who: &Subscriber| Session {
            who: *who,
            subscribed_ms: None,
            got: BTreeSet::new(),
            missing: BTreeMap::new(),
        };
        Self { sessions: sessions.iter().map(session).collect() }
    }
}

impl Invariant for Delivered {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        for session in &mut self.sessions {
            let own = session.who.client_id == entry.client;
            match entry.event {
                Event::Subscribed { .. } if own => {
                    session.subscribed_ms.get_or_insert(entry.at_ms);
                }
                Event::Delivered { message, .. } if own => {
                    session.got.insert(message);
                    session.missing.remove(&message);
                }
                Event::Acknowledged { message, sent_ms, .. }
                    if cast::matches(session.who.filter, message.publisher)
                        && session.subscribed_ms.is_some_and(|since_ms| sent_ms > since_ms)
                        && !session.got.contains(&message) =>
                {
                    session.missing.entry(message).or_insert((sent_ms, entry.at_ms));
                }
                _ => {}
            }
        }
        None
    }

    fn owed(&self, _: &World) -> Vec<String> {
        let mut owed = Vec::new();
        for Session { who, subscribed_ms, missing, .. } in &self.sessions {
            if subscribed_ms.is_none() {
                owed.push(format!("delivered: {} could not subscribe", who.client_id));
            }
            owed.extend(missing.iter().map(|(message, (sent_ms, at_ms))| {
                format!(
                    "delivered: {} never got {message}, sent at {sent_ms} ms and acknowledged at {at_ms} ms",
                    who.client_id
                )
            }));
        }
        owed
    }
}
