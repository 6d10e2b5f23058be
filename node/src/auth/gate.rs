//! A bound on what is done at the same time, and on what waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Lets so many in at a time; a bounded number of others wait.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Of all those who are in or wait.
    places: Arc<Semaphore>,
    inside: Arc<Semaphore>,
}

/// A place before the gate.
#[derive(Debug)]
pub struct Place {
    place: OwnedSemaphorePermit,
    inside: Arc<Semaphore>,
}

/// Being in; over when it is dropped.
#[derive(Debug)]
pub struct Inside {
    _place: OwnedSemaphorePermit,
    _inside: OwnedSemaphorePermit,
}

impl Gate {
    pub fn new(at_a_time: usize, waiting_max: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_a_time + waiting_max)),
            inside: Arc::new(Semaphore::new(at_a_time)),
        }
    }

    /// A place, at once; `None`: there are too many.
    pub fn place(&self) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(Place { place, inside: self.inside.clone() })
    }
}

impl Place {
    /// Waits its turn, first come, first served; `None`: it took longer than `patience`.
    pub async fn enter(self, patience: Duration) -> Option<Inside> {
        let inside = timeout(patience, self.inside.acquire_owned()).await.ok()?.ok()?;
        Some(Inside { _place: self.place, _inside: inside })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn so_many_are_in_and_so_many_wait() {
        let gate = Gate::new(1, 1);
        let first = gate.place().expect("room").enter(PATIENCE).await.expect("in");
        let second = gate.place().expect("room to wait");
        assert!(gate.place().is_none());
        assert!(second.enter(PATIENCE).await.is_none(), "it waited for as long as it would");
        let third = gate.place().expect("the second has left");
        drop(first);
        let third = third.enter(PATIENCE).await.expect("in");
        let fourth = gate.place().expect("room to wait");
        assert!(gate.place().is_none());
        drop((third, fourth));
        gate.place().expect("room").enter(PATIENCE).await.expect("in");
    }
}
