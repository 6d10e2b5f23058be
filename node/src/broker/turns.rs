//! What this node remembers of the last choice in each shared subscription.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::env;
use crate::sharing::{Memory, Turn, key_of};

const SHARDS: usize = 16;
/// Shared subscriptions remembered per shard. Beyond, all of them are forgotten: turns begin anew.
const GROUPS_MAX: usize = 4096;

/// Turns by whole filter. Its locks are taken last of all, and for a moment.
#[derive(Default)]
pub struct Turns([Mutex<HashMap<Box<str>, Turn>>; SHARDS]);

impl Turns {
    pub fn of<'a>(&'a self, filter: &'a str) -> Remembered<'a> {
        Remembered { shard: &self.0[key_of(filter) as usize % SHARDS], filter }
    }
}

/// One shared subscription's turn; whoever chooses at the same time shares it.
pub struct Remembered<'a> {
    shard: &'a Mutex<HashMap<Box<str>, Turn>>,
    filter: &'a str,
}

impl Remembered<'_> {
    fn turn<R>(&self, f: impl FnOnce(&mut Turn) -> R) -> R {
        let mut turns = self.shard.lock();
        if let Some(turn) = turns.get_mut(self.filter) {
            return f(turn);
        }
        if turns.len() >= GROUPS_MAX {
            turns.clear();
        }
        f(turns.entry(self.filter.into()).or_default())
    }
}

impl Memory for Remembered<'_> {
    fn next_turn(&mut self, of: u32) -> u32 {
        self.turn(|turn| turn.next_turn(of))
    }

    fn random(&mut self) -> u64 {
        env::random_u64()
    }

    fn stuck(&mut self) -> u64 {
        self.turn(|turn| turn.stuck())
    }

    fn stick(&mut self, key: u64) {
        self.turn(|turn| turn.stick(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let turns = Turns::default();
        assert_eq!(
            (turns.of("a").next_turn(3), turns.of("a").next_turn(3), turns.of("b").next_turn(3)),
            (0, 1, 0)
        );
        for n in 0..SHARDS * GROUPS_MAX * 2 {
            turns.of(&n.to_string()).next_turn(2);
        }
        assert!(turns.0.iter().all(|shard| shard.lock().len() <= GROUPS_MAX));
    }
}
