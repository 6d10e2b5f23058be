//! What the log and the snapshots have come to: it decides when a snapshot is due and how much log
//! before it is kept.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::state::LogIndex;

/// How finely it is known what the log weighs up to where, bytes.
const MARK_BYTES: u64 = 1 << 20;

/// Counted by the state machine.
#[derive(Debug, Default)]
pub struct LogGrowth(Mutex<Counts>);

/// What became of snapshots since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// One is being written.
    pub writing: bool,
    pub written: u64,
    /// Those of other nodes that became this node's state, since it lagged too far.
    pub received: u64,
    /// Size of the newest.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of the entries applied since the start of the process.
    bytes: u64,
    /// Of them, those that the newest view of the state has.
    viewed_bytes: u64,
    snapshots: SnapshotStats,
    /// Where `bytes` had become how many, oldest first.
    marks: VecDeque<(LogIndex, u64)>,
}

impl LogGrowth {
    pub fn applied(&self, index: LogIndex, bytes: usize) {
        let mut counts = self.0.lock();
        counts.bytes += bytes as u64;
        let last = counts.marks.back().map_or(0, |(_, at)| *at);
        if counts.bytes - last >= MARK_BYTES {
            let mark = (index, counts.bytes);
            counts.marks.push_back(mark);
        }
    }

    /// A view of the state was taken, to be written.
    pub fn viewed(&self) {
        let mut counts = self.0.lock();
        counts.viewed_bytes = counts.bytes;
        counts.snapshots.writing = true;
    }

    pub fn written(&self, bytes: u64) {
        let snapshots = &mut self.0.lock().snapshots;
        *snapshots = SnapshotStats { writing: false, written: snapshots.written + 1, bytes, ..*snapshots };
    }

    /// A snapshot has become the state: one of this node's own, or one that it `received`.
    pub fn installed(&self, bytes: u64, received: bool) {
        let mut counts = self.0.lock();
        counts.viewed_bytes = counts.bytes;
        counts.snapshots.received += u64::from(received);
        counts.snapshots.bytes = bytes;
    }

    pub fn snapshots(&self) -> SnapshotStats {
        self.0.lock().snapshots
    }

    /// Whether the log since the newest snapshot has outgrown it, and `least_bytes`. So the
    /// snapshots of a large state add no more to what is written than the log itself, and a start
    /// has no more log to go through than snapshot.
    pub fn is_due(&self, least_bytes: u64) -> bool {
        let counts = self.0.lock();
        counts.bytes - counts.viewed_bytes >= counts.snapshots.bytes.max(least_bytes)
    }

    /// Up to where the log could go, as far as `snapshot` has it, so that `kept_bytes` stay for
    /// nodes that lag. Each position is returned once.
    pub fn take_spare(&self, snapshot: LogIndex, kept_bytes: u64) -> Option<LogIndex> {
        let mut counts = self.0.lock();
        let mut spare = None;
        while let Some((index, at)) = counts.marks.front().copied()
            && index <= snapshot
            && counts.bytes - at >= kept_bytes
        {
            counts.marks.pop_front();
            spare = Some(index);
        }
        spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_snapshot_is_due_when_the_log_has_outgrown_the_last_one() {
        let growth = LogGrowth::default();
        growth.applied(1, 9);
        assert!(!growth.is_due(10));
        growth.applied(2, 1);
        assert!(growth.is_due(10));
        growth.viewed();
        assert!(!growth.is_due(10), "one is being written");
        growth.written(25);
        growth.applied(3, 24);
        assert!(!growth.is_due(10), "it would be larger than what it saves");
        growth.applied(4, 1);
        assert!(growth.is_due(10));
    }

    #[test]
    fn log_is_spare_when_a_snapshot_has_it_and_enough_follows() {
        let growth = LogGrowth::default();
        for index in 1..=10 {
            growth.applied(index, MIB);
        }
        assert_eq!(growth.take_spare(0, 0), None, "no snapshot has it");
        assert_eq!(growth.take_spare(7, 20 * MIB as u64), None);
        assert_eq!(growth.take_spare(7, 5 * MIB as u64), Some(5));
        assert_eq!(growth.take_spare(7, 5 * MIB as u64), None, "it is gone already");
        assert_eq!(growth.take_spare(7, 0), Some(7));
        growth.applied(11, 3 * MIB);
        assert_eq!(growth.take_spare(100, 3 * MIB as u64), Some(10));
    }
}
