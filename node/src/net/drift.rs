//! How long an event loop's turns take: so long a client waits that has just missed one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::env::{self, Instant};

/// The loop is waiting for events.
const IDLE: u64 = u64::MAX;

/// Told by the loop, asked by anybody.
#[derive(Debug)]
pub(super) struct Drift {
    base: Instant,
    /// When the present turn began, microseconds from `base`.
    began_us: AtomicU64,
    /// The longest turn since it was last asked for.
    longest_us: AtomicU64,
}

impl Drift {
    pub fn new() -> Self {
        Self { base: env::now(), began_us: AtomicU64::new(IDLE), longest_us: AtomicU64::new(0) }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_micros()).unwrap_or(IDLE - 1)
    }

    /// A turn begins.
    pub fn turn_begins(&self) {
        self.began_us.store(self.now_us(), Ordering::Relaxed);
    }

    /// A turn has ended: the loop will look for events.
    pub fn turn_ends(&self) {
        let took_us = self.now_us().saturating_sub(self.began_us.swap(IDLE, Ordering::Relaxed));
        self.longest_us.fetch_max(took_us, Ordering::Relaxed);
    }

    /// The longest turn since this was last asked, one that goes on included.
    pub fn take(&self) -> Duration {
        let going_on_us = match self.began_us.load(Ordering::Relaxed) {
            IDLE => 0,
            began_us => self.now_us().saturating_sub(began_us),
        };
        Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed).max(going_on_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_counts_even_while_it_goes_on() {
        let drift = Drift::new();
        assert_eq!(drift.take(), Duration::ZERO);
        let pause = Duration::from_millis(20);
        drift.turn_begins();
        std::thread::sleep(pause);
        assert!(drift.take() >= pause);
        drift.turn_ends();
        drift.turn_begins();
        drift.turn_ends();
        assert!(drift.take() >= pause, "not the last, the longest");
        assert!(drift.take() < pause);
    }
}
