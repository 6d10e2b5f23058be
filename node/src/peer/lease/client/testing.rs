//! A lease in a test's hand: no leader, no task and no clock, only what the test says.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::peer::PeerChannel;
use crate::peer::lease::Live;

/// Nobody leads, and nobody can be reached.
struct Nobody;

impl LeaseHost for Nobody {
    fn me(&self) -> (NodeId, Epoch) {
        (0, 0)
    }

    fn leader(&self) -> Option<NodeId> {
        None
    }

    fn leading(&self) -> Option<u64> {
        None
    }

    fn heard_leaders(&self, _: u64) -> Option<u64> {
        None
    }

    fn term_applied(&self) -> bool {
        false
    }

    fn committed(&self) -> LogIndex {
        0
    }

    fn live(&self) -> Vec<Live> {
        Vec::new()
    }

    fn quorum_round(&self) -> BoxFuture<'static, bool> {
        std::future::ready(false).boxed()
    }

    fn propose_down(&self, _: NodeId, _: Epoch, _: u64) {}

    fn flush(&self) {
        crate::session::flush();
    }
}

impl Dial for Nobody {
    fn bulk(&self, _: NodeId) -> Option<PeerChannel> {
        None
    }

    fn consensus(&self, _: NodeId) -> Option<PeerChannel> {
        None
    }
}

impl Lease {
    /// Lapsed until [`Self::grant`].
    pub(crate) fn in_hand() -> Arc<Self> {
        let (host, times) = (Arc::new(Nobody), LeaseTimes::default());
        let (applied, told) = watch::channel(0);
        let core = Core::new(host.clone(), times, told);
        let shared = Shared::new(host.clone(), times, host, core.clone(), applied);
        Arc::new(Self { shared, core, shutdown: watch::channel(false).1 })
    }

    /// From now on it holds.
    pub(crate) fn grant(&self) {
        self.shared.deadline_ms.store(u64::MAX, Ordering::Release);
        self.shared.tell_ready();
    }

    /// It has run out.
    pub(crate) fn lapse(&self) {
        self.shared.deadline_ms.store(0, Ordering::Release);
    }

    /// The leader says that every live node has applied the log up to `index`.
    pub(crate) fn learn(&self, index: LogIndex) {
        self.shared.advance(index);
    }
}

mod tests {
    use super::*;

    fn granted(lease: &Lease, epoch: Epoch, sent_ms: u64) {
        let mut asked = Asked::default();
        asked.renewals.push_back((1, epoch, sent_ms));
        let answer = LeaseAnswer::Granted as i32;
        lease.shared.granted(&LeaseGrant { renewal: 1, answer, min_applied: 0 }, &mut asked);
    }

    /// A grant was under way for longer than it lasts, or the node slept before it read it. Fails
    /// if `Shared::renewed` counts from now.
    #[test]
    fn a_grant_counts_from_when_it_was_asked_for() {
        let (times, now_ms) = (LeaseTimes::default(), env::boot_ms());
        let lease = Lease::in_hand();
        granted(&lease, 1, now_ms - times.fence_ms);
        assert!(!lease.is_valid());
        granted(&lease, 1, now_ms);
        assert!(lease.is_valid());
        // One that was overtaken takes nothing away.
        granted(&lease, 1, now_ms - times.fence_ms);
        assert!(lease.is_valid());
    }

    /// A grant that was under way when the life ended is of no use to the next one. Fails if
    /// `renewed` does not ask what has ended.
    #[test]
    fn a_grant_of_an_ended_life_counts_for_nothing() {
        let lease = Lease::in_hand();
        lease.end_life(1);
        granted(&lease, 1, env::boot_ms());
        assert!(!lease.is_valid());
        granted(&lease, 2, env::boot_ms());
        assert!(lease.is_valid());
    }
}
