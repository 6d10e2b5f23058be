//! This node's estimate of the cluster's clock.

use parking_lot::RwLock;

use crate::env::{self, Instant};

/// Between two ticks the clock is the last tick plus the time since it was applied here, but
/// never more than this beyond it: without a leader the cluster's clock stands still.
const AHEAD_MAX_MS: u64 = 5_000;

/// The replicated clock as this node sees it, milliseconds.
pub struct ClusterClock(RwLock<(u64, Instant)>);

impl ClusterClock {
    pub fn new() -> Self {
        Self(RwLock::new((0, env::now())))
    }

    /// The leader's clock stood at `clock_ms` in an entry just applied.
    pub fn ticked(&self, clock_ms: u64) {
        let mut last = self.0.write();
        if clock_ms != last.0 {
            *last = (clock_ms, env::now());
        }
    }

    pub fn now_ms(&self) -> u64 {
        let (clock_ms, at) = *self.0.read();
        let since = env::now().saturating_duration_since(at).as_millis() as u64;
        clock_ms + since.min(AHEAD_MAX_MS)
    }

    /// When something that may live `expiry_s` seconds from now expires; 0: never.
    pub fn expires_at_ms(&self, expiry_s: Option<u32>) -> u64 {
        expiry_s.map_or(0, |s| self.now_ms() + u64::from(s) * 1000)
    }
}

impl Default for ClusterClock {
    fn default() -> Self {
        Self::new()
    }
}
