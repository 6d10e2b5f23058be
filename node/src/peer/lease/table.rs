//! The leader's record of leases. Pure: time comes in as an argument, in milliseconds of the
//! leader's clock.

use std::collections::{BTreeMap, VecDeque};

use super::{LeaseTimes, Live};
use crate::state::{Epoch, LogIndex, NodeId};

/// A leader that has not looked at its table for this long was not running, and may find
/// renewals of that time still unread.
const STALL_MS: u64 = 500;

/// The leases of one leader's term; a new term begins with a new table.
pub struct Table {
    times: LeaseTimes,
    /// The first moment at which leases granted by earlier leaders are over for certain, and who had
    /// one has had time to ask for another.
    patient_until_ms: u64,
    observed_ms: u64,
    nodes: BTreeMap<NodeId, Entry>,
    /// (time, committed index), oldest first; reaches back one lease and one sample more.
    history: VecDeque<(u64, LogIndex)>,
}

struct Entry {
    epoch: Epoch,
    expires_at_ms: u64,
    applied: LogIndex,
    down_proposed: bool,
}

/// A node's request to be granted a lease.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    pub node: NodeId,
    pub epoch: Epoch,
    /// The last index the node has applied.
    pub applied: LogIndex,
    pub arrived_ms: u64,
}

/// One question to a quorum whether this node still leads.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub began_ms: u64,
    pub succeeded: bool,
}

/// Why a lease was not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No quorum answered a round that began after the request had arrived.
    NoQuorum,
    /// The leader has not applied an entry of its own term: its state may be behind.
    NotReady,
    /// The epoch is not, or not yet, or no longer live.
    NotLive,
    /// The end of the epoch has been proposed.
    DeclaredDown,
    /// The node has not applied what was committed one lease earlier.
    Lagging,
}

impl Table {
    /// Of a leader whose term begins now, or began earlier. No lease that was granted by another
    /// leader, or by another table of this one, counts from after `heard_ms`.
    pub fn new(now_ms: u64, heard_ms: u64, times: LeaseTimes) -> Self {
        Self {
            times,
            patient_until_ms: (heard_ms.min(now_ms) + times.lease_ms).max(now_ms + times.settle_ms),
            observed_ms: now_ms,
            nodes: BTreeMap::new(),
            history: VecDeque::new(),
        }
    }

    /// Takes in what the leader's state says. To be called often, at least every [`STALL_MS`].
    pub fn observe(&mut self, now_ms: u64, live: &[Live], committed: LogIndex) {
        let gap_ms = now_ms.saturating_sub(self.observed_ms);
        if gap_ms > STALL_MS {
            // Patience beyond the lease harms nobody; giving up nodes that could not be heard does.
            self.patient_until_ms += gap_ms;
            for entry in self.nodes.values_mut() {
                entry.expires_at_ms += gap_ms;
            }
        }
        self.observed_ms = self.observed_ms.max(now_ms);

        self.nodes.retain(|node, entry| live.iter().any(|l| l.node == *node && l.epoch == entry.epoch));
        // Who is live from the first has the lease of an earlier leader, if any; a life that begins
        // later has a whole one to ask for it.
        let is_first = self.history.is_empty();
        let granted_ms = if is_first { 0 } else { now_ms + self.times.lease_ms };
        let expires_at_ms = self.patient_until_ms.max(granted_ms);
        for live in live {
            self.nodes.entry(live.node).or_insert(Entry {
                epoch: live.epoch,
                expires_at_ms,
                applied: live.up_at.saturating_sub(1),
                down_proposed: false,
            });
        }

        let newest = self.history.back().copied();
        if newest.is_none_or(|(at, index)| now_ms > at && committed >= index) {
            self.history.push_back((now_ms, committed));
        }
        let horizon_ms = now_ms.saturating_sub(self.times.lease_ms);
        while self.history.get(1).is_some_and(|(at, _)| *at <= horizon_ms) {
            self.history.pop_front();
        }
    }

    /// The node has applied the log up to `applied`; true if that is news.
    pub fn report(&mut self, node: NodeId, epoch: Epoch, applied: LogIndex) -> bool {
        match self.nodes.get_mut(&node) {
            Some(entry) if entry.epoch == epoch && entry.applied < applied => {
                entry.applied = applied;
                true
            }
            _ => false,
        }
    }

