//! Who is live, and what every live node has applied.
//!
//! Every node renews a lease with the leader. A renewal is granted only after the leader has
//! heard from a quorum since the request arrived, and counts for the node from the moment it
//! sent the request. So a node's own deadline (`fence_ms` after sending) always passes before
//! any leader, this one or the next, gives the node up (`lease_ms` after the last arrival, or
//! after the last moment at which an earlier leader can have had a quorum): a node that may have
//! been declared down knows it without being told.
//!
//! Renewals carry the applied index upwards and the minimum over the live nodes downwards, which
//! is how a node learns that everybody else has applied an entry too.

mod client;
mod service;
mod table;
#[cfg(test)]
mod tests;

use futures::future::BoxFuture;

pub use client::Lease;
pub use service::LeaseService;
pub use table::{Refusal, Renewal, Round, Table};

use crate::state::{Epoch, LogIndex, NodeId};

/// How long leases run. The same on all nodes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// From the arrival of a node's last granted renewal until the leader gives the node up.
    pub lease_ms: u64,
    /// From the sending of a node's last granted renewal until it acknowledges nothing more.
    pub fence_ms: u64,
    /// From one renewal to the next.
    pub renew_ms: u64,
    /// What a new leader waits at least for the first renewals, before it gives up who had a lease
    /// of an earlier leader.
    pub settle_ms: u64,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        // Promised is that what waits for a dead node waits for 1.8 s: the lease, and 100 ms to see
        // that it is over and to commit it. A new leader that is elected within 0.9 s of the old one's
        // death does not make it longer.
        Self { lease_ms: 1700, fence_ms: 1400, renew_ms: 300, settle_ms: 800 }
    }
}

/// Noticing an expired lease, agreeing on it and sweeping, at most, milliseconds.
pub const SWEEP_MS: u64 = 300;
/// What a lease exceeds the fence by at least, so that clocks of different speed cannot make a
/// node outlive the leader's patience, milliseconds.
pub const MARGIN_MS: u64 = 200;

impl LeaseTimes {
    /// From a node's death, the leader's included, until its wills have fired and its routes are
    /// gone, at worst, milliseconds. `election_ms`: the slowest election.
    pub fn worst_ms(&self, election_ms: u64) -> u64 {
        self.lease_ms.max(election_ms + self.settle_ms) + SWEEP_MS
    }

    /// Whether a node always knows that its lease is over before the leader gives it up, and a
    /// lost renewal does not cost the lease.
    pub fn are_consistent(&self) -> bool {
        self.fence_ms + MARGIN_MS <= self.lease_ms
            && self.renew_ms > 0
            && self.renew_ms * 2 <= self.fence_ms.min(self.settle_ms)
    }
}

/// One live epoch in this node's applied state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    pub node: NodeId,
    pub epoch: Epoch,
    /// Index of the entry that began the epoch. The epoch has nothing to do with entries before
    /// it. 0 is safe when unknown: others then wait for the epoch's first report.
    pub up_at: LogIndex,
}

/// What leases need from consensus and state. Called from tasks, some of it under a lock of the
/// lease's own; no method of [`Lease`] takes that lock, so the host may hold its locks while
/// calling them.
pub trait LeaseHost: Send + Sync + 'static {
    /// This node and its present life. A life may be reported before its `NodeUp` is applied;
    /// the leader then refuses until it is.
    fn me(&self) -> (NodeId, Epoch);
    /// The leader as far as this node knows.
    fn leader(&self) -> Option<NodeId>;
    /// The term this node leads, `None` while it does not.
    fn leading(&self) -> Option<u64>;
    /// When this node leads `term`: the last moment, in milliseconds of `env::boot_ms`, at which a
    /// round that a quorum answered can have begun under an earlier leader, and not before the last
    /// of this leader's own. `None`: unknown, so perhaps now.
    fn heard_leaders(&self, term: u64) -> Option<u64>;
    /// Of the term this node leads: an entry proposed in it has been applied here.
    fn term_applied(&self) -> bool;
    /// The last index known to be committed.
    fn committed(&self) -> LogIndex;
    /// The live epochs as of the last applied entry: never older than what [`Lease::applied`]
    /// was last told.
    fn live(&self) -> Vec<Live>;
    /// Asks a quorum, beginning after the call, whether this node still leads.
    fn quorum_round(&self) -> BoxFuture<'static, bool>;
    /// Proposes the end of a life, as the leader of `term`. The proposal must take effect only
    /// if it is appended in that very term: proposed again under another leader it could end a
    /// life whose lease that leader has renewed.
    fn propose_down(&self, node: NodeId, epoch: Epoch, term: u64);
    /// The lease is valid after it was not, for the first time or again.
    fn regained(&self) {}
    /// After each group of [`Lease::when_applied_everywhere`] callbacks: what they appended to
    /// outboxes is written.
    fn flush(&self) {}
}

/// Called once, with `true` when every live node has applied the index, with `false` when this
/// node's life ended before. Must not block.
pub type Everywhere = Box<dyn FnOnce(bool) + Send>;
