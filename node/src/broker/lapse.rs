//! While this node has no lease: what it is asked waits a moment for the lease to come back, and
//! what it still does when that takes longer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Broker;
use crate::env;
use crate::mqtt::ReasonCode;
use crate::session::{self, Conn, Ended};

/// How often the lease is looked at; its return is also told.
const LOOK_MS: u64 = 50;
/// Requests that wait for the lease at most; beyond them they are refused at once.
const WAITING_MAX: usize = 65_536;
/// Their bytes, at most.
const WAITING_MAX_BYTES: usize = 64 << 20;
/// What a 5.0 client is told beside the reason code.
pub(super) const WHY: &str = "this node has lost the majority of its cluster; another one may serve you";

/// What a node does for its clients while it is cut off from the majority of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minority {
    /// Passes QoS 0 between them, acknowledges nothing.
    Qos0,
    /// Closes their connections and lets nobody in.
    Close,
    /// Also acknowledges what concerns clean sessions of this node alone.
    Available,
}

/// How a node behaves without its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LapseRules {
    pub minority: Minority,
    /// How long requests wait for a lost lease to come back, from when it was found lost. 0: not at
    /// all.
    pub patience_ms: u64,
}

impl LapseRules {
    /// About the time of a failover.
    pub const DEFAULT_PATIENCE_MS: u64 = 2_000;
}

impl Default for LapseRules {
    fn default() -> Self {
        Self { minority: Minority::Qos0, patience_ms: Self::DEFAULT_PATIENCE_MS }
    }
}

/// What becomes of a request that needs the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// The lease may come back soon.
    Later,
    /// It has been away for too long.
    Never,
}

/// Called with whether there is a lease.
type Request = Box<dyn FnOnce(&Arc<Broker>, bool) + Send>;

/// The present time without a lease, and who waits for its end.
#[derive(Default)]
pub struct Lapse {
    /// When it was noticed, as `env::boot_ms`; 0: there is a lease, or nobody has looked yet.
    since_ms: AtomicU64,
    /// Something waits or is just being done: what comes now must not overtake it.
    occupied: AtomicBool,
    waiting: Mutex<Waiting>,
    regained: Notify,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<(usize, Request)>,
    bytes: usize,
}

impl Lapse {
    /// Whether the lease has been away for no longer than `patience_ms`.
    fn is_short(&self, patience_ms: u64) -> bool {
        let since_ms = self.since_ms.load(Ordering::Acquire);
        patience_ms > 0 && (since_ms == 0 || env::boot_ms() < since_ms + patience_ms)
    }

    /// # Errors
    /// Too much waits already: the request comes back.
    fn push(&self, bytes: usize, request: Request) -> Result<(), Request> {
        let mut waiting = self.waiting.lock();
        if waiting.requests.len() >= WAITING_MAX || waiting.bytes + bytes > WAITING_MAX_BYTES {
            return Err(request);
        }
        waiting.bytes += bytes;
        waiting.requests.push_back((bytes, request));
        self.occupied.store(true, Ordering::Release);
        Ok(())
    }

    /// The oldest; with `None` nothing is under way any more.
    fn pop(&self) -> Option<Request> {
        let mut waiting = self.waiting.lock();
        let Some((bytes, request)) = waiting.requests.pop_front() else {
            self.occupied.store(false, Ordering::Release);
            return None;
        };
        waiting.bytes -= bytes;
        Some(request)
    }

