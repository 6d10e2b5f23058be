//! A node with very many persistent sessions: its restart, and its snapshots while it serves.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::attack::Process;
use crate::cluster::Cluster;
use crate::load::Sessions;
use crate::mqtt::{Client, Options};
use crate::{fresh, wait};

/// Clients that make the sessions, at a time.
const AT_WORK: usize = 256;
/// For a message to arrive.
const SOON: Duration = Duration::from_secs(20);
/// For the log to outgrow the last snapshot, twice.
const SNAPSHOTS_TIMEOUT: Duration = Duration::from_secs(300);
/// Payload of the publishes that make the log grow.
const BULK_BYTES: usize = 60_000;

/// A node of its own with its sessions, which all are left.
#[derive(Debug)]
pub struct Grown {
    cluster: Cluster,
    sessions: Sessions,
    count: usize,
    /// What it took to make them.
    pub made: Duration,
}

/// What a restart gave.
#[derive(Clone, Debug)]
pub struct Restarted {
    /// From the start of the process until `/readyz` says so.
    pub ready: Duration,
    /// From the start of the process until a session had a message that was published to it.
    pub served: Duration,
    pub snapshot_bytes: u64,
    pub log_bytes: u64,
    /// Of the restarted node.
    pub memory_kb: u64,
}

/// How long publishes waited for their PUBACK, while others filled the log.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// When no snapshot was written.
    pub quiet: Vec<Duration>,
    /// When one was.
    pub during: Vec<Duration>,
    pub snapshots: u64,
}

fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

impl Grown {
    /// A fresh node and `count` sessions on it that never expire.
    ///
    /// # Panics
    /// When it does not take them all.
    pub fn make(count: usize) -> Self {
        let cluster = Cluster::start(1);
        let sessions = Sessions {
            brokers: cluster.mqtt_all(),
            prefix: fresh("device"),
            expiry_s: u32::MAX,
            at_work: AT_WORK,
        };
        let begun = Instant::now();
        sessions.make(0..count).expect("the sessions are made");
        let made = begun.elapsed();
        let grown = Self { cluster, sessions, count, made };
        assert!(grown.is_whole(), "sessions are missing");
        grown
    }

    fn is_whole(&self) -> bool {
        self.cluster.metric(1, "rookery_persistent_sessions") == self.count as f64
    }

    /// Kills the node and starts it again.
    ///
    /// # Panics
    /// When a session is missing afterwards, or does not get what is published to it.
    pub fn restart(&mut self) -> Restarted {
        self.cluster.kill9(1);
        let data = self.cluster.node(1).data_dir();
        let (snapshot_bytes, log_bytes) = (size_of(&data.join("snapshot")), size_of(&data.join("raft")));

        let begun = Instant::now();
        self.cluster.restart(1);
        let ready = begun.elapsed();
        let one = self.count / 2;
        let mut client =
            Client::connect(self.cluster.mqtt(1), &self.sessions.options(one)).expect("connects");
        assert!(client.session_present, "the session of {} is lost", self.sessions.client_id(one));
        let mut publisher = self.publisher();
        let code = publisher.publish(&self.sessions.topic(one), "for one", 1);
        assert_eq!(code.expect("acknowledged"), 0);
        assert_eq!(client.recv(SOON).expect("delivered").text(), "for one");
        let served = begun.elapsed();
        client.disconnect().expect("leaves");
        assert!(self.is_whole(), "sessions are missing");
        let memory_kb = Process(self.cluster.pid(1)).memory_kb();
        Restarted { ready, served, snapshot_bytes, log_bytes, memory_kb }
    }

    fn publisher(&self) -> Client {
        Client::connect(self.cluster.mqtt(1), &Options::v5(&fresh("publisher"))).expect("connects")
    }

    /// Fills the log until two snapshots have been written, and measures other publishes meanwhile.
    ///
    /// # Panics
    /// When a publish is not acknowledged, or no snapshot is written.
    pub fn latency(&self) -> Latency {
        let stop = AtomicBool::new(false);
        let metric = |name| self.cluster.metric(1, name);
        let written = || metric("rookery_snapshots_written_total") as u64;
        let before = written();
        let mut found = Latency::default();
        std::thread::scope(|scope| {
            // Both kinds of messages are queued for sessions that are away: they go through the log.
            scope.spawn(|| {
                let (mut client, topic) = (self.publisher(), self.sessions.topic(0));
                let payload = "x".repeat(BULK_BYTES);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.publish(&topic, &payload, 1).expect("acknowledged"), 0);
                }
            });
            let probe = scope.spawn(|| {
                let (mut client, topic) = (self.publisher(), self.sessions.topic(1));
                let mut samples = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    assert_eq!(client.publish(&topic, "probe", 1).expect("acknowledged"), 0);
                    samples.push((begun, Instant::now()));
                }
                samples
            });
            // When it was seen that a snapshot was being written, and that none was.
            let mut seen: Vec<(Instant, bool)> = Vec::new();
            let two = wait::within(SNAPSHOTS_TIMEOUT, || {
                seen.push((Instant::now(), metric("rookery_snapshot_writing") == 1.0));
                (written() >= before + 2 && !seen.last().is_some_and(|(_, writing)| *writing)).then_some(())
            });
            stop.store(true, Ordering::Relaxed);
            assert!(two.is_some(), "no two snapshots within {SNAPSHOTS_TIMEOUT:?}");
            for (begun, ended) in probe.join().expect("the probe ends") {
                // What the looks around it agree about.
                let first = seen.partition_point(|(at, _)| *at <= begun).saturating_sub(1);
                let last = seen.partition_point(|(at, _)| *at < ended).min(seen.len() - 1);
                let writing = seen[first..=last].iter().map(|(_, writing)| *writing);
                if writing.clone().all(|w| !w) {
                    found.quiet.push(ended - begun);
                } else {
                    found.during.push(ended - begun);
                }
            }
        });
        found.snapshots = written() - before;
        found
    }
}
