//! Lets a node's clients go at a pace, while it drains. Leadership goes first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::broker::Broker;
use crate::env::{self, Instant};
use crate::overload::{Rate, SharedBucket};
use crate::raft::{self, Status};
use crate::session::Conn;
use crate::state::{Drain, NodeId, State};

/// As many as may go in this time go at once, milliseconds.
const BURST_MS: u64 = 50;
/// The least time between two groups: what is written together costs less.
const STEP: Duration = Duration::from_millis(10);
/// Between two looks at whether somebody has come in all the same, who was on the way.
const LOOK: Duration = Duration::from_millis(100);
/// How long clients wait for leadership to be handed over before they go.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Between two attempts to do so.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// Those who are still to go.
struct Leaving {
    broker: Arc<Broker>,
    /// The oldest last.
    waiting: Vec<Arc<Conn>>,
    bucket: SharedBucket,
    began: Instant,
}

impl Leaving {
    fn new(broker: Arc<Broker>) -> Self {
        Self { broker, waiting: Vec::new(), bucket: SharedBucket::default(), began: env::now() }
    }

    /// Lets go whoever may go now; how long until the next.
    fn step(&mut self, drain: Drain) -> Duration {
        let Some(rate) = Rate::new(drain.rate_per_s.into(), BURST_MS) else { return LOOK };
        if self.waiting.is_empty() {
            self.waiting = self.broker.clients().all();
            self.waiting.retain(|conn| !conn.is_closing());
            self.waiting.reverse();
        }
        let now_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut group = Vec::new();
        let mut pause = LOOK;
        while let Some(next) = self.waiting.pop() {
            if next.is_closing() {
                continue;
            }
            if let Err(wait_ns) = self.bucket.take(rate, now_ns) {
                self.waiting.push(next);
                pause = Duration::from_nanos(wait_ns);
                break;
            }
            group.push(next);
        }
        if !group.is_empty() {
            self.broker.let_go(&group, drain);
        }
        pause.max(STEP)
    }
}

/// Lets the clients go whenever the node drains, until `stop`.
pub(super) async fn tend(broker: Arc<Broker>, raft: raft::Node, mut stop: watch::Receiver<bool>) {
    let mut drains = broker.drains();
    loop {
        let begun = async { drains.wait_for(Option::is_some).await.is_ok() };
        tokio::select! {
            begun = begun => if !begun { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let mut leaving = Leaving::new(broker.clone());
        let mut handed_over: Option<Instant> = None;
        loop {
            let Some(drain) = *drains.borrow_and_update() else { break };
            if raft.is_leader() && handed_over.is_none_or(|at| at.elapsed() >= HAND_OVER_PAUSE) {
                handed_over = Some(env::now());
                hand_over(&broker, &raft).await;
            }
            let pause = leaving.step(drain);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = drains.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

async fn hand_over(broker: &Broker, raft: &raft::Node) {
    let Some(to) = successor(&raft.status(), &broker.state()) else { return };
    match tokio::time::timeout(HAND_OVER, raft.transfer_leader(Some(to))).await {
        Ok(Ok(to)) => info!("handed leadership over to node {to:016x}, to drain"),
        Ok(Err(error)) => warn!(%error, "this node drains, and leadership cannot be handed over"),
        Err(_) => warn!("this node drains, and leadership was not taken over in time"),
    }
}

/// The most advanced of the other voters that are up and keep their clients.
fn successor(status: &Status, state: &State) -> Option<NodeId> {
    let serves = |node| state.node(node).is_some_and(|n| n.up) && state.draining(node).is_none();
    let heirs = status.followers.iter().filter(|f| status.is_voter(f.node) && serves(f.node));
    heirs.min_by_key(|f| (f.lag, f.node)).map(|f| f.node)
}

/// The rate at which `clients` are gone within four fifths of `within`, if that is more than
/// `rate_per_s`.
pub(super) fn rate_to_end_within(clients: usize, rate_per_s: u32, within: Duration) -> u32 {
    let within_ms = (within.as_millis() * 4 / 5).max(1);
    let needed = (clients as u128 * 1_000).div_ceil(within_ms);
    rate_per_s.max(u32::try_from(needed).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Command, NodeInfo, Pack};

    /// Node 1 leads voters, of which each has the lag that is given.
    fn status(lags: &[(NodeId, u64)]) -> Status {
        let voters: Vec<NodeId> = [1].into_iter().chain(lags.iter().map(|(node, _)| *node)).collect();
        let followers: Vec<_> = lags.iter().map(|(node, lag)| (*node, *lag, 0)).collect();
        Status::led_by_1(&voters, &[], &followers)
    }

    fn run(state: &mut State, (origin, seq): (NodeId, u64), command: Command) {
        let pack = Pack { origin, epoch: 1, seq, commands: vec![command] };
        state.apply(10 * seq + origin, 1, &pack, &mut Vec::new()).expect("known").expect("in sequence");
    }

    #[test]
    fn leadership_goes_to_the_most_advanced_of_those_that_keep_their_clients() {
        let mut state = State::default();
        for node in 1..=3 {
            run(&mut state, (node, 0), Command::NodeUp { info: NodeInfo::default() });
        }
        let drain = Some(Drain { rate_per_s: 1, for_good: false });
        run(&mut state, (1, 1), Command::Drain { node: 1, drain });
        assert_eq!(successor(&status(&[(2, 5), (3, 9)]), &state), Some(2));
        assert_eq!(successor(&status(&[(2, 5), (3, 9), (4, 0)]), &state), Some(2), "the fourth is down");
        run(&mut state, (1, 2), Command::Drain { node: 2, drain });
        assert_eq!(successor(&status(&[(2, 5), (3, 9)]), &state), Some(3));
    }

    #[test]
    fn who_has_to_hurry_goes_faster_and_nobody_slower() {
        let within = Duration::from_secs(5);
        assert_eq!(rate_to_end_within(100, 1_000, within), 1_000);
        assert_eq!(rate_to_end_within(4_000, 1_000, within), 1_000);
        assert_eq!(rate_to_end_within(100_000, 1_000, within), 25_000);
        assert_eq!(rate_to_end_within(usize::MAX, 1, Duration::ZERO), u32::MAX);
    }
}