    /// There is no lease: who has noticed that first counts. Whoever leaves something undone because
    /// of it says so here, or a lapse between two looks would be nobody's.
    pub(super) fn notice(&self) {
        let now_ms = env::boot_ms().max(1);
        let _ = self.since_ms.compare_exchange(0, now_ms, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The time begins anew, if there still is no lease.
    fn begin_again(&self) {
        self.since_ms.store(0, Ordering::Release);
        self.regained.notify_one();
    }
}

impl Broker {
    fn rules(&self) -> LapseRules {
        self.wiring().map(|w| w.lapse).unwrap_or_default()
    }

    /// Whether this node may have a lease again soon.
    pub(super) fn is_patient(&self) -> bool {
        self.lapse.is_short(self.rules().patience_ms)
    }

    /// Whether clients of this node alone are served all the same.
    pub(super) fn serves_its_own(&self) -> bool {
        self.rules().minority == Minority::Available && self.is_alive()
    }

    /// Whether a request is dealt with at once. Those that change who is connected or subscribed
    /// keep their order: one that comes while others wait is the last of them.
    pub(super) fn turn_of_request(&self) -> Turn {
        let leased = self.may_acknowledge();
        if leased && !self.lapse.occupied.load(Ordering::Acquire) {
            Turn::Now
        } else if leased || self.is_patient() {
            Turn::Later
        } else {
            Turn::Never
        }
    }

    /// Calls `request` once there is a lease again, or it has been away for too long; at once, on
    /// this thread, if too much waits already. `bytes`: what it holds, about.
    pub(super) fn when_leased(
        self: &Arc<Self>,
        bytes: usize,
        request: impl FnOnce(&Arc<Self>, bool) + Send + 'static,
    ) {
        if let Err(request) = self.lapse.push(bytes, Box::new(request)) {
            request(self, false);
        }
    }

    /// Takes up the publisher's held messages once there is a lease again, or it has been away for
    /// too long. May be called with the publisher's order locked. False: too much waits already.
    pub(super) fn drain_when_leased(&self, conn: &Arc<Conn>, bytes: usize) -> bool {
        let conn = conn.clone();
        self.lapse.push(bytes, Box::new(move |broker, _| broker.drain_held(&conn))).is_ok()
    }

    /// This node has a lease again, or a life of it has begun.
    pub fn lease_regained(&self) {
        self.lapse.regained.notify_one();
    }

    pub(super) fn begin_lapse_again(&self) {
        self.lapse.begin_again();
    }

    /// Serves what waits for the lease, until `stop`.
    pub async fn tend_lapses(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(LOOK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.lapse.regained.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.look_at_lease();
        }
    }

    pub(super) fn look_at_lease(self: &Arc<Self>) {
        if self.may_acknowledge() {
            let lapsed = self.lapse.since_ms.swap(0, Ordering::AcqRel) != 0;
            self.serve_waiting(true);
            if lapsed {
                // Deliveries were held back.
                self.pump_all();
            }
            return;
        }
        self.lapse.notice();
        if self.is_patient() {
            return;
        }
        self.serve_waiting(false);
        if self.rules().minority == Minority::Close {
            for conn in self.clients.all() {
                conn.close_saying(Ended::Server, ReasonCode::ServerShuttingDown, WHY);
            }
        }
    }

    /// As long as things are so, since a request may wait again when they are not.
    fn serve_waiting(self: &Arc<Self>, leased: bool) {
        let is_so = || if leased { self.may_acknowledge() } else { !self.is_patient() };
        while is_so()
            && let Some(request) = self.lapse.pop()
        {
            session::turn(|| request(self, leased));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused_and_leaves_room_when_it_is_gone() {
        let lapse = Lapse::default();
        assert!(lapse.push(WAITING_MAX_BYTES, Box::new(|_, _| {})).is_ok());
        assert!(lapse.push(1, Box::new(|_, _| {})).is_err());
        assert!(lapse.occupied.load(Ordering::Acquire));
        assert!(lapse.pop().is_some());
        assert!(lapse.occupied.load(Ordering::Acquire), "the last one is just being done");
        assert!(lapse.pop().is_none());
        assert!(!lapse.occupied.load(Ordering::Acquire));
        for _ in 0..WAITING_MAX {
            assert!(lapse.push(0, Box::new(|_, _| {})).is_ok());
        }
        assert!(lapse.push(0, Box::new(|_, _| {})).is_err());
    }

    #[test]
    fn patience_counts_from_when_it_was_noticed() {
        let lapse = Lapse::default();
        assert!(lapse.is_short(1), "nobody has noticed");
        assert!(!lapse.is_short(0), "without patience nothing waits");
        lapse.since_ms.store(env::boot_ms().saturating_sub(100).max(1), Ordering::Release);
        assert!(lapse.is_short(60_000));
        assert!(!lapse.is_short(50));
        lapse.begin_again();
        assert!(lapse.is_short(50));
    }
}
