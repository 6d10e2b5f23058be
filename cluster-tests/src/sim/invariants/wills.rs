//! **A will is published once, and when it is due.**
//!
//! Each connection of the mortal clients has a will of its own, and a witness counts them, exactly
//! once. A connection that had its CONNACK and did not end with a DISCONNECT fires its will: at the
//! end of a clean session at once, otherwise after its delay, unless the session was resumed before
//! [MQTT-3.1.3-9]. No will is published twice, none after a DISCONNECT that the cluster has taken
//! in, none before its delay is over. Excused is a connection whose node died under it: the cluster
//! may have ended it before its client knew.
//! Seen to fail with `WillFate::Discard` ignored in `release` (state/ownership.rs): seeds 2, 3 and 5;
//! with a will that is due when its session loses its owner, whatever its delay (`disown` in
//! state/session.rs): seeds 2 and 3; with the claims of a clean session dropped in `settle` without
//! firing: seeds 3 and 6; with a will that `expire` publishes and keeps: seeds 2 and 3.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use super::lives::Lives;
use crate::sim::actors::Phase;
use crate::sim::actors::cast::WITNESS;
use crate::sim::history::{ConnId, End, Entry, Event, MessageId, Testament};
use crate::sim::now_ms;
use crate::sim::world::World;

/// From the end of a connection until its will has reached the witness, its delay aside: keep-alive
/// (3 s), a dead node (3 s), and a witness that has to find that its own node is dead.
const TOLD_MAX_MS: u64 = 3_000 + 3_000 + 6_000;

#[derive(Default)]
pub struct Wills {
    lives: Lives,
    wills: BTreeMap<ConnId, Dying>,
    by_message: BTreeMap<MessageId, ConnId>,
    seen: BTreeSet<MessageId>,
    /// The newest connection attempt of a client.
    newest: BTreeMap<&'static str, ConnId>,
    calm_ms: Option<u64>,
}

/// A connection with a will.
struct Dying {
    will: Testament,
    granted: bool,
    end: Option<(End, u64)>,
    /// The broker still had it when the cluster's clock showed this.
    alive_ms: u64,
    next: Next,
}

/// The client's next attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    None,
    /// Without an answer.
    Asked,
    /// Its CONNACK came at that time, by the simulation's clock and by the cluster's, and said that
    /// the session was resumed.
    Resumed(u64, u64),
    /// The session was another, or a new one.
    Anew,
}

impl Dying {
    /// Whether the will must be published, whatever the cluster knew when.
    fn is_due(&self) -> bool {
        let abnormal = matches!(&self.end, Some((end, _)) if !matches!(end, End::Left | End::LeftUnheard));
        self.granted && abnormal && (self.will.delay_ms == 0 || matches!(self.next, Next::None | Next::Anew))
    }
}

impl Wills {
    fn asked(&mut self, entry: &Entry, will: Testament, alive_ms: u64) {
        if let Some(before) = self.newest.insert(entry.client, entry.conn)
            && let Some(before) = self.wills.get_mut(&before)
        {
            before.next = Next::Asked;
        }
        self.by_message.insert(will.message, entry.conn);
        let dying = Dying { will, granted: false, end: None, alive_ms, next: Next::None };
        self.wills.insert(entry.conn, dying);
    }

    fn connected(&mut self, entry: &Entry, session_present: bool, clock_ms: u64) {
        let Some(granted) = self.wills.get_mut(&entry.conn) else { return };
        granted.granted = true;
        let publisher = granted.will.message.publisher;
        let before = self.wills.range_mut(..entry.conn).rev().map(|(_, dying)| dying);
        let next = if session_present { Next::Resumed(entry.at_ms, clock_ms) } else { Next::Anew };
        if let Some(before) = before.into_iter().find(|dying| dying.will.message.publisher == publisher) {
            before.next = next;
        }
    }

    fn published(&mut self, entry: &Entry, message: MessageId, clock_ms: u64) -> Option<String> {
        if !self.seen.insert(message) {
            return Some(format!("wills: {message} was published twice"));
        }
        let conn = *self.by_message.get(&message)?;
        let dying = self.wills.get(&conn)?;
        if let Some((End::Left, left_ms)) = dying.end
            && self.lives.intact(conn, left_ms)
        {
            return Some(format!("wills: {message} was published after the DISCONNECT of connection {conn}"));
        }
        let due_ms = dying.alive_ms + dying.will.delay_ms;
        let (early, until_ms) = match dying.next {
            Next::None => (clock_ms < due_ms, entry.at_ms),
            Next::Resumed(at_ms, resumed_ms) => (resumed_ms < due_ms, at_ms),
            _ => (false, 0),
        };
        let early = early && dying.granted && dying.will.delay_ms > 0 && self.lives.intact(conn, until_ms);
        early.then(|| {
            format!(
                "wills: {message} of connection {conn} was not due before {due_ms} ms of the cluster's clock; then came {:?}",
                dying.next
            )
        })
    }

    fn missing(&self) -> impl Iterator<Item = (&ConnId, &Dying)> {
        self.wills.iter().filter(|(_, dying)| dying.is_due() && !self.seen.contains(&dying.will.message))
    }
}

impl Invariant for Wills {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        self.lives.see(entry);
        match &entry.event {
            Event::Asked { will: Some(will), clock_ms, .. } => self.asked(entry, *will, *clock_ms),
            Event::Connected { session_present, clock_ms, .. } => {
                self.connected(entry, *session_present, *clock_ms);
            }
            Event::Closed { end, alive_ms, .. } => {
                if let Some(dying) = self.wills.get_mut(&entry.conn) {
                    (dying.end, dying.alive_ms) = (Some((end.clone(), entry.at_ms)), *alive_ms);
                }
            }
            Event::Delivered { message, new: true, clock_ms, .. } if entry.client == WITNESS.client_id => {
                return self.published(entry, *message, *clock_ms);
            }
            Event::Phase(Phase::Calm) => self.calm_ms = Some(entry.at_ms),
            _ => {}
        }
        None
    }

    fn look(&mut self, _: &World) -> Option<String> {
        let calm_ms = self.calm_ms?;
        let late = self.missing().find(|(_, dying)| {
            let end_ms = dying.end.as_ref().map_or(0, |(_, end_ms)| *end_ms).max(calm_ms);
            now_ms() > end_ms + dying.will.delay_ms + TOLD_MAX_MS
        });
        late.map(|(conn, dying)| format!("wills: {} of connection {conn} is late", dying.will.message))
    }

    fn owed(&self, _: &World) -> Vec<String> {
        let missing = self.missing();
        missing
            .map(|(conn, dying)| format!("wills: {} of connection {conn} is missing", dying.will.message))
            .collect()
    }
}
