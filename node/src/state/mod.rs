//! What the cluster agrees on, and how each committed command changes it. Pure and
//! deterministic: the same commands in the same order give the same state on every node.
//!
//! ```text
//! machine      which packs count; hands each command to
//! ├ nodes      lives (node, epoch) and which are up
//! ├ features   what all of them understand
//! ├ drain      which of them let their clients go, and where to
//! ├ wall       how long all nodes were down, by their wall clocks
//! ├ routes     filter → lives with clean subscribers
//! ├ ownership  claims, releases, wills, expiry ──► sessions ──► session ──► queue
//! ├ subscribe  subscriptions of persistent sessions ──► subscribers, shared
//! ├ publish    who queues a logged message, whom to wake
//! ├ divide     which member of a shared subscription gets it, and what waits for one
//! ├ retained   one message per topic
//! └ settings   users, rules and bans
//! query        what the nodes ask under a reader's lock
//! codec        packs as bytes;  snapshot: the state as bytes;  cow: how it is frozen
//! ```
//!
//! `sessions` (with `queue` and `subscribers`) and `routes` know nothing of each other; only
//! `publish` and `query` see both.

mod codec;
mod command;
mod cow;
mod divide;
mod drain;
mod features;
pub mod limits;
mod line;
mod machine;
mod nodes;
mod ownership;
mod parcel;
mod publish;
mod query;
mod queue;
mod replay;
mod retained;
mod routes;
mod session;
mod sessions;
mod settings;
mod shared;
mod snapshot;
mod subscribe;
mod subscribers;
#[cfg(test)]
mod tests;
mod wall;

pub use codec::PackError;
pub use command::*;
pub use drain::Drain;
pub use features::FEATURE_LEVEL;
pub use machine::State;
pub use nodes::NodeStatus;
pub use parcel::{Parcel, Shelf, Slot, Stock};
pub use query::{ClientInfo, Counts, Due, PublishMatch, SharedMatch, SweepCursor};
pub use queue::StoredPage;
pub use replay::{Replay, Replayed, Replays, Resumed};
pub use settings::{Ban, Change, Unchanged};
pub use snapshot::Frozen;

/// A node's identity: 64 random bits written to its disk at its first start.
pub type NodeId = u64;
/// Counts a node's starts; a higher one is a newer life of the same node.
pub type Epoch = u64;
/// Position in the replicated log.
pub type LogIndex = u64;
/// One life of a client id's ownership; grows with every claim in the cluster.
pub type Incarnation = u64;
/// Position in a persistent session's queue of deliveries at QoS 1 and 2.
pub type QueueSeq = u64;
