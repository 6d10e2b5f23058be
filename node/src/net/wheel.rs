//! When connections have to be looked at: a wheel of seconds for the many that are far off, a
//! heap for the few that are near.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use mio::Token;

/// Seconds the wheel spans; above the longest time between two looks.
const SECONDS: u64 = 128;
const SECOND_MS: u64 = 1000;

/// Entries are never removed; the owner recognises the ones that no longer count by their time.
#[derive(Debug)]
pub(super) struct Wheel {
    seconds: Vec<Vec<(u64, Token)>>,
    /// The second up to which the wheel was turned.
    turned: u64,
    near: BinaryHeap<Reverse<(u64, Token)>>,
}

impl Wheel {
    pub fn new() -> Self {
        Self { seconds: (0..SECONDS).map(|_| Vec::new()).collect(), turned: 0, near: BinaryHeap::new() }
    }

    /// The longest that may be asked for.
    pub const MAX_MS: u64 = (SECONDS - 2) * SECOND_MS;

    /// Asks for `token` at `at_ms`, at most [`Wheel::MAX_MS`] ahead.
    pub fn schedule(&mut self, at_ms: u64, token: Token) {
        let second = at_ms / SECOND_MS;
        if second <= self.turned {
            self.near.push(Reverse((at_ms, token)));
        } else {
            self.seconds[(second % SECONDS) as usize].push((at_ms, token));
        }
    }

    /// Turns to `now_ms` and adds what is due to `due`, each with the time it was asked for.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<(u64, Token)>) {
        while self.turned < now_ms / SECOND_MS {
            self.turned += 1;
            let second = &mut self.seconds[(self.turned % SECONDS) as usize];
            self.near.extend(second.drain(..).map(Reverse));
            // Rarely as many again.
            second.shrink_to(64);
        }
        while self.near.peek().is_some_and(|Reverse((at_ms, _))| *at_ms <= now_ms) {
            due.extend(self.near.pop().map(|Reverse(entry)| entry));
        }
    }

    /// The next time at which [`Wheel::advance`] may find something.
    pub fn next_ms(&self) -> u64 {
        let turn_ms = (self.turned + 1) * SECOND_MS;
        self.near.peek().map_or(turn_ms, |Reverse((at_ms, _))| turn_ms.min(*at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_when_it_was_asked_for_and_not_before() {
        let mut wheel = Wheel::new();
        let times = [0, 1, 999, 1000, 1500, 59_999, 60_000, 125_999];
        for (i, at_ms) in times.into_iter().enumerate() {
            wheel.schedule(at_ms, Token(i));
        }
        let mut seen = Vec::new();
        for now_ms in (0..=126_000).step_by(50) {
            let mut due = Vec::new();
            wheel.advance(now_ms, &mut due);
            for (at_ms, token) in due {
                assert_eq!(times[token.0], at_ms);
                assert!(at_ms <= now_ms && now_ms < at_ms + 50, "{at_ms} at {now_ms}");
                seen.push(token.0);
            }
            assert!(wheel.next_ms() > now_ms);
        }
        assert_eq!(seen.len(), times.len());
    }
}