    /// Grants a lease from the request's arrival on. `ready`: the leader has applied an entry of
    /// its own term.
    ///
    /// # Errors
    /// See [`Refusal`]; the node has no new lease.
    pub fn renew(
        &mut self,
        now_ms: u64,
        ready: bool,
        renewal: &Renewal,
        round: &Round,
    ) -> Result<(), Refusal> {
        self.report(renewal.node, renewal.epoch, renewal.applied);
        let due = self.committed_one_lease_ago(now_ms);
        let entry = self.nodes.get_mut(&renewal.node).filter(|entry| entry.epoch == renewal.epoch);
        let entry = entry.ok_or(Refusal::NotLive)?;
        if entry.down_proposed {
            return Err(Refusal::DeclaredDown);
        }
        let expires_at_ms = entry.expires_at_ms.max(renewal.arrived_ms + self.times.lease_ms);
        let asked_in_time = round.succeeded && round.began_ms >= renewal.arrived_ms;
        if !ready || !asked_in_time {
            // The leader's own fault: the node is not granted a lease, but not given up either.
            entry.expires_at_ms = expires_at_ms;
            return Err(if ready { Refusal::NoQuorum } else { Refusal::NotReady });
        }
        if entry.applied < due {
            return Err(Refusal::Lagging);
        }
        entry.expires_at_ms = expires_at_ms;
        Ok(())
    }

    /// When the next epoch is to be given up, unless it renews its lease.
    pub fn first_expiry_ms(&self) -> Option<u64> {
        let waiting = self.nodes.values().filter(|e| !e.down_proposed);
        waiting.map(|e| e.expires_at_ms.max(self.patient_until_ms)).min()
    }

    /// The epochs whose lease has run out and that nobody has yet proposed to end.
    pub fn expired(&self, now_ms: u64) -> Vec<(NodeId, Epoch)> {
        if now_ms < self.patient_until_ms {
            return Vec::new();
        }
        let expired = |e: &Entry| !e.down_proposed && e.expires_at_ms <= now_ms;
        self.nodes.iter().filter(|(_, e)| expired(e)).map(|(node, e)| (*node, e.epoch)).collect()
    }

    /// From now on the epoch is never renewed. False, and nothing changed, unless its lease has
    /// (still) run out and this is the first call for it.
    pub fn declare_down(&mut self, now_ms: u64, node: NodeId, epoch: Epoch) -> bool {
        if now_ms < self.patient_until_ms {
            return false;
        }
        match self.nodes.get_mut(&node) {
            Some(e) if e.epoch == epoch && !e.down_proposed && e.expires_at_ms <= now_ms => {
                e.down_proposed = true;
                true
            }
            _ => false,
        }
    }

    /// Up to where every epoch of `live` has applied the log. An epoch has no part in what came
    /// before it; one that has not reported holds back everything from its beginning on.
    pub fn min_applied(&self, live: &[Live]) -> LogIndex {
        let applied = |live: &Live| match self.nodes.get(&live.node) {
            Some(entry) if entry.epoch == live.epoch => entry.applied,
            _ => live.up_at.saturating_sub(1),
        };
        live.iter().map(applied).min().unwrap_or(0)
    }

