//! The state machine at its border: packs in, outcomes, effects and queries out.

mod bounds;
mod delivery;
mod dividing;
mod draining;
mod elsewhere;
mod features;
mod fencing;
mod fixtures;
mod listing;
mod lives;
mod model;
mod ownership;
mod parcels;
mod publishing;
mod replay;
mod replaying;
mod stall;
mod subscribing;
mod takeover;
mod wall;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::NodeLimits;
use super::*;
use crate::mqtt::{Message, QoS, SubOptions};

/// The term that everything is appended in.
pub const TERM: u64 = 1;

pub(super) const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// A state and the sequence numbers of the nodes that feed it.
#[derive(Default)]
pub(super) struct Rig {
    pub state: State,
    index: LogIndex,
    /// Per node: epoch and next sequence.
    origins: BTreeMap<NodeId, (Epoch, u64)>,
    pub effects: Vec<Effect>,
}

impl Rig {
    /// A state in which nodes 1 to `nodes` are up in epoch 1.
    pub fn new(nodes: NodeId) -> Self {
        let mut rig = Self::default();
        for node in 1..=nodes {
            rig.up(node);
        }
        rig
    }

    /// Starts a node, in an epoch of its own.
    pub fn up(&mut self, node: NodeId) {
        self.up_with(node, NodeLimits::default());
    }

    /// As [`Self::up`], with what its clients may make the cluster keep.
    pub fn up_with(&mut self, node: NodeId, limits: NodeLimits) {
        self.up_as(node, NodeInfo { name: format!("n{node}"), limits, ..NodeInfo::default() });
    }

    /// As [`Self::up`], with all that the node says of itself.
    pub fn up_as(&mut self, node: NodeId, info: NodeInfo) {
        let epoch = self.origins.get(&node).map_or(1, |(e, _)| e + 1);
        self.origins.insert(node, (epoch, 0));
        self.run(node, Command::NodeUp { info });
    }

    pub fn epoch(&self, node: NodeId) -> Epoch {
        self.origins[&node].0
    }

    pub fn down(&mut self, by: NodeId, node: NodeId) {
        let epoch = self.epoch(node);
        self.run(by, Command::NodeDown { node, epoch, term: TERM });
    }

    /// Applies one pack as given; the effects replace those of the pack before.
    pub fn apply(&mut self, pack: &Pack) -> Option<Vec<Outcome>> {
        self.index += 1;
        self.effects.clear();
        // As from the log: every replica decodes its own copy.
        let pack = Pack::decode(&pack.encode()).expect("what was encoded");
        self.state.apply(self.index, TERM, &pack, &mut self.effects).expect("commands that are known")
    }

    pub fn pack(&mut self, node: NodeId, commands: Vec<Command>) -> Pack {
        let (epoch, seq) = self.origins.get_mut(&node).expect("a node that was started");
        *seq += 1;
        Pack { origin: node, epoch: *epoch, seq: *seq - 1, commands }
    }

    /// Applies one command of a live node.
    pub fn run(&mut self, node: NodeId, command: Command) -> Outcome {
        let pack = self.pack(node, vec![command]);
        self.apply(&pack).expect("in sequence").remove(0)
    }

    pub fn tick(&mut self, elapsed_ms: u64) {
        self.tick_by(1, elapsed_ms);
    }

    pub fn tick_by(&mut self, leader: NodeId, elapsed_ms: u64) {
        self.run(leader, Command::Tick { elapsed_ms });
    }

    pub fn claim(&mut self, node: NodeId, claim: Claim) -> (Incarnation, bool) {
        match self.run(node, Command::Claim(claim)) {
            Outcome::Claimed { incarnation, session_present } => (incarnation, session_present),
            other => panic!("{other:?}"),
        }
    }

    pub fn release(
        &mut self,
        node: NodeId,
        client: &str,
        incarnation: Incarnation,
        will: WillFate,
    ) -> Outcome {
        let client = client.into();
        self.run(node, Command::Release { client, incarnation, will, expiry_s: None, sent: None })
    }

    pub fn subscribe(&mut self, node: NodeId, client: &str, incarnation: Incarnation, subs: &[Subscription]) {
        let command = Command::Subscribe { client: client.into(), incarnation, subscriptions: subs.to_vec() };
        assert!(matches!(self.run(node, command), Outcome::Subscribed { .. }));
    }

    pub fn publish(&mut self, node: NodeId, message: Message) -> u32 {
        match self
            .run(node, Command::Publish { message: Arc::new(message), exactly_once: None, or_refuse: false })
        {
            Outcome::Published { matched, duplicate: false } => matched,
            other => panic!("{other:?}"),
        }
    }

    pub fn progress(
        &mut self,
        node: NodeId,
        client: &str,
        incarnation: Incarnation,
        steps: &[(u64, DeliveryStep)],
    ) {
        let command = Command::Progress { client: client.into(), incarnation, steps: steps.to_vec() };
        assert_eq!(self.run(node, command), Outcome::Ok);
    }

