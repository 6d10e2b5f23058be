//! What must hold whatever happens. Each takes in what the clients see as they see it, so that the
//! first thing that is wrong ends the run at its moment.

mod bounds;
mod delivered;
mod expired;
mod lives;
mod once;
mod one_owner;
mod order;
mod retained;
mod routes_equal;
mod sessions_kept;
mod shared;
mod state_equal;
mod subacked;
mod wills;

use super::actors::Cast;
use super::history::{Entry, History};
use super::world::World;

/// One thing that must hold.
pub trait Invariant {
    /// Takes in what happened; what is wrong with it, if anything.
    fn see(&mut self, entry: &Entry) -> Option<String> {
        let _ = entry;
        None
    }

    /// Looks at the nodes, at short intervals.
    fn look(&mut self, world: &World) -> Option<String> {
        let _ = world;
        None
    }

    /// What must come to pass once faults have ended, and has not yet.
    fn owed(&self, world: &World) -> Vec<String> {
        let _ = world;
        Vec::new()
    }
}

/// All of them.
pub struct Invariants {
    all: Vec<Box<dyn Invariant>>,
    /// Entries of the history that were taken in.
    seen: usize,
}

impl Invariants {
    pub fn new(cast: &Cast) -> Self {
        let all: Vec<Box<dyn Invariant>> = vec![
            Box::new(delivered::Delivered::new(cast.sessions())),
            Box::new(once::Once::default()),
            Box::new(order::Order::default()),
            Box::new(one_owner::OneOwner::default()),
            Box::new(sessions_kept::SessionsKept::new(cast.sessions())),
            Box::new(retained::Retained::default()),
            Box::new(wills::Wills::default()),
            Box::new(shared::Shared::default()),
            Box::new(subacked::Subacked::default()),
            Box::new(expired::Expired::default()),
            Box::new(routes_equal::RoutesEqual::default()),
            Box::new(state_equal::StateEqual::new(cast.sessions())),
            Box::new(bounds::Bounds),
        ];
        Self { all, seen: 0 }
    }

    /// Takes in what is new; what is wrong with it.
    pub fn see(&mut self, history: &History) -> Vec<String> {
        let log = history.lock();
        let new = &log.entries[self.seen..];
        let mut wrong = Vec::new();
        for entry in new {
            wrong.extend(self.all.iter_mut().filter_map(|invariant| invariant.see(entry)));
        }
        self.seen = log.entries.len();
        wrong
    }

    pub fn look(&mut self, world: &World) -> Vec<String> {
        self.all.iter_mut().filter_map(|invariant| invariant.look(world)).collect()
    }

    pub fn owed(&self, world: &World) -> Vec<String> {
        self.all.iter().flat_map(|invariant| invariant.owed(world)).collect()
    }
}
