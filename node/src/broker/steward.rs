//! What the leader does for the cluster: its clock, and what has become due by it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::{Broker, PROGRESS_LINGER_MS};
use crate::env;
use crate::state::{Command, NodeId, State, SweepCursor};

/// The cluster's clock advances in steps of this.
pub const TICK_MS: u64 = 250;
/// A step is never longer: a leader that slept did not measure.
const TICK_MAX_MS: u64 = 4 * TICK_MS;
/// How often a node says what its wall clock shows.
const WALL_CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// Clients and routes named in one sweep, so that none holds the log up for long.
pub const SWEEP_MAX: usize = 512;

impl Broker {
    /// Advances the cluster's clock, proposes what is due and raises the feature level, while `reign`
    /// says that this node leads, and which members; says on any node from time to time what its
    /// wall clock shows.
    ///
    /// One sweep is on its way at a time, and the next follows when it is applied: what is due is
    /// done as fast as the log goes, however much it is, and nobody else waits for more than one.
    pub async fn steward(
        self: Arc<Self>,
        reign: impl Fn() -> Option<Vec<NodeId>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut last = env::now();
        let mut told = last;
        let mut cursor = SweepCursor::default();
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        let mut tick: Option<oneshot::Receiver<()>> = None;
        let mut sweep: Option<oneshot::Receiver<()>> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let now = env::now();
                    if now.saturating_duration_since(told) >= WALL_CLOCK_INTERVAL {
                        told = now;
                        self.tell_wall_clock();
                    }
                    let Some(members) = reign().filter(|_| self.is_alive()) else {
                        last = now;
                        sweep = None;
                        continue;
                    };
                    // One at a time: those of a leader that cannot commit would come on top of what
                    // its successor counts of the same time.
                    if tick.is_none() {
                        let elapsed_ms = now.saturating_duration_since(last).as_millis() as u64;
                        last = now;
                        let command = Command::Tick { elapsed_ms: elapsed_ms.min(TICK_MAX_MS) };
                        tick = Some(self.propose_until(command));
                        let level = self.state().feature_level_to_raise(&members);
                        if let Some(level) = level {
                            self.propose_quietly(Command::Raise { level });
                        }
                    }
                }
                // More may be due now.
                () = ended(&mut tick) => if reign().is_none() { continue },
                () = ended(&mut sweep) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if sweep.is_none() {
                sweep = self.sweep(&mut cursor);
                // A search that found nothing goes on at once, but not alone.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Proposes what is due, if anything is; the receiver learns when it is done and there may be
    /// more.
    fn sweep(&self, cursor: &mut SweepCursor) -> Option<oneshot::Receiver<()>> {
        let due = {
            let state = self.state();
            // What began between two ticks was counted from the former, and may not end early for it.
            state.due(state.clock_ms().saturating_sub(TICK_MS), cursor, SWEEP_MAX)
        };
        if due.is_empty() {
            // Of a sender that is gone: the search goes on at once.
            return due.more.then(|| oneshot::channel().1);
        }
        Some(self.propose_until(Command::Sweep { clients: due.clients, routes: due.routes }))
    }

    /// The receiver learns when the command is done, whatever became of it.
    fn propose_until(&self, command: Command) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        self.propose(command, Box::new(move |_| drop(done)));
        ended
    }

    /// Says what this node's wall clock shows, by which the cluster learns, should all nodes be down
    /// one day, for how long they were.
    pub(super) fn tell_wall_clock(&self) {
        if self.is_alive() {
            self.propose_quietly(Command::WallClock { wall_ms: env::wall_ms() });
        }
    }

    /// Takes note whether `state` says how long the cluster was down before this life.
    pub(super) fn note_the_time(&self, state: &State) {
        let known = self.wiring().is_some_and(|wiring| state.knows_the_time(wiring.me));
        self.knows_the_time.store(known, Ordering::Release);
    }

    /// Sends lingering acknowledgements of stored deliveries to the log.
    pub async fn send_progress(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(PROGRESS_LINGER_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.flush_progress();
            self.draw_waiting();
        }
    }
}

/// Completes when what was proposed is done, and forgets it; never, if there is nothing.
async fn ended(proposed: &mut Option<oneshot::Receiver<()>>) {
    match proposed {
        Some(ended) => {
            let _ = ended.await;
            *proposed = None;
        }
        None => std::future::pending().await,
    }
}
