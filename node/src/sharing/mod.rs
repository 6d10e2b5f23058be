//! How the messages of a shared subscription are divided among its members. Pure: whoever asks
//! brings the members, a memory of earlier choices, and its randomness.
//!
//! ```text
//! strategy   the strategies, by name
//! rules      which group has which: a node's configuration
//! choose     one choice among slots with weights;  hash: keys and rendezvous hashing
//! turn       what is remembered from choice to choice
//! ```

mod choose;
mod hash;
mod rules;
mod strategy;
#[cfg(test)]
mod tests;
mod turn;

pub use choose::{Slot, choose};
pub use hash::{key_of, key_of_node};
pub use rules::{GroupRule, Sharing, glob};
pub use strategy::Strategy;
pub use turn::{Draw, Memory, Turn};
