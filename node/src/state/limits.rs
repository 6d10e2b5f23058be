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
    /// What one persistent session may have waiting.
    pub queue: QueueLimits,
}

/// Bounds of a persistent session's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLimits {
    /// Messages that wait or are in flight.
    pub messages: u32,
    /// Their bytes: topics, payloads, properties and publishers. A single message may be larger.
    pub bytes: u64,
    pub when_full: WhenFull,
}

/// What becomes of messages that exceed a persistent session's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenFull {
    /// The oldest that was not sent makes room.
    DropOldest,
    /// The new one is not queued; a publisher whose message nobody else gets is told.
    Refuse,
}

impl QueueLimits {
    pub(super) fn are_exceeded_by(&self, messages: usize, bytes: usize) -> bool {
        messages > self.messages as usize || bytes as u64 > self.bytes
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { messages: 100_000, bytes: 64 << 20, when_full: WhenFull::DropOldest }
    }
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            subscriptions_per_client: 100_000,
            retained_messages: 1_000_000,
            retained_bytes: 1 << 30,
            queue: QueueLimits::default(),
        }
    }
}

/// How far beyond the client's Receive Maximum the queue is reserved for its owner, so that the
/// owner need not wait for the log between acknowledgements.
pub const RESERVE_AHEAD: usize = 1024;

/// Packet ids are `1 + seq mod 65535`: so many consecutive positions have different ones.
pub const PACKET_IDS: u64 = 65_535;

/// Deliveries of one session that may have a packet id at the same time.
pub const RESERVED_MAX: usize = PACKET_IDS as usize - 1;

/// Bytes of queued messages that are brought back into memory at a time for one session; a single
/// message may be larger.
pub const BRING_BYTES: usize = 1 << 20;

/// How many messages beyond its Receive Maximum a session may have incomplete and still be given
/// those of shared subscriptions: what its owner sends while acknowledgements are on their way
/// through the log. More would wait in one member's queue while another is free.
pub const SHARED_AHEAD: usize = 64;

/// Messages that wait for a member of one shared subscription and are handed out by one command.
pub const HANDED_OUT_MAX: usize = 1024;

/// How many members of a shared subscription may refuse a message, where it then goes to another
/// one. Then it is discarded: it would go round for ever.
pub const MOVES_MAX: u8 = 8;

/// Expired retained messages that one `Tick` removes at most.
pub const RETAINED_EXPIRED_PER_TICK: usize = 1024;

/// Retained topics that one step of a client's replays, or of a listing, looks at: nobody waits
/// longer than that for the state.
pub const REPLAY_VISITS_MAX: usize = 1024;

/// Deliveries waiting in a session's queue below which it is given more retained messages, up to
/// as many: enough that its client need not wait for them, and far from the queue's own bound.
pub const REPLAY_BELOW: usize = 256;

/// Bytes of a session's queue from which on it is given no more retained messages for now.
pub const REPLAY_BELOW_BYTES: usize = 8 << 20;

/// Topics of one replay whose retained message was given early. Beyond it, a newer message of yet
/// another topic is delivered before the topic's retained one.
pub const REPLAY_EARLY_MAX: usize = 4096;

/// Subscribers of one filter that a publishing node looks at to learn who is online; beyond it,
/// it takes every node for concerned.
pub const ONLINE_PROBE_MAX: usize = 64;

/// What a node said of its wall clock counts after a stop of all nodes if it said so at most this
/// long before, by the replicated clock, milliseconds. Whoever left earlier is not waited for.
pub const WITNESS_AGE_MAX_MS: u64 = 600_000;

/// After a node's return it may take so long, by the replicated clock, to find out whether others
/// went on meanwhile and what their wall clocks say, milliseconds. Longer than a lease: lives that
/// are over are declared down by then.
pub const RESTART_PATIENCE_MS: u64 = 5_000;

/// Users, rules and bans of the cluster.
pub const USERS_MAX: usize = 1_000_000;
pub const RULES_MAX: usize = 10_000;
pub const BANS_MAX: usize = 100_000;

/// Bans that are over and forgotten by one `Tick` at most.
pub const BANS_LIFTED_PER_TICK: usize = 1024;

/// Claims or routes that one search for what is due visits at most: it keeps `apply` waiting.
pub const DUE_VISITS_MAX: usize = 20_000;
