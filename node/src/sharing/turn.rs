//! What is remembered of a group from one choice to the next.

use serde::{Deserialize, Serialize};

use super::hash::stir;

/// What a choice may ask for and leave behind.
pub trait Memory {
    /// Whose turn it is, in `0..of`; the next one's afterwards. `of` is at least 1.
    fn next_turn(&mut self, of: u32) -> u32;
    fn random(&mut self) -> u64;
    /// The key of the slot that sticks; 0: none.
    fn stuck(&mut self) -> u64;
    fn stick(&mut self, key: u64);
}

/// The part of it that outlasts a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    next: u32,
    stuck: u64,
}

impl Turn {
    pub fn next_turn(&mut self, of: u32) -> u32 {
        let turn = self.next % of.max(1);
        self.next = (turn + 1) % of.max(1);
        turn
    }

    pub fn stuck(&self) -> u64 {
        self.stuck
    }

    pub fn stick(&mut self, key: u64) {
        self.stuck = key;
    }
}

/// Numbers that look random and follow from their seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draw(u64);

impl Draw {
    /// Of the command at this position of this entry of the log.
    pub fn of_command(index: u64, position: usize) -> Self {
        Self(stir(index ^ (position as u64).rotate_left(32)))
    }

    pub fn random(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        stir(self.0)
    }
}

/// A turn with numbers drawn from a seed.
impl Memory for (&mut Turn, &mut Draw) {
    fn next_turn(&mut self, of: u32) -> u32 {
        self.0.next_turn(of)
    }

    fn random(&mut self) -> u64 {
        self.1.random()
    }

    fn stuck(&mut self) -> u64 {
        self.0.stuck()
    }

    fn stick(&mut self, key: u64) {
        self.0.stick(key);
    }
}
