//! **Bounds are kept.**
//!
//! The log that a node keeps, what waits for a persistent session and what waits for a clean
//! connection stay within their limits, whatever is down.
//! Seen to fail with a log of which nothing is purged (`max_in_snapshot_log_to_keep` in raft/node.rs):
//! seeds 1 and 5; with a `push` (state/queue.rs) that makes no room: seed 18.

use rookery::session::Limits;

use super::Invariant;
use crate::sim::actors::cast::WATCHERS;
use crate::sim::node::{Machine, QUEUE_MESSAGES};
use crate::sim::world::World;

/// How long a snapshot may take to be made and the log before it to be purged, in entries.
const PURGE_LAG: u64 = 1_000;
#[derive(Default)]
pub struct Bounds;

fn log(machine: &Machine) -> Option<String> {
    let member = machine.member()?;
    let (status, config) = (member.raft.status(), member.raft.config().clone());
    // What is not committed cannot be in a snapshot.
    let kept = status.applied.unwrap_or(0).saturating_sub(status.purged.unwrap_or(0));
    let most = config.snapshot_every + config.keep_log + PURGE_LAG;
    (kept > most)
        .then(|| format!("bounds: {} keeps {kept} entries, and not {most}: {status:?}", machine.host()))
}

fn queues(machine: &Machine) -> Option<String> {
    let member = machine.member()?;
    let state = member.broker.state();
    state.clients(None, usize::MAX).into_iter().filter(|info| info.persistent).find_map(|info| {
        // What may have been sent is never dropped.
        let sent = state.sent_upto(&info.client)? - state.queue_head(&info.client)?;
        let most = (QUEUE_MESSAGES as usize).max(sent as usize + 1);
        (info.queued > most).then(|| {
            format!("bounds: {} queues {} for {}, and not {most}", machine.host(), info.queued, info.client)
        })
    })
}

fn connections(machine: &Machine) -> Option<String> {
    let (member, limits) = (machine.member()?, Limits::default());
    WATCHERS.iter().find_map(|(name, _)| {
        let backlog = member.broker.clients().get(name)?.backlog();
        let over = backlog.in_flight > u32::from(limits.inflight_max)
            || backlog.waiting > limits.queue_max as usize
            || backlog.outbox_bytes > 4 * limits.outbox_max_bytes as usize;
        over.then(|| format!("bounds: {} holds {backlog:?} for {name}", machine.host()))
    })
}

impl Invariant for Bounds {
    fn look(&mut self, world: &World) -> Option<String> {
        world
            .members()
            .find_map(|machine| log(machine).or_else(|| queues(machine)).or_else(|| connections(machine)))
    }
}
