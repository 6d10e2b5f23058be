//! Queued messages that are more than this node holds in memory: put away on its disk, and brought
//! back when their session's client, or a member of their group, is there to take them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Broker;
use crate::env;
use crate::peer::forward::Share;
use crate::session::{self, Conn};
use crate::state::{Epoch, Parcel};

/// How often it is looked for what to put away. What is queued has at least so long to be taken by
/// a client before that.
const INTERVAL: Duration = Duration::from_millis(250);
/// Looks between two that free what only few messages hold.
const TIDY_EVERY: u32 = 40;

/// For whom messages are being brought back.
#[derive(Default)]
pub struct Bringing {
    /// Connections.
    conns: Mutex<HashSet<u64>>,
    /// Shared subscriptions with members here, and what these are to get, in its order: the first
    /// is being brought back.
    groups: Mutex<HashMap<Box<str>, VecDeque<Given>>>,
}

/// A message that this node was given for its members of a shared subscription.
struct Given {
    parcel: Arc<Parcel>,
    moves: u8,
    /// The life that it was given to.
    epoch: Epoch,
}

impl Broker {
    /// Puts away what is too much for the memory, until stopped.
    pub async fn put_queues_away(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        if !self.stock.has_shelf() {
            return;
        }
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut aged, mut looks) = (Vec::new(), 0);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let mut candidates = std::mem::replace(&mut aged, self.stock.take_surplus());
            if self.stock.is_overfull() {
                candidates.append(&mut aged);
            }
            looks += 1;
            let tidy = looks % TIDY_EVERY == 0;
            if !tidy && (candidates.is_empty() || self.stock.surplus_bytes() == 0) {
                continue;
            }
            let stock = self.stock.clone();
            let done = env::blocking(move || {
                stock.put_away(candidates)?;
                if tidy { stock.tidy() } else { Ok(()) }
            });
            if let Err(error) = done.await {
                tracing::warn!(%error, "cannot put queued messages away, they stay in memory");
            }
        }
    }

    /// Brings messages back into memory and goes on with the connection's deliveries. Does nothing
    /// while that is under way for the connection.
    ///
    /// # Panics
    /// When what was put away cannot be read any more: the node comes back with what its log and
    /// snapshots hold.
    pub(super) fn bring(self: &Arc<Self>, conn: &Arc<Conn>, away: Vec<Arc<Parcel>>) {
        let Some(wiring) = self.wiring() else { return };
        if !self.bringing.conns.lock().insert(conn.id()) {
            return;
        }
        let (broker, conn) = (self.clone(), conn.clone());
        wiring.runtime.spawn(async move {
            let brought = env::blocking(move || away.iter().try_for_each(Parcel::bring)).await;
            broker.bringing.conns.lock().remove(&conn.id());
            brought.unwrap_or_else(|error| unreadable(&error));
            session::turn(|| broker.pump(&conn));
        });
    }

    /// Delivers to a member of a shared subscription on this node what `apply` gave it. Nothing
    /// overtakes a message that has to be brought back first.
    ///
    /// # Panics
    /// As [`Self::bring`].
    pub(super) fn deliver_parcel(self: &Arc<Self>, filter: Box<str>, parcel: Arc<Parcel>, moves: u8) {
        let Some(wiring) = self.wiring() else { return };
        let mut groups = self.bringing.groups.lock();
        if !groups.contains_key(&filter)
            && let Some(message) = parcel.here()
        {
            drop(groups);
            self.deliver_shared(Share { moves, ..Share::new(&filter) }, &message.borrow());
            return;
        }
        let line = groups.entry(filter.clone()).or_default();
        line.push_back(Given { parcel, moves, epoch: self.epoch() });
        if line.len() == 1 {
            wiring.runtime.spawn(self.clone().deliver_line(filter));
        }
    }

    /// Delivers what the members of a shared subscription are to get, one after the other.
    async fn deliver_line(self: Arc<Self>, filter: Box<str>) {
        let next = |line: &VecDeque<Given>| line.front().map(|g| (g.parcel.clone(), g.moves, g.epoch));
        let mut first = self.bringing.groups.lock().get(&filter).and_then(next);
        while let Some((parcel, moves, epoch)) = first {
            let message =
                env::blocking(move || parcel.read()).await.unwrap_or_else(|error| unreadable(&error));
            // What an ended life was given went with its members.
            if self.is_alive() && self.epoch() == epoch {
                let share = Share { moves, ..Share::new(&filter) };
                session::turn(|| self.deliver_shared(share, &message.borrow()));
            }
            let mut groups = self.bringing.groups.lock();
            let line = groups.entry(filter.clone()).or_default();
            line.pop_front();
            first = next(line);
            if first.is_none() {
                groups.remove(&filter);
            }
        }
    }
}

fn unreadable<T>(error: &std::io::Error) -> T {
    panic!("a queued message cannot be read from this node's disk any more: {error}")
}
