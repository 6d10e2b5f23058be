//! **Every node knows the routes to exactly the clean subscribers there are, when it is quiet.**
//!
//! A route that is missing loses messages; one that is left behind by a connection or a node that is
//! gone costs a forward for ever.
//! Seen to fail with `Command::RouteRemove` ignored (state/machine.rs): seeds 4 and 6; and with
//! `sweep_routes` (state/machine.rs) doing nothing: seeds 1, 2 and 3.

use std::collections::{BTreeMap, BTreeSet};

use rookery::state::SweepCursor;

use super::Invariant;
use crate::sim::actors::cast::{self, MEMBERS, RETAINING_PUBLISHER, SHARED_FILTER, WATCHERS};
use crate::sim::history::{ConnId, Entry, Event};
use crate::sim::world::World;

/// Filters that are looked for, of those that have to be swept.
const SWEPT_AT_ONCE: usize = 16;

#[derive(Default)]
pub struct RoutesEqual {
    /// Connections of clean subscribers: their node and filter.
    subscribed: BTreeMap<ConnId, (usize, &'static str)>,
    nodes: BTreeMap<ConnId, usize>,
}

impl Invariant for RoutesEqual {
    fn see(&mut self, entry: &Entry) -> Option<String> {
        let clean =
            MEMBERS[1..].contains(&entry.client) || WATCHERS.iter().any(|(name, _)| *name == entry.client);
        match entry.event {
            Event::Connected { node, .. } if clean => {
                self.nodes.insert(entry.conn, node);
            }
            Event::Subscribed { filter } if clean => {
                let node = self.nodes.get(&entry.conn).copied().unwrap_or_default();
                self.subscribed.insert(entry.conn, (node, filter));
            }
            Event::Closed { .. } => {
                self.subscribed.remove(&entry.conn);
            }
            _ => {}
        }
        None
    }

    fn owed(&self, world: &World) -> Vec<String> {
        let mut wanted: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (node, filter) in self.subscribed.values() {
            wanted.entry(filter).or_default().insert(world.machine(*node).id);
        }
        let reader = cast::topic_of(RETAINING_PUBLISHER);
        let filters: BTreeSet<_> =
            WATCHERS.iter().map(|(_, filter)| *filter).chain([SHARED_FILTER]).collect();
        let mut owed = Vec::new();
        for machine in world.members() {
            let Some(member) = machine.member() else { continue };
            let state = member.broker.state();
            for filter in &filters {
                let have: BTreeSet<u64> = state.route_nodes(filter).into_iter().collect();
                let want = wanted.get(filter).cloned().unwrap_or_default();
                if have != want {
                    let name = machine.host();
                    owed.push(format!("routes equal: {name} has {have:x?} for {filter}, wanted {want:x?}"));
                }
            }
            let left = state.due(state.clock_ms(), &mut SweepCursor::default(), SWEPT_AT_ONCE).routes;
            if !left.is_empty() {
                owed.push(format!("routes equal: {} has routes of ended lives: {left:?}", machine.host()));
            }
            // The reader comes and goes; whatever else there is was left behind.
            let known = wanted.len() + usize::from(!state.route_nodes(&reader).is_empty());
            let routes = state.counts().routes;
            if routes > known {
                owed.push(format!("routes equal: {} has {routes} routes and not {known}", machine.host()));
            }
        }
        owed
    }
}
