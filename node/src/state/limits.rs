//! Bounds of the replicated state. Every node must agree on them: they decide what `apply` keeps.
//! Those that are configured come with the node whose commands they bound, see [`NodeLimits`].

use serde::{Deserialize, Serialize};

/// What one node's clients may make the cluster keep. Said in the node's `NodeUp` and kept with
/// it, so that every node judges a command by the limits of the node it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLimits {
    /// Subscriptions of one persistent session.
    pub subscriptions_per_client: u32,
    /// Retained messages of the whole cluster, beyond which a message of this node is not retained.
    pub retained_messages: u32,
    /// Their bytes: topics, payloads, properties and publishers.
    pub retained_bytes: u64,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self { subscriptions_per_client: 100_000, retained_messages: 1_000_000, retained_bytes: 1 << 30 }
    }
}

/// Messages one persistent session may have waiting, those in flight included.
pub const QUEUE_MESSAGES_MAX: usize = 100_000;

/// Bytes of messages one persistent session may have waiting. A single message may be larger.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// How far beyond the client's Receive Maximum the queue is reserved for its owner, so that the
/// owner need not wait for the log between acknowledgements.
pub const RESERVE_AHEAD: u64 = 1024;

/// Packet ids are `1 + seq mod 65535`: what may be in flight must span fewer positions.
pub const IN_FLIGHT_SPAN_MAX: u64 = 65_534;

/// Expired retained messages that one `Tick` removes at most.
pub const RETAINED_EXPIRED_PER_TICK: usize = 1024;

/// Subscribers of one filter that a publishing node looks at to learn who is online; beyond it,
/// it takes every node for concerned.
pub const ONLINE_PROBE_MAX: usize = 64;

/// Claims or routes that one search for what is due visits at most.
pub const DUE_VISITS_MAX: usize = 100_000;
