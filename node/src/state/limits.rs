//! Bounds of the replicated state. Every node must agree on them: they decide what `apply` keeps.

/// Messages one persistent session may have waiting, those in flight included.
pub const QUEUE_MESSAGES_MAX: usize = 100_000;

/// Bytes of messages one persistent session may have waiting.
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
