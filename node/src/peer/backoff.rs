//! Pauses between attempts to reach a peer.

use std::time::Duration;

use crate::env;

/// Doubles from `first_ms` to `last_ms`, with up to a quarter of jitter so that a restarted node
/// is not called by all its peers at the same instants.
pub(super) struct Backoff {
    first_ms: u64,
    last_ms: u64,
    next_ms: u64,
}

impl Backoff {
    pub(super) fn new(first_ms: u64, last_ms: u64) -> Self {
        Self { first_ms, last_ms, next_ms: first_ms }
    }

    pub(super) fn reset(&mut self) {
        self.next_ms = self.first_ms;
    }

    /// How long to wait before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let ms = self.next_ms;
        self.next_ms = (ms * 2).min(self.last_ms);
        Duration::from_millis(ms - env::random_below(ms / 4 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_last_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(20, 500);
        for expected in [20, 40, 80, 160, 320, 500, 500] {
            let pause = backoff.next().as_millis() as u64;
            assert!(pause <= expected && pause >= expected - expected / 4 - 1, "{pause} of {expected}");
        }
        backoff.reset();
        assert!(backoff.next().as_millis() <= 20);
    }
}
