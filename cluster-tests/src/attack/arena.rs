//! A cluster whose first node is attacked, and what has to hold meanwhile and afterwards.

use std::time::{Duration, Instant};

use super::bystanders::{NOISE, Samples};
use super::{Bystanders, LONG_VARIABLE, Plan, Process, SEED_VARIABLE, asked};
use crate::cluster::{Cluster, PATIENT};
use crate::wait::{eventually, within};

/// Measurements of every kind that make up the quiet phase, and at least the attacked one.
const QUIET_ROUNDS: usize = 60;
const ATTACKED_ROUNDS: usize = 20;
const ROUNDS_TIMEOUT: Duration = Duration::from_secs(60);

/// How much slower the slowest hundredth may be than in the quiet phase of the same run.
const P99_FACTOR: u32 = 3;
/// What is never too slow, on a machine with few cores that runs the attackers and all nodes, as
/// unoptimised builds, at the same time.
const P99_FLOOR: Duration = Duration::from_millis(500);
/// Besides, by how much more the machine itself may be late: an answer takes that many steps, of
/// threads and processes, where [`NOISE`] takes two.
const STEPS: u32 = 10;
/// Measurements that are too few for a hundredth.
const FEW: usize = 200;
/// The slowest of all: well below any keep-alive, and below what a client takes for a failure.
const MAX_FLOOR: Duration = Duration::from_secs(3);

/// The node's memory after an attack may exceed what it was before by this part of it, or this: the
/// log keeps up to 8 MiB of its latest entries, which an attack may be the first to fill, and the
/// allocator as much again in the arenas of the threads that came by it.
const MEMORY_PART: u64 = 10;
const MEMORY_KB: u64 = 24 << 10;
/// For the attackers' remains to be gone: above all time-outs of the configuration used here.
const RECOVERS: Duration = Duration::from_secs(60);

/// What an attack may make a node log, bytes.
const LOG_MAX_BYTES: u64 = 512 << 10;

/// The cluster, its well-behaved clients, and how fast they are without an attack.
#[derive(Debug)]
pub struct Arena {
    cluster: Cluster,
    bystanders: Bystanders,
    quiet: Vec<(String, Duration)>,
    plan: Plan,
}

impl Arena {
    /// Starts `nodes` with this configuration and measures the quiet phase.
    pub fn open(nodes: usize, toml: &str) -> Self {
        let (seed, long) = asked();
        println!(
            "{SEED_VARIABLE}={seed}{}",
            if long { format!(" {LONG_VARIABLE}=1") } else { String::new() }
        );
        let mut cluster = Cluster::start_with(nodes, &format!("{PATIENT}\n{toml}"));
        let ports = cluster.node(1).ports;
        let process = Process(cluster.node(1).pid());
        let (mqtt, ws) = (ports.mqtt, ports.ws);
        let listeners = [mqtt, ws, ports.tls, ports.wss];
        let plan = Plan { process, mqtt, ws, listeners, api: ports.api, peer: ports.peer, seed, long };
        let bystanders = Bystanders::start(&cluster.mqtt_all(), ws);
        let mut arena = Arena { cluster, bystanders, quiet: Vec::new(), plan };
        // The first rounds connect, subscribe and fault everything in.
        arena.rounds(10);
        arena.bystanders.take();
        arena.rounds(QUIET_ROUNDS);
        let quiet = arena.bystanders.take();
        show("quiet", &quiet);
        arena.quiet = quiet.into_iter().map(|(name, mut samples)| (name, samples.quantile(0.99))).collect();
        arena
    }

    /// Runs an attack, and checks the others' latency, connections and messages, and afterwards
    /// the node's memory.
    #[track_caller]
    pub fn under<T>(&mut self, what: &str, attack: impl FnOnce(&Plan) -> T) -> T {
        let before_kb = self.plan.process.memory_kb();
        self.bystanders.take();
        let began = Instant::now();
        let result = attack(&self.plan);
        self.rounds(ATTACKED_ROUNDS);
        let took = began.elapsed();
        let measured = self.bystanders.take();
        let peak_kb = self.plan.process.memory_kb();
        show(&format!("{what}, {took:.1?}"), &measured);
        self.bystanders.check();
        let mut noise = measured.iter().find(|(name, _)| name == NOISE).expect("a row").1.clone();
        let (late, latest) = (noise.quantile(0.99) * STEPS, noise.max() * STEPS);
        let mut slow = Vec::new();
        for ((name, quiet), (_, mut samples)) in self.quiet.iter().zip(measured) {
            let (bound, max_bound) = ((*quiet * P99_FACTOR).max(P99_FLOOR) + late, MAX_FLOOR + latest);
            // Of a few, the slowest hundredth would be the slowest one.
            let share = if samples.len() < FEW { 0.9 } else { 0.99 };
            let (p99, max) = (samples.quantile(share), samples.max());
            if name != NOISE && (p99 > bound || max > max_bound) {
                slow.push(format!("{name}: p99 {p99:.1?} of {bound:.1?}, max {max:.1?} of {max_bound:.1?}"));
            }
        }
        assert!(slow.is_empty(), "{what}: the others were held up\n{}", slow.join("\n"));
        self.recovers(what, before_kb, peak_kb);
        let log = std::fs::metadata(self.cluster.node(1).log_file()).expect("a log").len();
        assert!(log < LOG_MAX_BYTES, "{what}: the node's log has grown to {log} bytes");
        result
    }

    #[track_caller]
    fn recovers(&self, what: &str, before_kb: u64, peak_kb: u64) {
        let bound_kb = (before_kb + before_kb / MEMORY_PART).max(before_kb + MEMORY_KB);
        let settled =
            within(RECOVERS, || Some(self.plan.process.memory_kb()).filter(|now_kb| *now_kb <= bound_kb));
        let now_kb = self.plan.process.memory_kb();
        println!("    memory: {before_kb} kB before, {peak_kb} kB at the end, {now_kb} kB after");
        assert!(settled.is_some(), "{what}: {now_kb} kB of memory after it, {before_kb} kB before");
        eventually("no handshake is left over", RECOVERS, || {
            (self.plan.metric("rookery_handshakes") <= 2.0).then_some(())
        });
    }

    /// Waits for measurements of every kind.
    #[track_caller]
    fn rounds(&self, count: usize) {
        eventually("the bystanders' rounds", ROUNDS_TIMEOUT, || {
            self.bystanders.check();
            self.bystanders.have(count).then_some(())
        });
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Lets the others leave, and checks that nothing happened to them until the end.
    pub fn close(self) {
        self.bystanders.stop();
        drop(self.cluster);
    }
}

fn show(what: &str, measured: &[(String, Samples)]) {
    println!("{what}");
    for (name, samples) in measured {
        let mut samples = Samples::clone(samples);
        let (p50, p99, max) = (samples.quantile(0.5), samples.quantile(0.99), samples.max());
        println!("    {name:<44} {:>5}  p50 {p50:>9.1?}  p99 {p99:>9.1?}  max {max:>9.1?}", samples.len());
    }
}
