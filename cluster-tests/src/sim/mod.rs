//! A simulated cluster: three whole nodes and their clients in one thread, on a network, a disk and
//! a clock that a seed drives. The same seed gives the same run.
//!
//! One process runs one seed: what a process has run before changes what it does next.

#![allow(clippy::disallowed_methods, reason = "here a sleep costs no time and makes no test flaky")]

#[cfg(not(tokio_unstable))]
compile_error!("a simulation only replays with RUSTFLAGS=\"--cfg tokio_unstable\": use scripts/simulate");

mod actors;
mod client;
mod faults;
mod history;
mod invariants;
mod network;
mod node;
mod publisher;
mod reader;
mod rng;
mod subscriber;

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use actors::{Phase, Phases, QOS1_PUBLISHERS, QOS2_PUBLISHERS, READER, SUBSCRIBERS, Stage};
use faults::Faults;
use history::History;
use node::Machine;
use rng::Rng;
use turmoil::Sim;

/// Nodes of the cluster.
const NODES: usize = 3;
/// How long the cluster may take to form and the subscribers to subscribe, simulated.
const FORMING_MAX_MS: u64 = 30_000;
/// How long faults happen, simulated.
const FAULTS_MS: u64 = 30_000;
/// How long what is owed may take after the last fault has ended, simulated.
const CALM_MAX_MS: u64 = 60_000;
/// How often it is looked for the end of a phase, simulated.
const LOOK_MS: u64 = 100;

struct Trace {
    hash: DefaultHasher,
    print: bool,
    now_ms: u64,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::new(Trace {
        hash: DefaultHasher::new(),
        print: std::env::var_os("ROOKERY_SIM_TRACE").is_some(),
        now_ms: 0,
    });
}

/// Milliseconds since the start of the simulation.
fn now_ms() -> u64 {
    TRACE.with_borrow(|trace| trace.now_ms)
}

/// Adds a line to what two runs of one seed have in common.
fn trace(line: &str) {
    TRACE.with_borrow_mut(|trace| {
        (trace.now_ms, line).hash(&mut trace.hash);
        if trace.print {
            eprintln!("{:>7} {line}", trace.now_ms);
        }
    });
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Equal for two runs of one seed: a hash over when which node applied what, and over all that
    /// clients saw.
    pub trace: u64,
    pub simulated_ms: u64,
    pub acknowledged: usize,
    pub delivered: usize,
    pub connections: usize,
    /// What must not be.
    pub violations: Vec<String>,
}

/// Runs the scenario of `seed`.
///
/// # Errors
/// A node's software ended by itself.
pub fn run(seed: u64) -> Result<Report, String> {
    rookery::env::seed(seed);
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(8))
        .tcp_capacity(65_536)
        .enable_random_order();
    let mut cluster = Cluster::new(builder.build(), seed);
    cluster.run()
}

struct Cluster {
    sim: Sim<'static>,
    machines: Vec<Arc<Machine>>,
    history: History,
    phases: Phases,
    done: Arc<AtomicUsize>,
    faults: Option<Faults>,
    seed: u64,
}

impl Cluster {
    fn new(mut sim: Sim<'static>, seed: u64) -> Self {
        let (history, phases) = (History::default(), Phases::default());
        let done = Arc::new(AtomicUsize::new(0));
        let machines: Vec<_> = (1..=NODES).map(Machine::new).collect();
        for machine in &machines {
            let (machine, all) = (machine.clone(), machines.clone());
            sim.host(machine.host(), move || rookery::raft::scoped(machine.clone().run(all.clone())));
        }
        let mut stream = 0;
        let mut stage = || {
            stream += 1;
            let rng = Rng::new(seed, stream);
            Stage { history: history.clone(), phases: phases.clone(), rng, done: done.clone() }
        };
        for subscriber in SUBSCRIBERS {
            sim.client(subscriber.host, subscriber::run(subscriber, stage()));
        }
        for name in QOS1_PUBLISHERS {
            sim.client(name, publisher::qos1(name, stage()));
        }
        for name in QOS2_PUBLISHERS {
            sim.client(name, publisher::qos2(name, stage()));
        }
        sim.client(READER, reader::run(READER, stage()));
        Self { sim, machines, history, phases, done, faults: None, seed }
    }

    fn run(&mut self) -> Result<Report, String> {
        let formed = self.until(FORMING_MAX_MS, |this| {
            let voting = |m: &Arc<Machine>| m.member().is_some_and(|m| m.raft.status().voters.len() == NODES);
            let log = this.history.lock();
            this.machines.iter().all(voting)
                && actors::sessions().all(|(client, _)| log.subscribed_at(client).is_some())
        })?;
        let mut violations = Vec::new();
        if formed {
            self.phases.begin(Phase::Faults);
            let clients = actors::hosts().map(str::to_owned).collect();
            let rng = Rng::new(self.seed, 0);
            self.faults = Some(Faults::new(rng, self.machines.clone(), clients, now_ms()));
            self.until(FAULTS_MS, |_| false)?;
            if let Some(mut faults) = self.faults.take() {
                faults.end(&mut self.sim);
            }
            self.phases.begin(Phase::Calm);
            if !self.until(CALM_MAX_MS, |this| this.owed().is_empty())? {
                violations.extend(self.owed());
            }
        } else {
            violations.push("the cluster did not form, or its subscribers could not subscribe".to_owned());
        }
        let log = self.history.lock();
        violations.extend(invariants::violations(&log));
        let acknowledged = log.acknowledged(1).len() + log.acknowledged(2).len();
        let delivered = actors::sessions().map(|(client, _)| log.deliveries(client).count()).sum();
        Ok(Report {
            trace: TRACE.with_borrow(|trace| trace.hash.finish()),
            simulated_ms: now_ms(),
            acknowledged,
            delivered,
            connections: log.entries.iter().map(|e| e.conn + 1).max().unwrap_or(0),
            violations,
        })
    }

    /// What must come to pass once faults have ended.
    fn owed(&self) -> Vec<String> {
        let mut owed = Vec::new();
        let publishers = QOS1_PUBLISHERS.len() + QOS2_PUBLISHERS.len();
        let open = publishers - self.done.load(Ordering::Relaxed);
        if open > 0 {
            owed.push(format!("{open} publishers wait for an acknowledgement"));
        }
        owed.extend(invariants::delivered::check(&self.history.lock()));
        owed.extend(invariants::state_equal::check(&self.machines));
        owed
    }

    /// Goes on until `done`, which is asked now and then, or for `limit_ms`; whether it was done.
    fn until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) -> Result<bool, String> {
        let end_ms = now_ms() + limit_ms;
        while now_ms() < end_ms {
            if now_ms().is_multiple_of(LOOK_MS) && done(self) {
                return Ok(true);
            }
            if let Some(faults) = &mut self.faults {
                faults.step(&mut self.sim, now_ms());
            }
            self.sim.step().map_err(|error| format!("at {} ms: {error}", now_ms()))?;
            TRACE.with_borrow_mut(|trace| trace.now_ms += 1);
        }
        Ok(false)
    }
}