    fn committed_one_lease_ago(&self, now_ms: u64) -> LogIndex {
        let horizon_ms = now_ms.saturating_sub(self.times.lease_ms);
        self.history.iter().take_while(|(at, _)| *at <= horizon_ms).last().map_or(0, |(_, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: LeaseTimes = LeaseTimes { lease_ms: 1800, fence_ms: 1400, renew_ms: 300, settle_ms: 1000 };
    const A: Live = Live { node: 1, epoch: 10, up_at: 5 };
    const B: Live = Live { node: 2, epoch: 20, up_at: 6 };

    /// Leads since time 0, looked at every 100 ms up to `now_ms`.
    fn leading(now_ms: u64, committed: LogIndex) -> Table {
        let mut table = Table::new(0, 0, TIMES);
        pass(&mut table, 0, now_ms, committed);
        table
    }

    fn pass(table: &mut Table, from_ms: u64, to_ms: u64, committed: LogIndex) {
        for at in (from_ms..=to_ms).step_by(100) {
            table.observe(at, &[A, B], committed);
        }
        table.observe(to_ms, &[A, B], committed);
    }

    fn ask(arrived_ms: u64, applied: LogIndex) -> Renewal {
        Renewal { node: A.node, epoch: A.epoch, applied, arrived_ms }
    }

    fn ok(began_ms: u64) -> Round {
        Round { began_ms, succeeded: true }
    }

    #[test]
    fn a_round_begun_before_the_request_arrived_proves_nothing() {
        let mut table = leading(100, 7);
        assert_eq!(table.renew(130, true, &ask(120, 7), &ok(119)), Err(Refusal::NoQuorum));
        assert_eq!(table.renew(130, true, &ask(120, 7), &ok(120)), Ok(()));
    }

    #[test]
    fn a_failed_round_renews_nothing() {
        let mut table = leading(100, 7);
        let round = Round { began_ms: 125, succeeded: false };
        assert_eq!(table.renew(130, true, &ask(120, 7), &round), Err(Refusal::NoQuorum));
    }

    #[test]
    fn a_leader_that_lost_its_quorum_gives_nobody_up_who_went_on_asking() {
        let mut table = leading(2000, 7);
        let failed = Round { began_ms: 1990, succeeded: false };
        for (ready, round) in [(true, failed), (false, ok(1990))] {
            assert!(table.renew(2000, ready, &ask(1950, 7), &round).is_err());
            assert_eq!(table.expired(2000), [(B.node, B.epoch)]);
        }
        pass(&mut table, 2000, 3750, 7);
        assert!(table.expired(3750).contains(&(A.node, A.epoch)));
    }

    #[test]
    fn a_lease_runs_from_the_arrival_not_from_the_grant() {
        let mut table = leading(2000, 7);
        table.renew(2900, true, &ask(2000, 7), &ok(2500)).unwrap();
        table
            .renew(2900, true, &Renewal { node: B.node, epoch: B.epoch, ..ask(2900, 7) }, &ok(2900))
            .unwrap();
        pass(&mut table, 2000, 3799, 7);
        assert!(table.expired(3799).is_empty());
        assert_eq!(table.expired(3800), [(A.node, A.epoch)]);
    }

    #[test]
    fn a_new_leader_waits_until_it_has_applied_its_own_first_entry() {
        let mut table = leading(100, 7);
        assert_eq!(table.renew(130, false, &ask(120, 7), &ok(125)), Err(Refusal::NotReady));
    }

    #[test]
    fn a_new_leader_waits_for_the_leases_of_the_old_from_when_that_was_last_heard() {
        let mut table = Table::new(700, 100, TIMES);
        pass(&mut table, 700, 1899, 7);
        assert_eq!(table.first_expiry_ms(), Some(1900));
        assert!(table.expired(1899).is_empty());
        table.observe(1900, &[A, B], 7);
        assert_eq!(table.expired(1900).len(), 2);
    }

    #[test]
    fn a_leader_elected_late_gives_everybody_time_to_ask() {
        let mut table = Table::new(5000, 100, TIMES);
        pass(&mut table, 5000, 5500, 7);
        table.renew(5500, true, &ask(5490, 7), &ok(5495)).unwrap();
        pass(&mut table, 5500, 5999, 7);
        assert!(table.expired(5999).is_empty());
        table.observe(6000, &[A, B], 7);
        assert_eq!(table.expired(6000), [(B.node, B.epoch)]);
        assert!(!table.declare_down(6000, A.node, A.epoch));
    }

    #[test]
    fn a_leader_that_may_have_been_deposed_a_moment_ago_waits_a_full_lease() {
        let mut table = leading(1799, 7);
        assert!(table.expired(1799).is_empty());
        assert!(!table.declare_down(1799, A.node, A.epoch));
        table.observe(1800, &[A, B], 7);
        assert_eq!(table.expired(1800), [(A.node, A.epoch), (B.node, B.epoch)]);
    }

    #[test]
    fn a_life_that_begins_late_has_a_full_lease_to_say_something() {
        let mut table = Table::new(0, 0, TIMES);
        for at in (0..3000).step_by(100) {
            table.observe(at, &[], 7);
        }
        pass(&mut table, 3000, 4700, 7);
        assert!(table.expired(4799).is_empty());
        assert_eq!(table.expired(4800).len(), 2);
    }

    #[test]
    fn what_was_declared_down_is_never_renewed() {
        let mut table = leading(2000, 7);
        assert!(table.declare_down(2000, A.node, A.epoch));
        assert!(!table.declare_down(2000, A.node, A.epoch), "proposed once only");
        assert_eq!(table.expired(2000), [(B.node, B.epoch)]);
        // Its request was already waiting for a round when it was given up.
        assert_eq!(table.renew(2010, true, &ask(1990, 7), &ok(1995)), Err(Refusal::DeclaredDown));
        assert_eq!(table.renew(2100, true, &ask(2050, 7), &ok(2060)), Err(Refusal::DeclaredDown));
    }

    #[test]
    fn a_renewal_just_in_time_stops_the_declaration() {
        let mut table = leading(2000, 7);
        assert_eq!(table.expired(2000).len(), 2);
        table.renew(2010, true, &ask(2001, 7), &ok(2002)).unwrap();
        assert!(!table.declare_down(2011, A.node, A.epoch));
        assert!(table.declare_down(2011, B.node, B.epoch));
    }

    #[test]
    fn only_the_live_epoch_is_renewed() {
        let mut table = leading(100, 7);
        let older = Renewal { epoch: A.epoch - 1, ..ask(120, 7) };
        assert_eq!(table.renew(130, true, &older, &ok(125)), Err(Refusal::NotLive));
        let newer = Renewal { epoch: A.epoch + 1, ..ask(120, 7) };
        assert_eq!(table.renew(130, true, &newer, &ok(125)), Err(Refusal::NotLive));
        let next = Live { epoch: A.epoch + 1, up_at: 8, ..A };
        table.observe(140, &[next, B], 8);
        assert_eq!(table.renew(150, true, &newer, &ok(145)), Ok(()));
        assert_eq!(table.renew(150, true, &ask(141, 8), &ok(145)), Err(Refusal::NotLive));
    }

    #[test]
    fn a_new_life_is_not_burdened_by_what_was_proposed_for_the_old() {
        let mut table = leading(2000, 7);
        assert!(table.declare_down(2000, A.node, A.epoch));
        let next = Live { epoch: A.epoch + 1, up_at: 8, ..A };
        table.observe(2100, &[next, B], 8);
        let renewal = Renewal { epoch: next.epoch, ..ask(2110, 8) };
        assert_eq!(table.renew(2120, true, &renewal, &ok(2115)), Ok(()));
    }

    #[test]
    fn who_has_not_applied_what_was_committed_a_lease_ago_is_refused() {
        let mut table = leading(1000, 100);
        pass(&mut table, 1100, 2000, 200);
        // At 2000, one lease ago is 200: 100 was committed then.
        assert_eq!(table.renew(2000, true, &ask(2000, 99), &ok(2000)), Err(Refusal::Lagging));
        assert_eq!(table.renew(2000, true, &ask(2000, 100), &ok(2000)), Ok(()));
        pass(&mut table, 2100, 2900, 300);
        assert_eq!(table.renew(2899, true, &ask(2890, 100), &ok(2890)), Ok(()));
        assert_eq!(table.renew(2900, true, &ask(2890, 100), &ok(2890)), Err(Refusal::Lagging));
        assert_eq!(table.renew(2900, true, &ask(2890, 200), &ok(2890)), Ok(()));
        assert!(table.history.len() < 25, "the history stays short");
    }

    #[test]
    fn a_leader_that_slept_gives_its_own_sleep_to_everybody() {
        let mut table = leading(2000, 7);
        table.renew(2000, true, &ask(2000, 7), &ok(2000)).unwrap();
        table.observe(7000, &[A, B], 7);
        assert!(!table.expired(7000).contains(&(A.node, A.epoch)));
        pass(&mut table, 7000, 8800, 7);
        assert!(table.expired(8800).contains(&(A.node, A.epoch)));
    }

    #[test]
    fn the_minimum_is_over_the_live_epochs_only() {
        let mut table = leading(100, 50);
        assert!(table.report(A.node, A.epoch, 40));
        assert!(!table.report(A.node, A.epoch, 39), "never backwards");
        assert!(!table.report(A.node, A.epoch + 1, 60), "of no live epoch");
        assert_eq!(table.min_applied(&[A]), 40);
        assert_eq!(table.min_applied(&[A, B]), B.up_at - 1, "B holds back all since its beginning");
        table.report(B.node, B.epoch, 45);
        assert_eq!(table.min_applied(&[A, B]), 40);
        // A new life of A holds back nothing older than itself, even before it is observed.
        let next = Live { node: A.node, epoch: A.epoch + 1, up_at: 44 };
        assert_eq!(table.min_applied(&[next, B]), 43);
        table.observe(200, &[B], 50);
        assert_eq!(table.min_applied(&[B]), 45);
    }

    /// One node, two leaders. The first is heard until some time before the second begins; a round
    /// of the first succeeds only if it began by then.
    #[derive(Clone, Copy, Debug)]
    struct Request {
        sent_ms: u64,
        travel_ms: u64,
        wait_ms: u64,
        round_ms: u64,
        back_ms: u64,
        second: bool,
    }

    fn request() -> impl Strategy<Value = Request> {
        let delay = || prop_oneof![3 => 0u64..20, 1 => 0u64..3000];
        (0u64..12_000, delay(), delay(), delay(), delay(), any::<bool>()).prop_map(
            |(sent_ms, travel_ms, wait_ms, round_ms, back_ms, second)| Request {
                sent_ms,
                travel_ms,
                wait_ms,
                round_ms,
                back_ms,
                second,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// Whatever is delayed, and whoever leads, a node's own deadline has passed when it is
        /// declared down.
        #[test]
        fn no_node_lives_on_when_it_is_declared_down(
            requests in proptest::collection::vec(request(), 0..60),
            takeover_ms in 0u64..10_000,
            silence_ms in prop_oneof![0u64..3000, 0u64..300],
            last in (0u64..300, 0u64..50, 0u64..50),
            cut_ms in 0u64..2000,
            look_ms in 1u64..200,
            pauses in proptest::collection::vec((0u64..14_000, 0u64..4000), 0..3),
            committed: bool,
        ) {
            let heard_ms = takeover_ms.saturating_sub(silence_ms);
            let mut requests = requests;
            // The worst case: a renewal just before the first falls silent, and a second that the node
            // does not reach for a while.
            let (before_ms, travel_ms, back_ms) = last;
            requests.retain(|r| !r.second || r.sent_ms + r.travel_ms >= takeover_ms + cut_ms);
            let sent_ms = heard_ms.saturating_sub(before_ms + travel_ms);
            requests.push(Request { sent_ms, travel_ms, wait_ms: 0, round_ms: 0, back_ms, second: false });
            let mut tables = [Table::new(0, 0, TIMES), Table::new(takeover_ms, heard_ms, TIMES)];
            // (time of the grant at the leader, request)
            let mut grants: Vec<(u64, Request)> = requests
                .iter()
                .map(|r| (r.sent_ms + r.travel_ms + r.wait_ms + r.round_ms, *r))
                .collect();
            grants.sort_by_key(|(at, _)| *at);
            let mut grants = grants.into_iter().peekable();
            let mut deadlines: Vec<(u64, u64)> = Vec::new();
            let mut declared = None;

            for now in 0..16_000u64 {
                if now == takeover_ms && !committed {
                    // Not committed in the first's term, so never.
                    declared = None;
                }
                let live: &[Live] = if declared.is_some() && now >= takeover_ms { &[] } else { &[A] };
                for (which, table) in tables.iter_mut().enumerate() {
                    // The first never learns that it is deposed: the worst case.
                    let paused = pauses.iter().any(|(at, len)| now >= *at && now < at + len);
                    if (which == 1 && now < takeover_ms) || paused || !now.is_multiple_of(look_ms) {
                        continue;
                    }
                    table.observe(now, live, 7);
                    for (node, epoch) in table.expired(now) {
                        // As the service does: ask a quorum before giving anybody up.
                        let leads = if which == 1 { now >= takeover_ms } else { now <= heard_ms };
                        if leads && table.declare_down(now, node, epoch) {
                            declared = declared.or(Some(now));
                        }
                    }
                }
                while let Some((at, r)) = grants.next_if(|(at, _)| *at <= now) {
                    let table = &mut tables[usize::from(r.second)];
                    let began_ms = r.sent_ms + r.travel_ms + r.wait_ms;
                    let succeeded = if r.second { began_ms >= takeover_ms } else { began_ms <= heard_ms };
                    let arrived_ms = r.sent_ms + r.travel_ms;
                    let round = Round { began_ms, succeeded };
                    if table.renew(at, true, &ask(arrived_ms, 7), &round).is_ok() {
                        deadlines.push((at + r.back_ms, r.sent_ms + TIMES.fence_ms));
                    }
                }
                if let Some(declared) = declared {
                    // Grants still on their way count too: they arrive one day.
                    let last = deadlines.iter().map(|(_, deadline)| *deadline).max().unwrap_or(0);
                    prop_assert!(last <= declared, "lives until {last}, declared down at {declared}");
                }
            }
        }
    }
}
