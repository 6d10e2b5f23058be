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
mod rng;
mod scenario;
mod world;

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::{Cast, Phase, Phases};
use faults::Faults;
use history::{Event, History};
use invariants::Invariants;
use node::{FOUNDERS, MACHINES, Machine};
use rng::Rng;
use scenario::Scenario;
use turmoil::Sim;
use world::World;

/// How long the cluster may take to form and the subscribers to subscribe, simulated.
const FORMING_MAX_MS: u64 = 30_000;
/// How long what is owed may take after the last fault has ended, simulated.
const CALM_MAX_MS: u64 = 30_000;
/// How often the invariants look at the nodes, simulated. What clients see, they take in at once.
const LOOK_MS: u64 = 10;
/// How often it is looked for the end of a phase, simulated.
const END_LOOK_MS: u64 = 100;

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
    let scenario = Scenario::draw(seed);
    trace(&format!("{scenario:?}"));
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(scenario.latency_ms))
        .tcp_capacity(65_536)
        .enable_random_order();
    Run::new(builder.build(), seed, scenario).run()
}

/// One run.
struct Run {
    sim: Sim<'static>,
    seed: u64,
    scenario: Scenario,
    world: World,
    history: History,
    phases: Phases,
    cast: Cast,
    invariants: Invariants,
    faults: Option<Faults>,
}

/// Why a phase is over.
enum Over {
    /// What was waited for has come to pass.
    Done,
    /// Its time is.
    Time,
    /// Something was wrong.
    Wrong(Vec<String>),
}

impl Run {
    fn new(mut sim: Sim<'static>, seed: u64, scenario: Scenario) -> Self {
        let (history, phases) = (History::default(), Phases::default());
        let world = World::new((1..=MACHINES).map(|number| Machine::new(number, &scenario)).collect());
        for machine in world.machines() {
            let (machine, world) = (machine.clone(), world.clone());
            sim.host(machine.host(), move || rookery::raft::scoped(machine.clone().run(world.clone())));
        }
        let cast = Cast::enter(&mut sim, &scenario, seed, &history, &phases, &world);
        let invariants = Invariants::new(&cast);
        Self { sim, seed, scenario, world, history, phases, cast, invariants, faults: None }
    }

    fn run(mut self) -> Result<Report, String> {
        let violations = self.phases()?;
        let log = self.history.lock();
        let count = |of: fn(&Event) -> bool| log.entries.iter().filter(|entry| of(&entry.event)).count();
        Ok(Report {
            trace: TRACE.with_borrow(|trace| trace.hash.finish()),
            simulated_ms: now_ms(),
            acknowledged: count(|event| matches!(event, Event::Acknowledged { .. })),
            delivered: count(|event| matches!(event, Event::Delivered { .. })),
            connections: log.attempts(),
            violations,
        })
    }

    /// What is wrong.
    fn phases(&mut self) -> Result<Vec<String>, String> {
        match self.until(FORMING_MAX_MS, Self::has_formed)? {
            Over::Done => {}
            Over::Time => {
                return Ok(vec!["the cluster did not form, or its subscribers could not subscribe".into()]);
            }
            Over::Wrong(wrong) => return Ok(wrong),
        }
        self.phases.begin(Phase::Faults, &self.history);
        let clients = self.cast.hosts().map(str::to_owned).collect();
        let (rng, world, history) = (Rng::new(self.seed, 0), self.world.clone(), self.history.clone());
        self.faults = Some(Faults::new(rng, &self.scenario, world, history, clients, now_ms()));
        if let Over::Wrong(wrong) = self.until(self.scenario.faults_ms, |_| false)? {
            return Ok(wrong);
        }
        if let Some(faults) = &mut self.faults {
            faults.end(&mut self.sim);
        }
        self.phases.begin(Phase::Calm, &self.history);
        match self.until(CALM_MAX_MS, |this| this.owed().is_empty())? {
            Over::Done => Ok(Vec::new()),
            Over::Time => Ok(self.owed()),
            Over::Wrong(wrong) => Ok(wrong),
        }
    }

    fn has_formed(&self) -> bool {
        let voting = |m: &Arc<Machine>| m.member().is_some_and(|m| m.raft.status().voters.len() == FOUNDERS);
        let log = self.history.lock();
        let subscribed = |client: &str, filter: &str| {
            log.entries.iter().any(|entry| {
                entry.client == client
                    && matches!(entry.event, Event::Subscribed { filter: of } if of == filter)
            })
        };
        self.world.members().all(voting)
            && self.cast.first_subscriptions().into_iter().all(|(client, filter)| subscribed(client, filter))
    }

    /// What must come to pass once faults have ended.
    fn owed(&self) -> Vec<String> {
        let mut owed = self.invariants.owed(&self.world);
        if self.cast.busy() > 0 {
            owed.push(format!("{} clients wait for an answer", self.cast.busy()));
        }
        owed
    }

    /// Goes on until `done`, which is asked now and then, or for `limit_ms`, or until something is
    /// wrong.
    fn until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) -> Result<Over, String> {
        let end_ms = now_ms() + limit_ms;
        while now_ms() < end_ms {
            if now_ms().is_multiple_of(END_LOOK_MS) && done(self) {
                return Ok(Over::Done);
            }
            if let Some(faults) = &mut self.faults {
                faults.step(&mut self.sim, now_ms());
            }
            self.sim.step().map_err(|error| format!("at {} ms: {error}", now_ms()))?;
            TRACE.with_borrow_mut(|trace| trace.now_ms += 1);
            rookery::env::simulated::set_now_ms(now_ms());
            self.world.look(&self.history);
            let mut wrong = self.invariants.see(&self.history);
            if now_ms().is_multiple_of(LOOK_MS) {
                wrong.extend(self.invariants.look(&self.world));
            }
            if !wrong.is_empty() {
                return Ok(Over::Wrong(
                    wrong.into_iter().map(|what| format!("at {} ms: {what}", now_ms())).collect(),
                ));
            }
        }
        Ok(Over::Time)
    }
}
