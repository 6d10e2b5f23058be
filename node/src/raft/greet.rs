//! Finding the others: a node that starts tells every member where it is now, and while no
//! leader is known, every address that might be a member's is asked who lives there and whom it
//! knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rookery_proto::consensus as pb;
use tracing::debug;

use super::network;
use super::node::{Node, WeakNode};
use super::wire::{GROUP, WIRE_VERSION};
use crate::env;
use crate::peer::{ANYONE, Channels, PeerChannel};
use crate::state::NodeId;

/// Pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1000);
/// So long after its start a node goes on telling those that have not answered. (The leader that
/// it remembers does not count: it may look for this node where it used to be.)
const INTRODUCTION: Duration = Duration::from_secs(60);

pub(super) async fn run(node: WeakNode) {
    let mut answered = BTreeSet::new();
    let introduced_at = env::now() + INTRODUCTION;
    loop {
        let Some(node) = node.get() else { return };
        let mut leader = node.leader_changes();
        let lost = leader.borrow_and_update().is_none();
        if lost {
            answered.clear();
        }
        let all_know = node.status().members().all(|m| m.node == node.id() || answered.contains(&m.node));
        if !lost && (all_know || env::now() >= introduced_at) {
            drop(node);
            if leader.changed().await.is_err() {
                return;
            }
            continue;
        }
        round(node.channels(), &node.config().seeds, &mut answered).await;
        drop(node);
        // A change of leader makes the next round urgent or needless.
        drop(tokio::time::timeout(ROUND_PAUSE, leader.changed()).await);
    }
}

/// Asks all who have not answered yet.
async fn round(channels: &Channels, seeds: &[String], answered: &mut BTreeSet<NodeId>) {
    let known = channels.known();
    let mut asked: Vec<(NodeId, PeerChannel)> = known
        .iter()
        .filter(|(node, _)| !answered.contains(node))
        .filter_map(|(node, _)| Some((*node, channels.consensus(*node)?)))
        .collect();
    for seed in seeds.iter().filter(|seed| known.iter().all(|(_, addr)| addr != *seed)) {
        match channels.dial(seed) {
            Ok(channel) => asked.push((ANYONE, channel)),
            Err(e) => debug!("{e}"),
        }
    }
    let answers = asked.into_iter().map(|(node, channel)| async move { (node, ask(channel).await) });
    for (node, answer) in futures::future::join_all(answers).await {
        match answer {
            Ok(hello) => {
                for member in hello.members {
                    channels.relay(member.node, &member.peer_addr);
                }
                if let Some(member) = hello.me {
                    answered.insert(member.node);
                    channels.learn(member.node, &member.peer_addr);
                }
            }
            Err(status) => channels.note_refusal(node, &status),
        }
    }
}

impl Node {
    /// What each of the members `asked` says is wrong with it; nothing of those that are well or do
    /// not answer in time.
    pub async fn troubles(&self, asked: impl Fn(NodeId) -> bool) -> BTreeMap<NodeId, String> {
        let asked = self.channels().known().into_iter().filter(|(node, _)| asked(*node));
        let asked = asked.filter_map(|(node, _)| {
            let channel = self.channels().consensus(node)?;
            Some(async move { Some((node, ask(channel).await.ok()?.trouble)) })
        });
        let answers = futures::future::join_all(asked).await.into_iter().flatten();
        let own = self.trouble().map(|trouble| (self.id(), trouble));
        answers.filter(|(_, trouble)| !trouble.is_empty()).chain(own).collect()
    }
}

async fn ask(channel: PeerChannel) -> Result<pb::HelloResponse, tonic::Status> {
    let mut client = network::client(channel);
    let hello = client.hello(pb::HelloRequest { wire: WIRE_VERSION, group: GROUP });
    match tokio::time::timeout(ANSWER_TIMEOUT, hello).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
    }
}
