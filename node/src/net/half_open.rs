//! Sockets in the order they came, to find the one that has awaited its CONNECT for longest.

use std::collections::VecDeque;

use mio::Token;

/// Entries beyond which those that no longer count are looked for.
const SWEEP_FROM: usize = 64;

/// Entries are not removed when a CONNECT comes; whoever asks says which still count.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    sockets: VecDeque<Token>,
    sweep_at: usize,
}

impl HalfOpen {
    /// One more, the youngest.
    pub fn push(&mut self, token: Token) {
        self.sockets.push_back(token);
    }

    /// The oldest that counts, which is forgotten with all before it.
    pub fn oldest(&mut self, counts: impl Fn(Token) -> bool) -> Option<Token> {
        std::iter::from_fn(|| self.sockets.pop_front()).find(|token| counts(*token))
    }

    /// Forgets what no longer counts, once that may be half of all.
    pub fn sweep(&mut self, counts: impl Fn(Token) -> bool) {
        if self.sockets.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.sockets.retain(|token| counts(*token));
            self.sockets.shrink_to(2 * self.sockets.len());
            self.sweep_at = 2 * self.sockets.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_counts_comes_first_and_the_rest_takes_no_room() {
        let mut all = HalfOpen::default();
        (0..10).for_each(|n| all.push(Token(n)));
        assert_eq!(all.oldest(|t| t.0 >= 3), Some(Token(3)));
        assert_eq!(all.oldest(|_| true), Some(Token(4)));
        assert_eq!(all.oldest(|_| false), None);
        for n in 0..100_000 {
            all.push(Token(n));
            all.sweep(|t| t.0.is_multiple_of(10_000));
        }
        assert!(all.sockets.len() < 2 * SWEEP_FROM, "{}", all.sockets.len());
        assert_eq!(all.oldest(|t| t.0.is_multiple_of(10_000)), Some(Token(0)));
    }
}
