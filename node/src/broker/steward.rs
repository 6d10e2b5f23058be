//! What the leader does for the cluster: its clock, and what has become due by it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Broker, PROGRESS_LINGER_MS};
use crate::env;
use crate::state::{Command, SweepCursor};

/// The cluster's clock advances in steps of this.
pub const TICK_MS: u64 = 250;
/// Clients and routes named in one sweep, so that none holds the log up for long.
pub const SWEEP_MAX: usize = 512;

impl Broker {
    /// Advances the cluster's clock and proposes what is due, while `is_leader` says so.
    pub async fn steward(self: Arc<Self>, is_leader: impl Fn() -> bool, mut stop: watch::Receiver<bool>) {
        let mut last = env::now();
        let mut cursor = SweepCursor::default();
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let now = env::now();
            let elapsed_ms = now.saturating_duration_since(last).as_millis() as u64;
            last = now;
            if !is_leader() || !self.is_alive() {
                continue;
            }
            self.propose_quietly(Command::Tick { elapsed_ms: elapsed_ms.min(4 * TICK_MS) });
            let due = self.state().due(&mut cursor, SWEEP_MAX);
            if !due.is_empty() {
                self.propose_quietly(Command::Sweep { clients: due.clients, routes: due.routes });
            }
        }
    }

    /// Sends lingering acknowledgements of stored deliveries to the log, and takes deliveries up
    /// again once a lost lease is back.
    pub async fn send_progress(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(PROGRESS_LINGER_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leased = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.flush_progress();
            let regained = self.may_acknowledge() && !leased;
            leased = self.may_acknowledge();
            if regained {
                self.pump_all();
            }
        }
    }
}
