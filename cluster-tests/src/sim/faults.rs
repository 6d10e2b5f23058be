//! What happens to the nodes while clients work: a schedule drawn from the seed.

use std::sync::Arc;

use turmoil::Sim;

use super::NODES;
use super::node::{Machine, host};
use super::rng::Rng;

/// Between two faults, milliseconds; they may overlap.
const PAUSE_MS: (u64, u64) = (300, 5000);
/// How long one lasts, milliseconds: below and above what leases and elections take.
const SHORT_MS: (u64, u64) = (30, 1500);
const LONG_MS: (u64, u64) = (1500, 7000);

enum Repair {
    Start(usize),
    Link(String, String),
}

/// The faults of one run.
pub struct Faults {
    rng: Rng,
    machines: Vec<Arc<Machine>>,
    /// Hosts of clients.
    clients: Vec<String>,
    next_ms: u64,
    repairs: Vec<(u64, Repair)>,
}

impl Faults {
    pub fn new(rng: Rng, machines: Vec<Arc<Machine>>, clients: Vec<String>, now_ms: u64) -> Self {
        Self { rng, machines, clients, next_ms: now_ms, repairs: Vec::new() }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        self.repair(sim, |due_ms| due_ms <= now_ms);
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + self.rng.between(PAUSE_MS.0, PAUSE_MS.1);
        let (least_ms, most_ms) = if self.rng.chance(70) { SHORT_MS } else { LONG_MS };
        let until_ms = now_ms + self.rng.between(least_ms, most_ms);
        let node = self.rng.between(0, NODES as u64) as usize;
        match self.rng.between(0, 10) {
            0..4 => self.crash(sim, node, until_ms),
            4 => (0..NODES).for_each(|node| self.crash(sim, node, until_ms)),
            5 => {
                self.crash(sim, node, until_ms);
                self.crash(sim, (node + 1) % NODES, until_ms + 500);
            }
            6 | 7 => self.cut(sim, node, until_ms, true, false),
            8 => self.cut(sim, node, until_ms, false, true),
            _ => self.cut(sim, node, until_ms, true, true),
        }
    }

    /// Ends all faults.
    pub fn end(&mut self, sim: &mut Sim<'_>) {
        self.repair(sim, |_| true);
    }

    fn repair(&mut self, sim: &mut Sim<'_>, due: impl Fn(u64) -> bool) {
        let (now, later) = std::mem::take(&mut self.repairs).into_iter().partition(|(at, _)| due(*at));
        self.repairs = later;
        let now: Vec<(u64, Repair)> = now;
        for (_, repair) in now {
            match repair {
                Repair::Start(node) => {
                    super::trace(&format!("start {}", self.machines[node].host()));
                    sim.bounce(self.machines[node].host());
                }
                Repair::Link(a, b) => {
                    super::trace(&format!("repair {a} {b}"));
                    sim.repair(a, b);
                }
            }
        }
    }

    /// Power loss of one machine. Sometimes nobody hears of it: its connections stay half open.
    fn crash(&mut self, sim: &mut Sim<'_>, node: usize, until_ms: u64) {
        let machine = &self.machines[node];
        if machine.member().is_none() {
            return;
        }
        let silent = self.rng.chance(50);
        super::trace(&format!("crash {} silent={silent}", machine.host()));
        if silent {
            self.links(node, true, true).for_each(|(a, b)| sim.partition(a, b));
        }
        machine.lose_power();
        sim.crash(machine.host());
        if silent {
            self.links(node, true, true).for_each(|(a, b)| sim.repair(a, b));
        }
        self.repairs.push((until_ms, Repair::Start(node)));
    }

    /// Cuts one node from the others, from the clients, or from both.
    fn cut(&mut self, sim: &mut Sim<'_>, node: usize, until_ms: u64, nodes: bool, clients: bool) {
        let one_way = self.rng.chance(25);
        let outwards = self.rng.chance(50);
        super::trace(&format!("cut n{} nodes={nodes} clients={clients} one_way={one_way}", node + 1));
        for (a, b) in self.links(node, nodes, clients).collect::<Vec<_>>() {
            match (one_way, outwards) {
                (false, _) => sim.partition(a.clone(), b.clone()),
                (true, true) => sim.partition_oneway(a.clone(), b.clone()),
                (true, false) => sim.partition_oneway(b.clone(), a.clone()),
            }
            self.repairs.push((until_ms, Repair::Link(a, b)));
        }
    }

    fn links(&self, node: usize, nodes: bool, clients: bool) -> impl Iterator<Item = (String, String)> {
        let me = host(node + 1);
        let others = (0..NODES).filter(move |n| nodes && *n != node).map(|n| host(n + 1));
        let clients = self.clients.iter().filter(move |_| clients).cloned();
        others.chain(clients.collect::<Vec<_>>()).map(move |other| (me.clone(), other))
    }
}
