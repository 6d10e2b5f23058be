//! How fast one client may publish. Beyond it, it is not read for a while: nothing is lost, and
//! nothing is closed. Its keep-alive is suspended meanwhile.

use std::sync::Arc;

use super::Inbound;
use crate::overload::Bucket;
use crate::session::{Conn, Metric};

/// The longest that a client is not read at a time; a debt beyond it is forgiven.
const SLOWED_MAX_MS: u64 = 10_000;
const NANOS_PER_MS: u64 = 1_000_000;

/// What a client has published of late, where that is limited.
#[derive(Debug, Default)]
pub(super) struct Pace {
    messages: Bucket,
    bytes: Bucket,
}

impl Inbound {
    /// Counts a PUBLISH of so many bytes. If it is one too many, nothing more is processed for now.
    pub(super) fn keep_pace(&mut self, conn: &Arc<Conn>, bytes: usize, now_ms: u64) {
        if self.owes_ms(conn, 1, bytes as u64, now_ms) > 0 && !self.slowed {
            self.slowed = true;
            self.stalled = true;
            self.unchecked = true;
            conn.context().counters.increment(Metric::PublishersSlowed);
        }
    }

    /// How long the client is not to be read for what it has published, that included.
    fn owes_ms(&mut self, conn: &Arc<Conn>, messages: u64, bytes: u64, now_ms: u64) -> u64 {
        let limits = conn.limits();
        if limits.publish_rate.is_none() && limits.publish_bytes_rate.is_none() {
            return 0;
        }
        let Pace { messages: of_messages, bytes: of_bytes } = &mut self.rare.get_or_insert_default().pace;
        let (now_ns, most_ns) = (now_ms * NANOS_PER_MS, SLOWED_MAX_MS * NANOS_PER_MS);
        let spent =
            [(of_messages, limits.publish_rate, messages), (of_bytes, limits.publish_bytes_rate, bytes)];
        let owed_ns = spent
            .into_iter()
            .filter_map(|(bucket, rate, count)| Some(bucket.spend(rate?, now_ns, count, most_ns)))
            .max();
        owed_ns.unwrap_or(0).div_ceil(NANOS_PER_MS)
    }

    /// When to look again, if the client is slowed. If that is over, it asks to be attended to.
    pub(super) fn slowed_until_ms(&mut self, conn: &Arc<Conn>, now_ms: u64) -> Option<u64> {
        if !self.slowed {
            return None;
        }
        let owed_ms = self.owes_ms(conn, 0, 0, now_ms);
        if owed_ms == 0 {
            conn.wake();
        }
        (owed_ms > 0).then_some(now_ms + owed_ms)
    }

    /// Lets the client go on if it has waited long enough.
    pub(super) fn end_slowness(&mut self, conn: &Arc<Conn>, now_ms: u64) {
        if self.slowed && self.owes_ms(conn, 0, 0, now_ms) == 0 {
            self.slowed = false;
            // If it stays unread for its backlog, that begins now.
            self.since_ms = now_ms;
            self.unchecked = true;
        }
    }
}
