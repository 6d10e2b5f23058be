//! One persistent session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::limits::{RESERVE_AHEAD, RESERVED_MAX};
use super::nodes::LifeId;
use super::queue::Queue;
use super::subscribers::Sub;
use super::{Incarnation, Will};

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
    /// Packet ids of the client's own QoS 2 publishes that were not released yet.
    pub received: BTreeSet<u16>,
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

    /// How many deliveries may have a position: the client's own window and some beyond it.
    pub(super) fn reserved_max(&self) -> usize {
        (usize::from(self.receive_maximum) + RESERVE_AHEAD).min(RESERVED_MAX)
    }
}

/// `at_ms` plus an expiry interval in seconds.
pub(super) fn after(at_ms: u64, expiry_s: u32) -> u64 {
    if expiry_s == u32::MAX { NEVER } else { at_ms.saturating_add(u64::from(expiry_s) * 1000) }
}
