//! **All nodes hold the same state.**
//!
//! Two nodes that have applied the same entry agree on the clock and on what there is, at any
//! moment; and once nothing happens any more, on owners, subscriptions, queues, lives and what is
//! retained. An `apply` that depends on anything but the log (a local clock, the order of a hash
//! map), or a snapshot that leaves something out, makes them drift apart.
//! Seen to fail with a `Command::Tick` that adds a random millisecond on each node (state/machine.rs):
//! seeds 1 and 2.

use std::collections::BTreeMap;

use rookery::state::{Counts, LogIndex};

use super::Invariant;
use crate::sim::actors::cast::{self, MEMBERS, MORTALS, QOS2_PUBLISHERS, SHARED_PUBLISHERS, Subscriber};
use crate::sim::node::Machine;
use crate::sim::world::World;

/// Log positions that are remembered to be compared with a node that comes to them later.
const REMEMBERED: usize = 4_000;

pub struct StateEqual {
    sessions: Vec<&'static str>,
    /// What was seen after an entry, and on which node.
    seen: BTreeMap<LogIndex, (Digest, usize)>,
}

type Digest = (u64, Counts);

impl StateEqual {
    pub fn new(sessions: &[Subscriber]) -> Self {
        let mut sessions: Vec<_> = sessions.iter().map(|s| s.client_id).collect();
        sessions.extend(QOS2_PUBLISHERS);
        sessions.extend(MORTALS);
        sessions.extend([SHARED_PUBLISHERS[1], MEMBERS[0], cast::LAPSING, cast::PASSING]);
        Self { sessions, seen: BTreeMap::new() }
    }

    /// `None`: the node is not running.
    fn digest(&self, machine: &Machine) -> Option<String> {
        let member = machine.member()?;
        let state = member.broker.state();
        let counts = Counts { retained_refused: 0, ..state.counts() };
        let mut text = format!("{} {:?}\n{counts:?}\n", state.clock_ms(), state.nodes());
        for client in &self.sessions {
            let (owner, subscriptions) = (state.owner(client), state.subscriptions(client));
            let queue = (state.queue_head(client), state.sent_upto(client), state.client(client));
            text.push_str(&format!("{client}: {owner:?} {queue:?} {subscriptions:?}\n"));
        }
        let retained = state.retained_get(&cast::topic_of(cast::RETAINING_PUBLISHER));
        text.push_str(&format!("retained: {retained:?}\n"));
        Some(text)
    }
}

impl Invariant for StateEqual {
    fn look(&mut self, world: &World) -> Option<String> {
        for machine in world.members() {
            let Some(member) = machine.member() else { continue };
            let state = member.broker.state();
            // Told in the same breath as the state is changed; nothing yet, where it is a snapshot's.
            let index = *member.lease.applied_watch().borrow();
            if index == 0 {
                continue;
            }
            let digest = (state.clock_ms(), Counts { retained_refused: 0, ..state.counts() });
            let (first, node) = self.seen.entry(index).or_insert((digest, machine.number));
            if *first != digest {
                return Some(format!(
                    "state equal: after entry {index} n{node} had {first:?} and {} has {digest:?}",
                    machine.host()
                ));
            }
        }
        while self.seen.len() > REMEMBERED {
            self.seen.pop_first();
        }
        None
    }

    fn owed(&self, world: &World) -> Vec<String> {
        let mut members = world.members();
        let Some(first) = members.next() else { return Vec::new() };
        let expected = self.digest(first);
        members
            .filter_map(|machine| {
                let other = self.digest(machine);
                (other.is_none() || other != expected).then(|| {
                    format!(
                        "state equal: {} has\n{other:?}\nand {}\n{expected:?}",
                        machine.host(),
                        first.host()
                    )
                })
            })
            .collect()
    }
}
