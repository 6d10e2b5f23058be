//! One persistent session.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::{QueueLimits, RESERVE_AHEAD, RESERVED_MAX, SHARED_AHEAD};
use super::nodes::LifeId;
use super::parcel::{Parcel, Stock};
use super::queue::{Entry, Extra, Queue};
use super::replay::{Replay, Replayed, Replays};
use super::retained::Retained;
use super::subscribers::Sub;
use super::{Incarnation, Will};
use crate::mqtt::Message;

/// A moment that never comes.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub incarnation: Incarnation,
    /// The life that has the connection; it may be over and not yet swept.
    pub owner: Option<LifeId>,
    /// Session Expiry Interval, seconds; `u32::MAX`: never.
    pub expiry_s: u32,
    pub receive_maximum: u16,
    /// Without an owner: when the session ends.
    pub expires_at_ms: u64,
    /// With an owner: the connection's will. Without: one that waits for `will_at_ms`.
    pub will: Option<Arc<Will>>,
    /// Without an owner: when the will fires.
    pub will_at_ms: u64,
    pub subs: BTreeMap<Box<str>, Sub>,
    pub queue: Queue,
    /// Retained messages that are still to be queued.
    pub replaying: Option<Box<Replaying>>,
    /// Packet ids of the client's own QoS 2 publishes that were not released yet.
    pub received: BTreeSet<u16>,
}

/// Retained messages on their way into a session's queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replaying {
    pub replays: Replays,
    /// The owner has been asked for a `Command::Replay` that has not come.
    pub asked: bool,
}

impl Session {
    pub(super) fn new(incarnation: Incarnation, receive_maximum: u16) -> Self {
        Self {
            incarnation,
            owner: None,
            expiry_s: 0,
            receive_maximum,
            expires_at_ms: NEVER,
            will: None,
            will_at_ms: NEVER,
            subs: BTreeMap::new(),
            queue: Queue::default(),
            replaying: None,
            received: BTreeSet::new(),
        }
    }

    /// The connection ended at `at_ms`: the session's time, and that of the will left in it,
    /// begin to run. The will fires after its delay or when the session ends, whichever comes
    /// first [MQTT-3.1.3.2.2].
    pub(super) fn disown(&mut self, at_ms: u64) {
        self.owner = None;
        self.expires_at_ms = after(at_ms, self.expiry_s);
        self.will_at_ms = match &self.will {
            Some(will) => at_ms.saturating_add(u64::from(will.delay_s) * 1000).min(self.expires_at_ms),
            None => NEVER,
        };
    }

    /// When something is due without any command of a client.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let at = self.expires_at_ms.min(self.will_at_ms);
        (self.owner.is_none() && at != NEVER).then_some(at)
    }

    /// Whether retained messages are to be queued now.
    pub(super) fn is_hungry(&self, limits: &QueueLimits) -> bool {
        self.replaying.is_some() && self.queue.has_room_for_retained(limits)
    }

    /// Replaces the filter's replay: `None` ends it.
    pub(super) fn set_replay(&mut self, filter: &str, replay: Option<Replay>) {
        if replay.is_some() || self.replaying.is_some() {
            let replaying = self.replaying.get_or_insert_default();
            replaying.replays.set(filter, replay);
            if replaying.replays.is_empty() {
                self.replaying = None;
            }
        }
    }

    /// What the owner was asked for has come, or the owner is another.
    pub(super) fn answer_replay(&mut self) {
        if let Some(replaying) = &mut self.replaying {
            replaying.asked = false;
        }
    }

    /// Queues retained messages that the session is to get, as long as its queue should hold more
    /// of them and `visits` last.
    pub(super) fn queue_retained(
        &mut self,
        retained: &Retained,
        client: &str,
        stock: &Arc<Stock>,
        limits: &QueueLimits,
        clock_ms: u64,
        visits: &mut usize,
    ) {
        let Self { replaying: Some(replaying), queue, .. } = self else { return };
        let replays = &mut replaying.replays;
        retained.resume(replays, client, clock_ms, visits, &mut |replayed| {
            let has_room = queue.has_room_for_retained(limits);
            if has_room {
                queue.push_retained(entry(replayed, stock));
            }
            has_room
        });
        if replays.is_empty() {
            self.replaying = None;
        }
    }

    /// Queues what it has still to be given of a topic's retained message, before a newer message
    /// of that topic is queued. (One with RETAIN has replaced it.)
    pub(super) fn queue_retained_of(
        &mut self,
        newer: &Message,
        retained: &Retained,
        client: &str,
        stock: &Arc<Stock>,
        limits: &QueueLimits,
        clock_ms: u64,
    ) {
        let Self { replaying: Some(replaying), queue, .. } = self else { return };
        if newer.retain {
            return;
        }
        retained.catch_up(&mut replaying.replays, &newer.topic, client, clock_ms, &mut |replayed| {
            queue.accepts(replayed.message.size_bytes(), limits, clock_ms)
                && queue.push(entry(replayed, stock), limits, clock_ms)
        });
    }

    /// Whether the client has room for a message of a shared subscription that any member may get.
    pub(super) fn has_credit(&self) -> bool {
        self.queue.len() < usize::from(self.receive_maximum) + SHARED_AHEAD
    }

    /// The filters of its shared subscriptions.
    pub(super) fn shared_filters(&self) -> impl Iterator<Item = &str> {
        // '0' follows '/'.
        let bounds = (Bound::Included("$share/"), Bound::Excluded("$share0"));
        self.subs.range::<str, _>(bounds).map(|(filter, _)| &**filter)
    }

    /// How many deliveries may have a position: the client's own window and some beyond it.
    pub(super) fn reserved_max(&self) -> usize {
        (usize::from(self.receive_maximum) + RESERVE_AHEAD).min(RESERVED_MAX)
    }
}

fn entry(replayed: Replayed<'_>, stock: &Arc<Stock>) -> Entry {
    let ids = std::iter::once(replayed.subscription_id).filter(|id| *id != 0).collect();
    let parcel = Parcel::new(Arc::clone(replayed.message), stock);
    Entry::new(parcel, replayed.qos, true, Extra { ids, ..Extra::default() })
}

/// `at_ms` plus an expiry interval in seconds.
pub(super) fn after(at_ms: u64, expiry_s: u32) -> u64 {
    if expiry_s == u32::MAX { NEVER } else { at_ms.saturating_add(u64::from(expiry_s) * 1000) }
}
