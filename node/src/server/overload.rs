//! Watches how hard-pressed this node is, and tells its connections what follows from it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};

use super::member::Member;
use crate::env::{self, Instant};
use crate::net;
use crate::overload::{Controller, Inputs, Level, memory_limit_bytes, resident_bytes};
use crate::session::Context;

/// Between two beats of the runtime of consensus.
const BEAT: Duration = Duration::from_millis(50);

/// How hard-pressed this node is, for metrics.
#[derive(Debug, Default)]
pub struct Overload {
    level: AtomicU8,
    changes: [AtomicU64; 4],
    resident_bytes: AtomicU64,
    memory_limit_bytes: AtomicU64,
    loop_lag_us: AtomicU64,
    consensus_lag_us: AtomicU64,
}

impl Overload {
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    /// How often a level was reached from a lower one.
    pub fn reached(&self, level: Level) -> u64 {
        self.changes[level as usize].load(Ordering::Relaxed)
    }

    /// Of the last sample: resident memory and what may be used, bytes; 0: not known.
    pub fn memory_bytes(&self) -> (u64, u64) {
        (self.resident_bytes.load(Ordering::Relaxed), self.memory_limit_bytes.load(Ordering::Relaxed))
    }

    /// Of the last sample: of the event loops and of consensus, microseconds.
    pub fn lag_us(&self) -> (u64, u64) {
        (self.loop_lag_us.load(Ordering::Relaxed), self.consensus_lag_us.load(Ordering::Relaxed))
    }
}

/// What is watched, and whom it is told.
pub(super) struct Watched {
    pub overload: Arc<Overload>,
    pub context: Arc<Context>,
    /// Gone when the node has stopped.
    pub server: Weak<net::Server>,
    pub member: Arc<Member>,
    /// `limits.max_memory_bytes`
    pub memory_max_bytes: u64,
}

/// Watches until `stop`, on a thread of its own: it has to see what holds up the others.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn watch(watched: Watched, runtime: &Handle, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let pulse = Arc::new(Pulse::new());
    runtime.spawn(pulse.clone().beat(stop.clone()));
    let run = move || watched.run(&pulse, &stop);
    std::thread::Builder::new().name("overload".to_owned()).spawn(run).map(drop)
}

impl Watched {
    fn run(self, pulse: &Pulse, stop: &watch::Receiver<bool>) {
        let limit_bytes = memory_limit_bytes(self.memory_max_bytes).unwrap_or(0);
        self.overload.memory_limit_bytes.store(limit_bytes, Ordering::Relaxed);
        let mut controller = Controller::default();
        let mut level = Level::Normal;
        // Nothing wakes it: it looks.
        while !*stop.borrow() && stop.has_changed().is_ok() {
            std::thread::park_timeout(Duration::from_millis(Controller::PERIOD_MS));
            let Some(server) = self.server.upgrade() else { return };
            let inputs = self.measure(&server, pulse, limit_bytes);
            let next = controller.sample(&inputs);
            self.context.pressure.set_level(next);
            self.overload.level.store(next as u8, Ordering::Relaxed);
            if next != level {
                self.tell(level, next, &inputs);
                level = next;
            }
            let state = self.member.broker.state();
            self.context.pressure.set_elsewhere(state.elsewhere(self.member.id()));
        }
    }

    fn measure(&self, server: &net::Server, pulse: &Pulse, limit_bytes: u64) -> Inputs {
        let overload = &*self.overload;
        let resident = resident_bytes().unwrap_or(0);
        let (loops, consensus) = (server.longest_turn(), pulse.take());
        overload.resident_bytes.store(resident, Ordering::Relaxed);
        overload.loop_lag_us.store(loops.as_micros() as u64, Ordering::Relaxed);
        overload.consensus_lag_us.store(consensus.as_micros() as u64, Ordering::Relaxed);
        Inputs {
            memory: if limit_bytes == 0 { 0.0 } else { resident as f64 / limit_bytes as f64 },
            loop_lag_ms: loops.as_secs_f64() * 1_000.0,
            consensus_lag_ms: consensus.as_secs_f64() * 1_000.0,
            proposals: self.member.raft.proposer().congestion(),
            forwards: self.member.forwarder.congestion(),
        }
    }

    fn tell(&self, before: Level, now: Level, inputs: &Inputs) {
        let mut measured = String::new();
        let Inputs { memory, loop_lag_ms, consensus_lag_ms, proposals, forwards } = inputs;
        // Writing to a String does not fail.
        let _ = write!(
            measured,
            "memory {:.0} %, event loops {loop_lag_ms:.0} ms, consensus {consensus_lag_ms:.0} ms, \
             log {:.0} %, forwards {:.0} %",
            memory * 100.0,
            proposals * 100.0,
            forwards * 100.0
        );
        if now > before {
            self.overload.changes[now as usize].fetch_add(1, Ordering::Relaxed);
            warn!(level = now.name(), cause = inputs.cause(), measured, "this node is overloaded");
        } else if now == Level::Normal {
            info!(measured, "this node is no longer overloaded");
        } else {
            info!(level = now.name(), measured, "this node is less overloaded");
        }
    }
}

/// Shows whether tasks of a runtime get their turn.
struct Pulse {
    base: Instant,
    last_us: AtomicU64,
    latest_us: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self { base: env::now(), last_us: AtomicU64::new(0), latest_us: AtomicU64::new(0) }
    }

    fn overdue_us(&self) -> (u64, u64) {
        let now_us = u64::try_from(self.base.elapsed().as_micros()).unwrap_or(u64::MAX);
        let since_us = now_us.saturating_sub(self.last_us.load(Ordering::Relaxed));
        (now_us, since_us.saturating_sub(BEAT.as_micros() as u64))
    }

    async fn beat(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let (now_us, late_us) = self.overdue_us();
            self.latest_us.fetch_max(late_us, Ordering::Relaxed);
            self.last_us.store(now_us, Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(BEAT) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// How late the latest beat was since this was last asked, one that is still awaited included.
    fn take(&self) -> Duration {
        let (_, overdue_us) = self.overdue_us();
        Duration::from_micros(self.latest_us.swap(0, Ordering::Relaxed).max(overdue_us))
    }
}
