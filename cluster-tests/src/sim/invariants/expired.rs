//! **What has expired is gone, and nothing before.**
//!
//! A message with an expiry that has passed while its subscriber was away is not delivered
//! [MQTT-3.3.2-5]. A session is there until its expiry has passed since its client left, by the
//! cluster's clock, and not afterwards. Judged where the cluster knows that the client was away: it
//! left with DISCONNECT, its node was well, and its next attempt to connect succeeded.
//! Seen to fail with nothing that expires in a queue (`Entry::is_expired` in state/queue.rs and
//! session/deliver.rs): seeds 11 and 13; with sessions that `expire` ends two seconds late: seeds 4 and
//! 13; with a session expiry of half the time (`disown` in state/session.rs): seed 11.

use std::collections::BTreeMap;

use super::Invariant;
use super::lives::Lives;
use crate::sim::actors::cast::{EXPIRING_PUBLISHER, LAPSING, MESSAGE_EXPIRY_S, SESSION_EXPIRY_S};
use crate::sim::history::{ConnId, End, Entry, Event, MessageId};

/// An expiry is counted in whole milliseconds by clocks that go in steps of 1/4 s.
const SLACK_MS: u64 = 300;

#[derive(Default)]
pub struct Expired {
    lives: Lives,
    /// Of messages that expire: when they were sent, and by which time of the cluster's clock they
    /// are over.
    messages: BTreeMap<MessageId, (u64, u64)>,
    /// The last connection and how it left: when, and between which times of the cluster's clock.
    left: Option<(ConnId, u64, (u64, u64))>,
    away: Option<Away>,
}

/// The present connection, and its subscriber's absence before it.
struct Away {
    conn: ConnId,
    since_ms: u64,
    left_clock_ms: (u64, u64),
    /// The cluster's clock when it asked to be let in.
    asked_clock_ms: u64,
}

impl Expired {
    fn session(&self, entry: &Entry, present: bool, clock_ms: u64) -> Option<String> {
        let away = self.away.as_ref().filter(|away| away.conn == entry.conn)?;
        let expiry_ms = u64::from(SESSION_EXPIRY_S) * 1000;
        let (before_ms, after_ms) = away.left_clock_ms;
        if present && away.asked_clock_ms > after_ms + expiry_ms {
            return Some(format!(
                "expired: {} left by {after_ms} ms of the cluster's clock, and at {} ms its session was there",
                entry.client, away.asked_clock_ms
            ));
        }
        if !present && clock_ms < before_ms + expiry_ms {
            return Some(format!(
                "expired: {} left after {before_ms} ms of the cluster's clock, and at {clock_ms} ms its session was gone",
                entry.client
            ));
        }
        None
    }

    fn message(&self, entry: &Entry, message: MessageId) -> Option<String> {
        let away = self.away.as_ref().filter(|away| away.conn == entry.conn)?;
        let (sent_ms, over_ms) = self.messages.get(&message)?;
        (*sent_ms > away.since_ms && over_ms + SLACK_MS < away.asked_clock_ms).then(|| {
            format!(
                "expired: {message}, sent at {sent_ms} ms, expired at {over_ms} ms of the cluster's clock and came to {}, which was away from {} ms until {} ms of that clock",
                entry.client, away.since_ms, away.asked_clock_ms
            )
        })
    }
}

impl Invariant for Expired {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        self.lives.see(entry);
        let own = entry.client == LAPSING;
        match &entry.event {
            // What is sent again was perhaps queued before the subscriber left.
            Event::Acknowledged { message, sent_ms, again: false, latest_ms, .. }
                if message.publisher == EXPIRING_PUBLISHER =>
            {
                let over_ms = latest_ms + u64::from(MESSAGE_EXPIRY_S) * 1000;
                self.messages.insert(*message, (*sent_ms, over_ms));
            }
            Event::Asked { clock_ms, .. } if own => {
                let left = self.left.take().filter(|(conn, at_ms, _)| self.lives.intact(*conn, *at_ms));
                self.away = left.map(|(_, since_ms, left_clock_ms)| Away {
                    conn: entry.conn,
                    since_ms,
                    left_clock_ms,
                    asked_clock_ms: *clock_ms,
                });
            }
            Event::Connected { session_present, clock_ms, .. } if own => {
                return self.session(entry, *session_present, *clock_ms);
            }
            Event::Closed { end, clock_ms, .. } if own => {
                self.left = (*end == End::Left).then_some((entry.conn, entry.at_ms, *clock_ms));
            }
            Event::Delivered { message, .. } if own => return self.message(entry, *message),
            _ => {}
        }
        None
    }
}
