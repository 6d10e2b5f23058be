//! The topic index: which filters match a topic. Pure.
//!
//! Filters without wildcards live in a hash map, the others in a trie over interned words: a
//! topic costs one hash look-up as long as nobody uses wildcards.
//!
//! Filters and topic names are taken as valid: the wire format's decoder has checked them.

mod filter;
mod index;
#[cfg(test)]
mod tests;
mod trie;

pub use filter::{filter_matches, is_wildcard, split_shared};
pub use index::Index;
