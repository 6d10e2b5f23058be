//! What is known of the nodes without asking as a client: read from their states, after each step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rookery::raft::Change;
use rookery::state::{Epoch, NodeId};

use super::history::{Event, History};
use super::node::{FOUNDERS, Machine};
use super::now_ms;

/// How far a node's estimate of the cluster's clock goes beyond the last tick that it applied.
const AHEAD_MAX_MS: u64 = 5_000;

/// The machines, and what was seen on them. Clones share it.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    machines: Vec<Arc<Machine>>,
    seen: Mutex<Seen>,
    wishes: Mutex<Wishes>,
}

#[derive(Default)]
struct Seen {
    /// What the cluster's clock shows at least: some node has applied it.
    clock_ms: u64,
    /// What any node has taken it for, at most.
    latest_ms: u64,
    /// Per machine: its clock, and since when.
    clocks: Vec<(u64, u64)>,
    /// Per machine: the lives that are up in its state.
    live: Vec<Vec<(NodeId, Epoch)>>,
    /// Per node: its newest life, and whether that is over.
    newest: BTreeMap<NodeId, (Epoch, bool)>,
}

/// What an operator wants of the cluster, in order; any leader carries it out.
#[derive(Default)]
struct Wishes {
    open: VecDeque<(Change, usize)>,
    granted: Vec<Change>,
}

impl World {
    pub fn new(machines: Vec<Arc<Machine>>) -> Self {
        let seen = Seen {
            clocks: vec![(0, 0); machines.len()],
            live: vec![Vec::new(); machines.len()],
            ..Seen::default()
        };
        Self(Arc::new(Inner { machines, seen: Mutex::new(seen), wishes: Mutex::default() }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.0.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All machines, those that are no members included, by their number.
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.0.machines
    }

    /// Those of the cluster.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.0.machines.iter().filter(|m| m.is_admitted() && !m.is_gone())
    }

    /// Clients know the nodes of these numbers, from 1.
    pub fn nodes(&self) -> usize {
        self.0.machines.iter().filter(|m| m.is_admitted()).count().max(FOUNDERS)
    }

    pub fn machine(&self, number: usize) -> &Arc<Machine> {
        &self.0.machines[number - 1]
    }

    /// What the cluster's clock shows at least, milliseconds.
    pub fn clock_ms(&self) -> u64 {
        let running = self.0.machines.iter().filter_map(|machine| machine.member());
        let newest = running.map(|member| member.broker.state().clock_ms()).max();
        self.seen().clock_ms.max(newest.unwrap_or(0))
    }

    /// What any node has taken the cluster's clock for at most, milliseconds.
    pub fn latest_ms(&self) -> u64 {
        self.seen().latest_ms
    }

    /// The node's present life; 0: it is down.
    pub fn epoch(&self, number: usize) -> Epoch {
        self.machine(number).member().map_or(0, |member| member.broker.epoch())
    }

    /// Whether the node may speak for the cluster now.
    pub fn has_lease(&self, number: usize) -> bool {
        self.machine(number).has_lease()
    }

    /// Looks at the nodes after a step.
    pub fn look(&self, history: &History) {
        let mut ended = Vec::new();
        let mut seen = self.seen();
        for (at, machine) in self.0.machines.iter().enumerate() {
            let Some(member) = machine.member() else { continue };
            let state = member.broker.state();
            let clock_ms = state.clock_ms();
            if clock_ms != seen.clocks[at].0 {
                seen.clocks[at] = (clock_ms, now_ms());
                seen.clock_ms = seen.clock_ms.max(clock_ms);
            }
            let ahead_ms = (now_ms() - seen.clocks[at].1).min(AHEAD_MAX_MS);
            seen.latest_ms = seen.latest_ms.max(clock_ms + ahead_ms);
            let same =
                state.live_nodes().map(|(node, epoch, _)| (node, epoch)).eq(seen.live[at].iter().copied());
            if same {
                continue;
            }
            seen.live[at] = state.live_nodes().map(|(node, epoch, _)| (node, epoch)).collect();
            for status in state.nodes() {
                let now = (status.epoch, !status.up);
                let before = seen.newest.entry(status.node).or_insert((status.epoch, false));
                if now > *before {
                    if !before.1 {
                        ended.push((status.node, before.0));
                    }
                    *before = now;
                }
            }
        }
        drop(seen);
        for (id, epoch) in ended {
            if let Some(machine) = self.0.machines.iter().find(|m| m.id == id) {
                history.world(Event::LifeEnded { node: machine.number, epoch });
            }
        }
    }

    /// Wants a change, and tries it so often.
    pub fn wish(&self, change: Change, tries: usize) {
        self.wishes().open.push_back((change, tries));
    }

    /// What a leader should try next.
    pub fn next_wish(&self) -> Option<Change> {
        self.wishes().open.front().map(|(change, _)| change.clone())
    }

    /// It has tried.
    pub fn tried(&self, change: &Change, granted: bool) {
        let mut wishes = self.wishes();
        if granted {
            wishes.granted.push(change.clone());
        }
        if let Some((_, tries)) = wishes.open.front_mut().filter(|(of, _)| of == change) {
            *tries -= 1;
            if granted || *tries == 0 {
                wishes.open.pop_front();
            }
        }
    }

    /// Nothing is wanted any more, but that those join who are about to.
    pub fn forget_wishes(&self) {
        self.wishes().open.retain(|(change, _)| matches!(change, Change::Add(_)));
    }

    /// What was carried out since this was last asked.
    pub fn take_granted(&self) -> Vec<Change> {
        std::mem::take(&mut self.wishes().granted)
    }
}
