//! Whether the disk has room. Below a bound this node writes nothing on behalf of its clients any
//! more and leads no longer, while what is left still serves the cluster; what the log cannot write
//! for want of room waits until there is some. All that ends by itself when room is back.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::statvfs;
use tokio::sync::watch;
use tracing::{info, warn};

use super::member::Member;
use crate::env;
use crate::store::LogStore;

/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts to hand leadership over: the successor's disk may be full too.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// What is known of the disk, for everybody who asks.
#[derive(Debug, Default)]
pub struct Disk {
    free_bytes: AtomicU64,
    short: AtomicBool,
    waiting: AtomicBool,
}

impl Disk {
    /// Bytes that this process could still write.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// There is so little room that nothing should be written that need not be.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// A write of the log waits for room.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// What an operator is told, if there is anything.
    pub fn trouble(&self) -> Option<String> {
        let free_mib = self.free_bytes() >> 20;
        if self.is_waiting() {
            Some(format!("its disk is full ({free_mib} MiB free): the log waits for room"))
        } else if self.is_short() {
            Some(format!("its disk is full ({free_mib} MiB free): it refuses writes"))
        } else {
            None
        }
    }

    /// Takes in how much is free. Room counts as back only with a quarter more than its bound, so
    /// that a disk at the bound does not go to and fro.
    fn measured(&self, free_bytes: u64, min_bytes: u64, waiting: bool) {
        let was_short = self.is_short();
        let bound = if was_short { min_bytes + min_bytes / 4 } else { min_bytes };
        let short = waiting || free_bytes < bound;
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
        self.short.store(short, Ordering::Relaxed);
        match (was_short, short) {
            (false, true) => warn!(free_bytes, min_bytes, "the disk is full: refusing writes of clients"),
            (true, false) => info!(free_bytes, "the disk has room again"),
            _ => {}
        }
    }
}

/// Looks after the disk that `dir` is on until `stop`, and hands leadership over while it is full.
pub(super) async fn watch(
    disk: Arc<Disk>,
    (dir, min_bytes): (PathBuf, u64),
    log: LogStore,
    member: Arc<Member>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut handed_over: Option<env::Instant> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let path = dir.clone();
        // A file system on a network may make it wait.
        match env::blocking(move || statvfs(&path)).await {
            Ok(stat) => disk.measured(stat.f_bavail * stat.f_frsize, min_bytes, log.is_waiting()),
            Err(error) => warn!(%error, dir = %dir.display(), "cannot tell how full the disk is"),
        }
        member.raft.set_trouble(disk.trouble());
        let lately = handed_over.is_some_and(|at| at.elapsed() < HAND_OVER_PAUSE);
        if disk.is_short() && !lately && member.raft.is_leader() && member.raft.status().voters.len() > 1 {
            handed_over = Some(env::now());
            match member.raft.transfer_leader(None).await {
                Ok(to) => info!("handed leadership over to node {to:016x}, the disk being full"),
                Err(error) => warn!(%error, "the disk is full, and leadership cannot be handed over"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_back_only_well_above_the_bound() {
        let disk = Disk::default();
        disk.measured(100, 100, false);
        assert_eq!((disk.is_short(), disk.trouble()), (false, None));
        disk.measured(99, 100, false);
        assert!(disk.is_short() && disk.trouble().expect("told").contains("refuses writes"));
        disk.measured(124, 100, false);
        assert!(disk.is_short());
        disk.measured(125, 100, false);
        assert!(!disk.is_short());
        disk.measured(1 << 30, 100, true);
        assert!(disk.is_short() && disk.trouble().expect("told").contains("waits for room"));
    }
}
