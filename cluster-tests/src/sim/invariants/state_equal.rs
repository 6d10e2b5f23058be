//! **All nodes hold the same state when it is quiet.**
//!
//! Owners, subscriptions, lives and counts are equal on all nodes once nothing happens any more.
//! An `apply` that depends on anything but the log (a local clock, the order of a hash map), or a
//! snapshot that leaves something out, makes them drift apart.

use std::sync::Arc;

use crate::sim::actors;
use crate::sim::node::Machine;

/// `None`: a node is not running.
fn digest(machine: &Machine) -> Option<String> {
    let member = machine.member()?;
    let state = member.broker.state();
    let mut text = format!("{:?}\n{:?}\n", state.nodes(), state.counts());
    for (client, _) in actors::sessions() {
        let (owner, subscriptions) = (state.owner(client), state.subscriptions(client));
        let queue = (state.queue_head(client), state.sent_upto(client));
        text.push_str(&format!("{client}: {owner:?} {queue:?} {subscriptions:?}\n"));
    }
    let retained = state.retained_get(&actors::topic_of(actors::RETAINING_PUBLISHER));
    text.push_str(&format!("retained: {retained:?}\n"));
    Some(text)
}

pub fn check(machines: &[Arc<Machine>]) -> Vec<String> {
    let first = digest(&machines[0]);
    let differs = |machine: &&Arc<Machine>| {
        let other = digest(machine);
        other.is_none() || other != first
    };
    machines
        .iter()
        .filter(differs)
        .map(|machine| {
            format!("{}'s state is not that of n1:\n{:?}\n{first:?}", machine.host(), digest(machine))
        })
        .collect()
}
