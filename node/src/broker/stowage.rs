//! Queued messages that are more than this node holds in memory: put away on its disk, and brought
//! back when their session's client is there to take them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Broker;
use crate::env;
use crate::session::{self, Conn};
use crate::state::Parcel;

/// How often it is looked for what to put away. What is queued has at least so long to be taken by
/// a client before that.
const INTERVAL: Duration = Duration::from_millis(250);
/// Looks between two that free what only few messages hold.
const TIDY_EVERY: u32 = 40;

/// The connections that messages are being brought back for.
#[derive(Default)]
pub struct Bringing(Mutex<HashSet<u64>>);

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
        if !self.bringing.0.lock().insert(conn.id()) {
            return;
        }
        let (broker, conn) = (self.clone(), conn.clone());
        wiring.runtime.spawn(async move {
            let brought = env::blocking(move || away.iter().try_for_each(Parcel::bring)).await;
            broker.bringing.0.lock().remove(&conn.id());
            if let Err(error) = brought {
                panic!("a queued message cannot be read from this node's disk any more: {error}");
            }
            session::turn(|| broker.pump(&conn));
        });
    }
}
