//! How each fault is done, and undone.

use std::time::Duration;

use turmoil::Sim;

use super::{Deed, Faults};
use crate::sim::history::Event;
use crate::sim::node::host;

/// A flapping link changes so often, milliseconds.
const FLAP_MS: (u64, u64) = (30, 600);
/// What a slow link takes, milliseconds.
const SLOW_MS: [u64; 3] = [40, 150, 600];
/// How many of a million messages a bad link loses.
const LOSS_MILLIONTHS: [u64; 3] = [500, 5_000, 30_000];
/// The rates of bad clocks: the slowest node's fence and the fastest leader's lease still agree.
const RATE_PERMILLE: (u64, u64) = (950, 1_051);
/// Jumps that the margin between fence and lease covers, and such as a suspension brings,
/// milliseconds.
const SMALL_JUMP_MS: (u64, u64) = (20, 100);
const GREAT_JUMP_MS: (u64, u64) = (700, 10_000);

type Link = (String, String);

impl Faults {
    pub(super) fn do_due(&mut self, sim: &mut Sim<'_>, due: impl Fn(u64) -> bool) {
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.later).into_iter().partition(|(at, _)| due(*at));
        self.later = later;
        for (_, deed) in now {
            crate::sim::trace(&format!("{deed:?}"));
            match deed {
                Deed::Start(node) => {
                    if !self.world.machine(node).is_gone() {
                        sim.bounce(host(node));
                    }
                }
                Deed::Stop(node) => self.stop(sim, node),
                Deed::Cut(a, b) => sim.partition(a, b),
                Deed::Mend(a, b) => sim.repair(a, b),
                Deed::Release(a, b) => sim.release(a, b),
                Deed::Speed(a, b) => {
                    let most = Duration::from_millis(self.scenario.latency_ms);
                    sim.set_link_latency(a.clone(), b.clone(), Duration::ZERO);
                    sim.set_link_max_message_latency(a, b, most);
                }
                Deed::Lossless(a, b) => sim.set_link_fail_rate(a, b, 0.0),
                Deed::RightClock(node) => self.world.machine(node).clock.set_rate(1_000),
            }
        }
    }

    fn stop(&self, sim: &mut Sim<'_>, node: usize) {
        let machine = self.world.machine(node);
        machine.lose_power();
        self.history.world(Event::Crashed { node });
        if sim.is_host_running(machine.host()) {
            sim.crash(machine.host());
        }
    }

    /// Power loss of one machine. Sometimes nobody hears of it: its connections stay half open.
    pub(super) fn crash(&mut self, sim: &mut Sim<'_>, node: usize, until_ms: u64) {
        if self.world.machine(node).member().is_none() {
            return;
        }
        let links = if self.rng.chance(50) { self.links(node, true, true) } else { Vec::new() };
        links.iter().for_each(|(a, b)| sim.partition(a.clone(), b.clone()));
        self.stop(sim, node);
        links.into_iter().for_each(|(a, b)| sim.repair(a, b));
        self.later.push((until_ms, Deed::Start(node)));
    }

    pub(super) fn cut(&mut self, sim: &mut Sim<'_>, node: usize, until_ms: u64, nodes: bool, clients: bool) {
        for (a, b) in self.links(node, nodes, clients) {
            sim.partition(a.clone(), b.clone());
            self.later.push((until_ms, Deed::Mend(a, b)));
        }
    }

    pub(super) fn cut_one_way(
        &mut self,
        sim: &mut Sim<'_>,
        node: usize,
        until_ms: u64,
        nodes: bool,
        clients: bool,
    ) {
        let outwards = self.rng.chance(50);
        for (a, b) in self.links(node, nodes, clients) {
            let (from, to) = if outwards { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
            sim.partition_oneway(from, to);
            self.later.push((until_ms, Deed::Mend(a, b)));
        }
    }

    pub(super) fn flap(&mut self, node: usize, now_ms: u64, until_ms: u64, nodes: bool, clients: bool) {
        for (a, b) in self.links(node, nodes, clients) {
            let mut at_ms = now_ms + self.rng.between(FLAP_MS.0, FLAP_MS.1);
            while at_ms < until_ms {
                self.later.push((at_ms, Deed::Cut(a.clone(), b.clone())));
                at_ms += self.rng.between(FLAP_MS.0, FLAP_MS.1);
                self.later.push((at_ms, Deed::Mend(a.clone(), b.clone())));
                at_ms += self.rng.between(FLAP_MS.0, FLAP_MS.1);
            }
        }
    }

    pub(super) fn pause(&mut self, sim: &mut Sim<'_>, node: usize, until_ms: u64) {
        for (a, b) in self.links(node, true, true) {
            sim.hold(a.clone(), b.clone());
            self.later.push((until_ms, Deed::Release(a, b)));
        }
    }

    pub(super) fn slow(&mut self, sim: &mut Sim<'_>, node: usize, until_ms: u64, nodes: bool, clients: bool) {
        let latency_ms = SLOW_MS[self.rng.between(0, SLOW_MS.len() as u64) as usize];
        for (a, b) in self.links(node, nodes, clients) {
            sim.set_link_latency(a.clone(), b.clone(), Duration::from_millis(latency_ms / 2));
            sim.set_link_max_message_latency(a.clone(), b.clone(), Duration::from_millis(latency_ms));
            self.later.push((until_ms, Deed::Speed(a, b)));
        }
    }

    pub(super) fn lose_messages(
        &mut self,
        sim: &mut Sim<'_>,
        node: usize,
        until_ms: u64,
        nodes: bool,
        clients: bool,
    ) {
        let lost = LOSS_MILLIONTHS[self.rng.between(0, LOSS_MILLIONTHS.len() as u64) as usize];
        for (a, b) in self.links(node, nodes, clients) {
            sim.set_link_fail_rate(a.clone(), b.clone(), lost as f64 / 1e6);
            self.later.push((until_ms, Deed::Lossless(a, b)));
        }
    }

    pub(super) fn drift(&mut self, node: usize, until_ms: u64) {
        let permille = self.rng.between(RATE_PERMILLE.0, RATE_PERMILLE.1);
        self.world.machine(node).clock.set_rate(permille);
        self.later.push((until_ms, Deed::RightClock(node)));
    }

    pub(super) fn jump(&mut self, node: usize) {
        let (least_ms, most_ms) = if self.rng.chance(50) { SMALL_JUMP_MS } else { GREAT_JUMP_MS };
        let ms = self.rng.between(least_ms, most_ms);
        crate::sim::trace(&format!("clock of {} jumps by {ms} ms", host(node)));
        self.world.machine(node).clock.jump(ms);
    }

    /// The links of a node with the other members, and with the clients.
    fn links(&self, node: usize, nodes: bool, clients: bool) -> Vec<Link> {
        let me = host(node);
        let others = self.world.machines().iter().filter(|m| nodes && m.number != node).map(|m| m.host());
        let clients = self.clients.iter().filter(|_| clients).cloned();
        others.chain(clients).map(|other| (me.clone(), other)).collect()
    }
}
