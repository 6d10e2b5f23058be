//! Who the simulated clients are, and what they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use super::NODES;
use super::history::History;
use super::rng::Rng;

/// Where the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// The cluster forms, subscribers subscribe.
    Forming,
    /// Faults happen, publishers publish.
    Faults,
    /// No faults any more; everything owed has to arrive.
    Calm,
    /// Clients go home.
    Over,
}

/// The present phase, shared by all.
#[derive(Clone, Default)]
pub struct Phases(Arc<AtomicU8>);

impl Phases {
    pub fn now(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Forming,
            1 => Phase::Faults,
            2 => Phase::Calm,
            _ => Phase::Over,
        }
    }

    pub fn begin(&self, phase: Phase) {
        super::trace(&format!("{phase:?}"));
        self.0.store(phase as u8, Ordering::Relaxed);
    }
}

/// A persistent session of the scenario.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// Several hosts may fight for one client id.
    pub host: &'static str,
    pub client_id: &'static str,
    pub qos: u8,
    /// It publishes too, so that a connection that lost its client id can be caught at it.
    pub publishes: bool,
}

/// All of them subscribe to [`FILTER`].
pub const SUBSCRIBERS: [Subscriber; 4] = [
    Subscriber { host: "sub-one", client_id: "one", qos: 1, publishes: false },
    Subscriber { host: "sub-two", client_id: "two", qos: 2, publishes: false },
    Subscriber { host: "twin-a", client_id: "twin", qos: 1, publishes: true },
    Subscriber { host: "twin-b", client_id: "twin", qos: 1, publishes: true },
];

pub const FILTER: &str = "t/#";

/// The topic that a publisher has for itself.
pub fn topic_of(publisher: &str) -> String {
    format!("t/{publisher}")
}

/// Publishers at QoS 1, each with a clean session and a window.
pub const QOS1_PUBLISHERS: [&str; 2] = ["pub-a", "pub-b"];
/// The one of them whose messages are retained.
pub const RETAINING_PUBLISHER: &str = "pub-b";
/// Publishers at QoS 2, each with a persistent session and one message at a time.
pub const QOS2_PUBLISHERS: [&str; 2] = ["pub-x", "pub-y"];

/// Who asks what is retained.
pub const READER: &str = "reader";

/// The hosts of all clients.
pub fn hosts() -> impl Iterator<Item = &'static str> {
    SUBSCRIBERS.iter().map(|s| s.host).chain(QOS1_PUBLISHERS).chain(QOS2_PUBLISHERS).chain([READER])
}

/// The client ids with a session, each once.
pub fn sessions() -> impl Iterator<Item = (&'static str, u8)> {
    let mut seen: Vec<(&str, u8)> = SUBSCRIBERS.iter().map(|s| (s.client_id, s.qos)).collect();
    seen.dedup();
    seen.into_iter()
}

/// What an actor has.
#[derive(Clone)]
pub struct Stage {
    pub history: History,
    pub phases: Phases,
    pub rng: Rng,
    /// Publishers that have nothing open any more and have gone home.
    pub done: Arc<AtomicUsize>,
}

impl Stage {
    /// A publisher has done its work.
    pub fn finish(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub fn any_node(&mut self) -> usize {
        self.rng.between(1, NODES as u64 + 1) as usize
    }

    pub async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.between(from_ms, to_ms))).await;
    }
}
