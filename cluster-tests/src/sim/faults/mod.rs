//! What happens to the nodes while clients work: a schedule drawn from the seed.

mod deeds;

use rookery::raft::Change;
use turmoil::Sim;

use super::history::{Event, History};
use super::node::{FOUNDERS, MACHINES};
use super::rng::Rng;
use super::scenario::Scenario;
use super::world::World;

/// How long a fault lasts, milliseconds: below and above what leases and elections take.
const SHORT_MS: (u64, u64) = (30, 1500);
const LONG_MS: (u64, u64) = (1500, 7000);
/// How often a leader tries to change the membership.
const CHANGE_TRIES: usize = 20;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One machine loses power.
    Crash,
    /// Two do, one after the other.
    CrashTwo,
    /// All do.
    CrashAll,
    /// A node is cut off from the others, from the clients, or from both.
    Cut,
    /// In one direction only.
    CutOneWay,
    /// Every link between nodes is cut.
    CutAll,
    /// A cut that comes and goes.
    Flap,
    /// Nothing reaches a node and nothing leaves it, and then all of it at once: its clock and its
    /// timers go on.
    Pause,
    /// Messages of a node take long.
    Slow,
    /// Messages of a node are lost, now and then.
    Loss,
    /// A node's clock gains or loses, within what leases tolerate.
    Drift,
    /// A node's clock jumps ahead.
    Jump,
    /// The leader is asked to hand over.
    Transfer,
    /// A node joins, or leaves for good.
    Membership,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Crash,
        Self::CrashTwo,
        Self::CrashAll,
        Self::Cut,
        Self::CutOneWay,
        Self::CutAll,
        Self::Flap,
        Self::Pause,
        Self::Slow,
        Self::Loss,
        Self::Drift,
        Self::Jump,
        Self::Transfer,
        Self::Membership,
    ];
}

/// What is to be done later.
#[derive(Clone, Debug)]
enum Deed {
    Start(usize),
    Stop(usize),
    Cut(String, String),
    Mend(String, String),
    Release(String, String),
    Speed(String, String),
    Lossless(String, String),
    RightClock(usize),
}

/// The faults of one run.
pub struct Faults {
    rng: Rng,
    scenario: Scenario,
    world: World,
    history: History,
    /// Hosts of clients.
    clients: Vec<String>,
    next_ms: u64,
    later: Vec<(u64, Deed)>,
    active: usize,
    ended: bool,
}

impl Faults {
    pub fn new(
        rng: Rng,
        scenario: &Scenario,
        world: World,
        history: History,
        clients: Vec<String>,
        now_ms: u64,
    ) -> Self {
        let mut rng = rng;
        let next_ms = now_ms + rng.between(scenario.pause_ms.0, scenario.pause_ms.1);
        let scenario = scenario.clone();
        Self { rng, scenario, world, history, clients, next_ms, later: Vec::new(), active: 0, ended: false }
    }

    /// Does what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        self.do_due(sim, |due_ms| due_ms <= now_ms);
        self.retire_removed(now_ms);
        if !self.ended && now_ms >= self.next_ms {
            self.next_ms = now_ms + self.rng.between(self.scenario.pause_ms.0, self.scenario.pause_ms.1);
            if let Some(kind) = self.draw() {
                let (least_ms, most_ms) = if self.rng.chance(70) { SHORT_MS } else { LONG_MS };
                let until_ms = now_ms + self.rng.between(least_ms, most_ms);
                super::trace(&format!("{kind:?} until {until_ms}"));
                self.begin(sim, kind, now_ms, until_ms);
            }
        }
        self.tell();
    }

    /// Ends all faults. A change of the membership that is under way may still have an end.
    pub fn end(&mut self, sim: &mut Sim<'_>) {
        self.ended = true;
        self.world.forget_wishes();
        self.do_due(sim, |_| true);
        self.tell();
    }

    fn tell(&mut self) {
        if self.active != self.later.len() {
            self.active = self.later.len();
            self.history.world(Event::Faults { active: self.active });
        }
    }

    fn draw(&mut self) -> Option<Kind> {
        let all: u64 = self.scenario.faults.iter().map(|(_, weight)| weight).sum();
        let mut at = if all == 0 { return None } else { self.rng.between(0, all) };
        for (kind, weight) in &self.scenario.faults {
            if at < *weight {
                return Some(*kind);
            }
            at -= weight;
        }
        None
    }

    /// A node that is a member, by its number.
    fn any_member(&mut self) -> usize {
        let members: Vec<usize> = self.world.members().map(|m| m.number).collect();
        members[self.rng.between(0, members.len() as u64) as usize]
    }

    fn begin(&mut self, sim: &mut Sim<'_>, kind: Kind, now_ms: u64, until_ms: u64) {
        let node = self.any_member();
        let (nodes, clients) = match self.rng.between(0, 4) {
            0 | 1 => (true, false),
            2 => (false, true),
            _ => (true, true),
        };
        match kind {
            Kind::Crash => self.crash(sim, node, until_ms),
            Kind::CrashTwo => {
                let other = self.any_member();
                self.crash(sim, node, until_ms);
                self.crash(sim, other, until_ms + 500);
            }
            Kind::CrashAll => {
                let all: Vec<usize> = self.world.members().map(|m| m.number).collect();
                for node in all {
                    let extra_ms = self.rng.between(0, 300);
                    self.crash(sim, node, until_ms + extra_ms);
                }
            }
            Kind::Cut => self.cut(sim, node, until_ms, nodes, clients),
            Kind::CutOneWay => self.cut_one_way(sim, node, until_ms, nodes, clients),
            Kind::CutAll => {
                let all: Vec<usize> = self.world.members().map(|m| m.number).collect();
                for node in all {
                    self.cut(sim, node, until_ms, true, false);
                }
            }
            Kind::Flap => self.flap(node, now_ms, until_ms + 2_000, nodes, clients),
            Kind::Pause => self.pause(sim, node, until_ms),
            Kind::Slow => self.slow(sim, node, until_ms + 1_000, nodes, clients),
            Kind::Loss => self.lose_messages(sim, node, until_ms + 1_000, nodes, clients),
            Kind::Drift => self.drift(node, until_ms + 5_000),
            Kind::Jump => self.jump(node),
            Kind::Transfer => {
                let to = self.rng.chance(50).then(|| self.world.machine(node).id);
                self.world.wish(Change::TransferLeader(to), 1);
            }
            Kind::Membership => self.change_membership(node),
        }
    }

    /// One joins while there are few, and one leaves while there are many.
    fn change_membership(&mut self, node: usize) {
        let members = self.world.members().count();
        let spare = (FOUNDERS + 1..=MACHINES).find(|n| !self.world.machine(*n).is_admitted());
        match spare.filter(|_| members <= FOUNDERS || self.rng.chance(50)) {
            Some(spare) => {
                let machine = self.world.machine(spare);
                machine.admit();
                self.world.wish(Change::Add(machine.as_peer()), usize::MAX);
            }
            None if members > FOUNDERS => {
                self.world.wish(Change::Remove(self.world.machine(node).id), CHANGE_TRIES);
            }
            None => {}
        }
    }

    /// A node that was removed is switched off, sooner or later.
    fn retire_removed(&mut self, now_ms: u64) {
        for change in self.world.take_granted() {
            if let Change::Remove(id) = change
                && let Some(machine) = self.world.machines().iter().find(|m| m.id == id)
            {
                machine.retire();
                let number = machine.number;
                let after_ms = self.rng.between(0, 3_000);
                self.later.push((now_ms + after_ms, Deed::Stop(number)));
            }
        }
    }
}
