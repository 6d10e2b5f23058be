//! Sessions that come and go for as long as one likes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::slope;
use crate::attack::Process;
use crate::cluster::Cluster;
use crate::load::Sessions;
use crate::mqtt::{Client, Options};
use crate::{fresh, wait};

const AT_WORK: usize = 256;
/// The index of the log takes memory too, as long as the log grows: it soon has its full length.
const SHORT_LOG: &str = "snapshot_log_bytes = 1048576\nkept_log_bytes = 1048576\n";
/// Of every session: it is over one second after its client has left.
const EXPIRY_S: u32 = 1;
/// More than the node holds of its log, bytes, and in how many messages.
const FILL_BYTES: usize = 16 << 20;
const FILLS: usize = 256;
/// For the sessions of one batch to be over.
const GONE_TIMEOUT: Duration = Duration::from_secs(60);

/// Taken when all sessions made so far were gone again.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Sessions made until then.
    pub made: usize,
    pub memory_kb: u64,
}

#[derive(Clone, Debug)]
pub struct Churn {
    pub samples: Vec<Sample>,
    pub took: Duration,
}

/// How the node's memory is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arenas {
    /// Several at a time, each of which keeps what it once had for a while: as nodes run.
    Many,
    /// All from one place: what then grows is not the allocator's.
    One,
}

/// Makes `batches` times `batch` sessions on a node of its own, and waits after each batch until
/// they have expired.
///
/// # Panics
/// When they do not.
pub fn churn(arenas: Arenas, batches: usize, batch: usize) -> Churn {
    let mut cluster = Cluster::start_with(1, SHORT_LOG);
    if arenas == Arenas::One {
        cluster.node(1).stop();
        cluster.node(1).set_variable("MALLOC_ARENA_MAX", "1");
        cluster.restart(1);
    }
    let process = Process(cluster.pid(1));
    let all = Sessions {
        brokers: cluster.mqtt_all(),
        prefix: fresh("passer"),
        expiry_s: EXPIRY_S,
        at_work: AT_WORK,
    };
    fill_log(cluster.mqtt(1));
    let begun = Instant::now();
    let samples = (0..batches).map(|turn| {
        let made = (turn + 1) * batch;
        all.make(turn * batch..made).expect("the sessions are made");
        wait::eventually("all sessions have expired", GONE_TIMEOUT, || {
            (cluster.metric(1, "rookery_persistent_sessions") == 0.0).then_some(())
        });
        Sample { made, memory_kb: process.memory_kb() }
    });
    let samples = samples.collect();
    Churn { samples, took: begun.elapsed() }
}

/// The node holds the latest part of its log in memory: it is full before anything is measured.
fn fill_log(broker: SocketAddr) {
    let mut client = Client::connect(broker, &Options::v5(&fresh("filler"))).expect("connects");
    let (topic, payload) = (fresh("filler"), vec![0; FILL_BYTES / FILLS]);
    for _ in 0..FILLS {
        assert_eq!(client.retain(&topic, &payload, 1).expect("acknowledged"), 0);
    }
}

impl Churn {
    /// Bytes by which memory grows per session, after the first `warm_up` samples.
    pub fn bytes_per_session(&self, warm_up: usize) -> f64 {
        let points = self.samples[warm_up..].iter().map(|s| (s.made as f64, s.memory_kb as f64 * 1024.0));
        slope(&points.collect::<Vec<_>>())
    }
}
