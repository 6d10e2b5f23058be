//! The simulated clients, and what they share.

mod attendance;
pub mod cast;
mod hoarder;
mod lapsing;
mod member;
mod mortal;
mod publisher;
mod reader;
mod receiver;
mod subscriber;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use turmoil::Sim;

use super::history::{Event, History};
use super::rng::Rng;
use super::scenario::Scenario;
use super::world::World;
use cast::{
    MEMBERS, MORTALS, ONE, QOS1_PUBLISHERS, QOS2_PUBLISHERS, Subscriber, TWINS, TWO, WATCHERS, WITNESS,
};

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
}

/// The present phase, shared by all.
#[derive(Clone, Default)]
pub struct Phases(Arc<AtomicU8>);

impl Phases {
    pub fn now(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Forming,
            1 => Phase::Faults,
            _ => Phase::Calm,
        }
    }

    pub fn begin(&self, phase: Phase, history: &History) {
        self.0.store(phase as u8, Ordering::Relaxed);
        history.world(Event::Phase(phase));
    }
}

/// What an actor has.
#[derive(Clone)]
pub struct Stage {
    pub history: History,
    pub phases: Phases,
    pub rng: Rng,
    pub world: World,
    /// Actors that have nothing open any more and have gone home.
    done: Arc<AtomicUsize>,
}

impl Stage {
    /// An actor that has an end has done its work.
    pub fn finish(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub fn any_node(&mut self) -> usize {
        self.rng.between(1, self.world.nodes() as u64 + 1) as usize
    }

    pub async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.between(from_ms, to_ms))).await;
    }

    /// Waits until the cluster has formed.
    pub async fn begin(&self) {
        while self.phases.now() == Phase::Forming {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Everybody who takes part in one run.
pub struct Cast {
    hosts: Vec<&'static str>,
    sessions: Vec<Subscriber>,
    /// What has to be subscribed to first, theirs aside.
    first: Vec<(&'static str, &'static str)>,
    /// Actors that have an end.
    mortal: usize,
    done: Arc<AtomicUsize>,
}

impl Cast {
    /// Puts the actors that the scenario asks for on the stage.
    pub fn enter(
        sim: &mut Sim<'_>,
        scenario: &Scenario,
        seed: u64,
        history: &History,
        phases: &Phases,
        world: &World,
    ) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let mut cast = Self {
            hosts: Vec::new(),
            sessions: Vec::new(),
            first: Vec::new(),
            mortal: 0,
            done: done.clone(),
        };
        cast.first.extend(scenario.shared.then_some((MEMBERS[0], cast::SHARED_FILTER)));
        cast.first.extend(scenario.flood.then_some((cast::HOARDER, cast::FLOOD_FILTER)));
        let mut stream = 0;
        let mut stage = || {
            stream += 1;
            Stage {
                history: history.clone(),
                phases: phases.clone(),
                rng: Rng::new(seed, stream),
                world: world.clone(),
                done: done.clone(),
            }
        };
        let mut subscribers = vec![ONE, TWO];
        subscribers.extend(scenario.twins.then_some(TWINS).into_iter().flatten());
        subscribers.extend(scenario.wills.then_some(WITNESS));
        for subscriber in subscribers {
            cast.hosts.push(subscriber.host);
            if !cast.sessions.iter().any(|known| known.client_id == subscriber.client_id) {
                cast.sessions.push(subscriber);
            }
            sim.client(subscriber.host, subscriber::run(subscriber, stage()));
        }
        let mut one: Vec<&'static str> = QOS1_PUBLISHERS[..1].to_vec();
        let mut two: Vec<&'static str> = Vec::new();
        one.extend(scenario.retained.then_some(cast::RETAINING_PUBLISHER));
        one.extend(scenario.shared.then_some(cast::SHARED_PUBLISHERS[0]));
        one.extend(scenario.expiry.then_some(cast::EXPIRING_PUBLISHER));
        one.extend(scenario.flood.then_some(cast::FLOODING_PUBLISHER));
        two.extend(&QOS2_PUBLISHERS[..scenario.exactly_once]);
        two.extend(scenario.shared.then_some(cast::SHARED_PUBLISHERS[1]));
        for name in one {
            cast.with_end(name);
            sim.client(name, publisher::qos1(name, stage()));
        }
        for name in two {
            cast.with_end(name);
            sim.client(name, publisher::qos2(name, stage()));
        }
        for name in MORTALS.into_iter().filter(|_| scenario.wills) {
            cast.with_end(name);
            sim.client(name, mortal::run(name, stage()));
        }
        for name in MEMBERS.into_iter().filter(|_| scenario.shared) {
            cast.hosts.push(name);
            sim.client(name, member::run(name, stage()));
        }
        for (name, filter) in WATCHERS.into_iter().filter(|_| scenario.clean) {
            cast.hosts.push(name);
            sim.client(name, watcher::run(name, filter, stage()));
        }
        if scenario.retained {
            cast.hosts.push(cast::READER);
            sim.client(cast::READER, reader::run(cast::READER, stage()));
        }
        if scenario.expiry {
            cast.hosts.push(cast::LAPSING);
            sim.client(cast::LAPSING, lapsing::run(cast::LAPSING, cast::EXPIRY_FILTER, stage()));
        }
        if scenario.clean {
            for name in cast::DIRECT_PUBLISHERS {
                cast.with_end(name);
                sim.client(name, publisher::qos1(name, stage()));
            }
            cast.hosts.push(cast::PASSING);
            sim.client(cast::PASSING, lapsing::run(cast::PASSING, cast::PASSING_FILTER, stage()));
        }
        if scenario.flood {
            cast.hosts.push(cast::HOARDER);
            sim.client(cast::HOARDER, hoarder::run(cast::HOARDER, stage()));
        }
        cast
    }

    fn with_end(&mut self, name: &'static str) {
        self.hosts.push(name);
        self.mortal += 1;
    }

    /// The hosts of all clients.
    pub fn hosts(&self) -> impl Iterator<Item = &'static str> {
        self.hosts.iter().copied()
    }

    /// The persistent sessions to whom nothing acknowledged may be lost, each once.
    pub fn sessions(&self) -> &[Subscriber] {
        &self.sessions
    }

    /// What has to be subscribed to before anything is published: client id and filter.
    pub fn first_subscriptions(&self) -> Vec<(&'static str, &'static str)> {
        let mut all: Vec<_> = self.sessions.iter().map(|s| (s.client_id, s.filter)).collect();
        all.extend(&self.first);
        all
    }

    /// Actors that have an end and have not come to it.
    pub fn busy(&self) -> usize {
        self.mortal - self.done.load(Ordering::Relaxed)
    }
}
