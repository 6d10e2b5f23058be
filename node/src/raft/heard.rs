//! When leaders were last heard: what a new leader knows of those before it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Bounds how long ago an earlier leader can have had a quorum.
///
/// Whatever round of an earlier leader a quorum answered, one of those who answered is among the
/// quorum that elected the present one (Raft §5.2 and §6, membership changes included), and answered
/// nobody else after that. So the last moment at which any of these voters, this node with them, had
/// heard a leader is the last one at which such a round can have begun. Times are those of this
/// node's `env::boot_ms`.
pub struct Heard {
    /// By this node, which also hears itself.
    here_ms: AtomicU64,
    voters: Mutex<Voters>,
}

/// What those said who were asked for their vote.
#[derive(Default)]
struct Voters {
    term: u64,
    latest_ms: u64,
}

impl Heard {
    /// Of a node that starts now: what it heard before that, it has forgotten.
    pub fn new(now_ms: u64) -> Self {
        Self { here_ms: AtomicU64::new(now_ms), voters: Mutex::default() }
    }

    /// A leader's message has come, and may be answered after this; or this node, as the leader,
    /// is about to ask a quorum.
    pub fn here(&self, now_ms: u64) {
        self.here_ms.fetch_max(now_ms, Ordering::AcqRel);
    }

    /// How long ago that was, milliseconds. For a vote: to be asked after it was given.
    pub fn ago_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.here_ms.load(Ordering::Acquire))
    }

    /// A node that was asked for its vote in `term` has heard a leader at `at_ms`. To be called
    /// before the vote counts.
    pub fn by_voter(&self, term: u64, at_ms: u64) {
        let mut voters = self.voters.lock();
        if voters.term < term {
            *voters = Voters { term, latest_ms: 0 };
        }
        if voters.term == term {
            voters.latest_ms = voters.latest_ms.max(at_ms);
        }
    }

    /// When this node leads `term`: no round of an earlier leader, or of this one so far, began
    /// after this moment. `None`: nobody voted, so that nothing is known.
    pub fn before(&self, term: u64) -> Option<u64> {
        let voters = self.voters.lock();
        (voters.term == term).then(|| voters.latest_ms.max(self.here_ms.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_this_node_and_the_voters_counts() {
        let heard = Heard::new(100);
        assert_eq!(heard.before(3), None, "nobody has voted");
        heard.here(500);
        heard.here(400);
        assert_eq!(heard.ago_ms(700), 200);
        heard.by_voter(3, 450);
        assert_eq!(heard.before(3), Some(500));
        heard.by_voter(3, 650);
        heard.by_voter(3, 600);
        assert_eq!(heard.before(3), Some(650));
        heard.here(900);
        assert_eq!(heard.before(3), Some(900), "its own rounds as the leader");
    }

    #[test]
    fn votes_of_another_term_say_nothing() {
        let heard = Heard::new(0);
        heard.by_voter(3, 300);
        heard.by_voter(4, 200);
        assert_eq!(heard.before(4), Some(200));
        assert_eq!(heard.before(3), None);
        heard.by_voter(3, 900);
        assert_eq!(heard.before(4), Some(200), "a late answer to an older question");
    }
}