    pub fn sweep(&mut self, client: &str) {
        self.run(1, Command::Sweep { clients: vec![client.into()], routes: vec![] });
    }

    pub fn stored(&self, client: &str) -> Vec<Stored> {
        let incarnation = self.state.client(client).expect("a session").incarnation;
        self.state.stored(client, incarnation, 0, usize::MAX).items
    }

    /// Payloads of what the client may be sent.
    pub fn payloads(&self, client: &str) -> Vec<String> {
        self.stored(client).iter().map(|s| text(&s.message)).collect()
    }

    /// Topics of the messages the last pack had delivered everywhere.
    pub fn delivered(&self) -> Vec<String> {
        let topic = |e: &Effect| match e {
            Effect::Deliver { message, .. } => Some(message.topic.to_string()),
            _ => None,
        };
        self.effects.iter().filter_map(topic).collect()
    }

    /// Retained messages that owners were told to send at QoS 0: client, subscription identifier,
    /// topics.
    pub fn handed_over(&self) -> Vec<(String, u32, Vec<String>)> {
        let replay = |e: &Effect| match e {
            Effect::Replay { client, filter, replay: Some(replay), .. } => {
                let mut replays = Replays::default();
                replays.set(filter, Some(replay.clone()));
                let given = resumed(&self.state, &mut replays, client);
                let id = given.first().map_or(0, |r| r.2);
                Some((client.to_string(), id, given.into_iter().map(|(topic, ..)| topic).collect()))
            }
            _ => None,
        };
        self.effects
            .iter()
            .filter_map(replay)
            .filter(|(.., topics): &(_, _, Vec<_>)| !topics.is_empty())
            .collect()
    }

    /// Topics of the retained messages that the filter matches.
    pub fn retained(&self, filter: &str) -> Vec<String> {
        let mut replays = Replays::default();
        replays.set(filter, self.state.replay(filter, SubOptions::default(), 0, true));
        resumed(&self.state, &mut replays, "").into_iter().map(|(topic, ..)| topic).collect()
    }

    /// Does what owners were asked for, until they are asked no more; says how often.
    pub fn replay_on(&mut self) -> usize {
        let mut count = 0;
        loop {
            let asked = self.effects.iter().find_map(|e| match e {
                Effect::ReplayNext { client, node, incarnation, .. } => {
                    Some((*node, Command::Replay { client: client.clone(), incarnation: *incarnation }))
                }
                _ => None,
            });
            let Some((node, command)) = asked else { return count };
            assert_eq!(self.run(node, command), Outcome::Ok);
            count += 1;
        }
    }

    pub fn woken(&self) -> Vec<String> {
        let client = |e: &Effect| match e {
            Effect::Wake { client, .. } => Some(client.to_string()),
            _ => None,
        };
        self.effects.iter().filter_map(client).collect()
    }
}

/// Everything the replays still give: topic, payload, subscription identifier.
pub(super) fn resumed(state: &State, replays: &mut Replays, client: &str) -> Vec<(String, String, u32)> {
    let (mut given, mut visits) = (Vec::new(), usize::MAX);
    let resumed = state.resume(replays, client, &mut visits, &mut |r| {
        given.push((r.message.topic.to_string(), text(r.message), r.subscription_id));
        true
    });
    assert_eq!(resumed, Resumed::Finished);
    given
}

pub(super) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

pub(super) fn clean(client: &str) -> Claim {
    Claim { client: client.into(), clean_start: true, expiry_s: 0, will: None, receive_maximum: 10 }
}

/// A session that outlives its connection by 100 seconds.
pub(super) fn persistent(client: &str) -> Claim {
    Claim { clean_start: false, expiry_s: 100, ..clean(client) }
}

pub(super) fn will(topic: &str, delay_s: u32) -> Option<Will> {
    Some(Will { message: Arc::new(message(topic, "will", 1)), expiry_s: None, delay_s })
}

pub(super) fn message(topic: &str, payload: &str, qos: usize) -> Message {
    Message {
        topic: topic.into(),
        payload: payload.as_bytes().into(),
        properties: Box::default(),
        qos: QOS[qos],
        retain: false,
        expires_at_ms: 0,
        publisher: "publisher".into(),
    }
}

pub(super) fn retained(topic: &str, payload: &str, qos: usize) -> Message {
    Message { retain: true, ..message(topic, payload, qos) }
}

pub(super) fn sub(filter: &str, qos: usize) -> Subscription {
    let options = SubOptions { qos: QOS[qos], ..Default::default() };
    Subscription { filter: filter.into(), options, id: 0 }
}

pub(super) fn bytes(state: &State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.freeze().write(&mut bytes).expect("a Vec takes everything");
    bytes
}

pub(super) fn matched(state: &State, topic: &str, qos: usize) -> PublishMatch {
    let mut out = PublishMatch::default();
    state.match_publish(topic, "publisher", QOS[qos], &mut out);
    out
}
