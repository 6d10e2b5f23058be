//! Shared subscriptions: which member gets a message, and what waits for one.

use std::collections::BTreeSet;

use proptest::prelude::{Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::{Config, TestCaseError};

use super::super::limits::{MOVES_MAX, SHARED_AHEAD};
use super::super::queue::Entry;
use super::*;
use crate::sharing::{Sharing, Strategy};
use DeliveryStep::{Done, Received, Refused};

const GROUP: &str = "$share/g/a";

fn with(nodes: NodeId, sharing: Sharing) -> Rig {
    let mut rig = Rig::default();
    for node in 1..=nodes {
        rig.up_as(node, NodeInfo { sharing: sharing.clone(), ..NodeInfo::default() });
    }
    rig
}

fn by(strategy: Strategy) -> Sharing {
    Sharing { strategy, ..Sharing::default() }
}

fn member(rig: &mut Rig, node: NodeId, client: &str, receive_maximum: u16) -> Incarnation {
    let (incarnation, _) = rig.claim(node, Claim { receive_maximum, ..persistent(client) });
    rig.subscribe(node, client, incarnation, &[sub(GROUP, 2)]);
    incarnation
}

fn release(rig: &mut Rig, node: NodeId, client: &str, incarnation: Incarnation, sent: Option<QueueSeq>) {
    let (client, will) = (client.into(), WillFate::Discard);
    rig.run(node, Command::Release { client, incarnation, will, expiry_s: None, sent });
}

fn announce(rig: &mut Rig, node: NodeId, members: u32) {
    rig.run(node, Command::RouteAdd { filter: GROUP.into() });
    if members != 1 {
        rig.run(node, Command::SharedMembers { filter: GROUP.into(), members });
    }
}

fn publish(rig: &mut Rig, payloads: std::ops::Range<usize>, qos: usize) {
    for payload in payloads {
        rig.publish(1, message("a", &payload.to_string(), qos));
    }
}

/// Payloads of all that a session still has to get, sent or not.
fn held(rig: &Rig, client: &str) -> Vec<String> {
    let Some(session) = rig.state.sessions.session(client) else { return Vec::new() };
    let (window, waiting) = session.queue.parts();
    window
        .values()
        .chain(waiting.iter())
        .map(|e: &Entry| text(&e.parcel.here().expect("in memory")))
        .collect()
}

fn waiting(rig: &Rig) -> Vec<String> {
    let backlog = rig.state.shared.backlog(GROUP);
    backlog
        .into_iter()
        .flat_map(|queue| queue.parts().1.iter())
        .map(|e| text(&e.parcel.here().expect("in memory")))
        .collect()
}

/// What the last pack handed to nodes.
fn handed(rig: &Rig) -> Vec<(NodeId, String, u8)> {
    let shared = |e: &Effect| match e {
        Effect::DeliverShared { node, parcel, moves, .. } => {
            Some((*node, text(&parcel.here().expect("in memory")), *moves))
        }
        _ => None,
    };
    rig.effects.iter().filter_map(shared).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn what_nobody_was_there_for_goes_to_who_comes_first() {
    let mut rig = Rig::new(2);
    let p = member(&mut rig, 1, "p", 10);
    let q = member(&mut rig, 2, "q", 10);
    release(&mut rig, 1, "p", p, None);
    release(&mut rig, 2, "q", q, None);
    publish(&mut rig, 0..5, 1);
    publish(&mut rig, 5..6, 2);
    assert_eq!((waiting(&rig), held(&rig, "p"), held(&rig, "q")), (numbers(0..6), vec![], vec![]));
    rig.claim(1, persistent("q"));
    assert_eq!(rig.payloads("q"), numbers(0..6), "in order");
    assert_eq!(waiting(&rig), numbers(0..0));
    assert_eq!(rig.stored("q").iter().filter(|s| s.dup).count(), 0, "never sent before");
}

#[test]
fn who_subscribes_gets_what_waits() {
    let mut rig = Rig::new(1);
    let p = member(&mut rig, 1, "p", 10);
    release(&mut rig, 1, "p", p, None);
    publish(&mut rig, 0..3, 1);
    member(&mut rig, 1, "q", 10);
    assert_eq!((held(&rig, "q"), rig.woken()), (numbers(0..3), vec!["q".to_owned(); 1]));
}

#[test]
fn what_was_not_sent_goes_to_another_member_at_once_and_what_was_stays() {
    let mut rig = Rig::new(2);
    let p = member(&mut rig, 1, "p", 10);
    publish(&mut rig, 0..4, 2);
    member(&mut rig, 2, "q", 10);
    release(&mut rig, 1, "p", p, Some(1));
    assert_eq!((held(&rig, "p"), held(&rig, "q")), (numbers(0..1), numbers(1..4)));
    assert!(rig.stored("q").iter().all(|s| s.qos == QoS::ExactlyOnce && !s.dup));
}

#[test]
fn a_node_that_died_may_have_sent_what_was_reserved() {
    let mut rig = Rig::new(2);
    member(&mut rig, 1, "p", 10);
    publish(&mut rig, 0..4, 1);
    member(&mut rig, 2, "q", 10);
    rig.down(2, 1);
    rig.run(2, Command::Sweep { clients: vec!["p".into()], routes: vec![] });
    assert_eq!((held(&rig, "p"), held(&rig, "q")), (numbers(0..4), vec![]), "its session goes on");
    rig.run(2, Command::Tick { elapsed_ms: 100_000 });
    rig.run(2, Command::Sweep { clients: vec!["p".into()], routes: vec![] });
    assert_eq!(held(&rig, "q"), numbers(0..4), "it ended");
}

#[test]
fn members_are_given_what_they_have_room_for_and_more_as_they_acknowledge() {
    let mut rig = Rig::new(1);
    let p = member(&mut rig, 1, "p", 1);
    let room = 1 + SHARED_AHEAD;
    publish(&mut rig, 0..room + 10, 1);
    assert_eq!((held(&rig, "p").len(), waiting(&rig).len()), (room, 10));
    rig.progress(1, "p", p, &[(0, Done), (1, Done), (2, Done)]);
    assert_eq!((held(&rig, "p"), waiting(&rig).len()), (numbers(3..room + 3), 7));
    // Another one takes over what the first has no room for.
    member(&mut rig, 1, "q", 10);
    assert_eq!((held(&rig, "q"), waiting(&rig).len()), (numbers(room + 3..room + 10), 0));
    publish(&mut rig, 100..104, 1);
    assert_eq!((held(&rig, "p").len(), held(&rig, "q").len()), (room, 11), "who has no room is passed over");
}

#[test]
fn clean_members_take_what_waits_when_their_node_asks() {
    let mut rig = Rig::new(2);
    let p = member(&mut rig, 1, "p", 10);
    release(&mut rig, 1, "p", p, None);
    publish(&mut rig, 0..5, 1);
    announce(&mut rig, 2, 1);
    assert_eq!(handed(&rig), []);
    rig.run(2, Command::Draw { filter: GROUP.into(), max: 3 });
    let to_2 = |range: std::ops::Range<usize>| range.map(|n| (2, n.to_string(), 0)).collect::<Vec<_>>();
    assert_eq!((handed(&rig), waiting(&rig)), (to_2(0..3), numbers(3..5)));
    publish(&mut rig, 5..6, 1);
    assert_eq!((handed(&rig), waiting(&rig)), (vec![], numbers(3..6)), "nothing overtakes what waits");
    rig.run(2, Command::Draw { filter: GROUP.into(), max: 9 });
    assert_eq!((handed(&rig), waiting(&rig)), (to_2(3..6), vec![]));
    publish(&mut rig, 6..7, 1);
    assert_eq!(handed(&rig), to_2(6..7));
    // And what a clean member loses is a persistent one's again.
    rig.run(
        2,
        Command::Redeliver { filter: GROUP.into(), message: Arc::new(message("a", "6", 1)), moves: 0 },
    );
    assert_eq!((handed(&rig), waiting(&rig)), (vec![], numbers(6..7)));
    rig.claim(1, persistent("p"));
    assert_eq!(held(&rig, "p"), numbers(6..7));
}

#[test]
fn without_a_persistent_member_nothing_waits() {
    let mut rig = Rig::new(2);
    announce(&mut rig, 2, 1);
    rig.down(1, 2);
    publish(&mut rig, 0..1, 1);
    assert_eq!((handed(&rig), waiting(&rig)), (vec![], vec![]));
    let p = member(&mut rig, 1, "p", 10);
    release(&mut rig, 1, "p", p, None);
    publish(&mut rig, 1..2, 1);
    rig.publish(1, message("a", "QoS 0", 0));
    assert_eq!(waiting(&rig), numbers(1..2));
    rig.run(1, Command::Sweep { clients: vec![], routes: vec![GROUP.into()] });
    let before = bytes(&rig.state).len();
    rig.claim(1, clean("p"));
    assert_eq!(waiting(&rig), numbers(0..0), "the last member is gone");
    assert!(bytes(&rig.state).len() < before);
}

#[test]
fn what_waits_expires() {
    let mut rig = Rig::new(1);
    let p = member(&mut rig, 1, "p", 10);
    release(&mut rig, 1, "p", p, None);
    rig.publish(1, Message { expires_at_ms: 50, ..message("a", "old", 1) });
    rig.publish(1, message("a", "new", 1));
    rig.tick(50);
    rig.claim(1, persistent("p"));
    assert_eq!(rig.payloads("p"), ["new"]);
}

#[test]
fn a_refused_message_goes_to_another_member_and_not_round_for_ever() {
    let mut rig = Rig::new(1);
    let p = member(&mut rig, 1, "p", 10);
    publish(&mut rig, 0..1, 1);
    publish(&mut rig, 1..2, 2);
    rig.progress(1, "p", p, &[(0, Refused)]);
    assert_eq!((held(&rig, "p"), waiting(&rig)), (numbers(1..2), vec![]), "discarded: there is nobody else");
    let q = member(&mut rig, 1, "q", 10);
    rig.progress(1, "p", p, &[(1, Refused)]);
    assert_eq!((held(&rig, "p"), held(&rig, "q")), (vec![], numbers(1..2)));
    assert_eq!(rig.stored("q")[0].qos, QoS::ExactlyOnce);
    for moves in 2..=MOVES_MAX {
        let (from, incarnation, to) = if moves.is_multiple_of(2) { ("q", q, "p") } else { ("p", p, "q") };
        let seq = rig.stored(from)[0].seq;
        rig.progress(1, from, incarnation, &[(seq, Refused)]);
        assert_eq!((held(&rig, from), held(&rig, to)), (vec![], numbers(1..2)), "{moves}");
    }
    let last = if MOVES_MAX.is_multiple_of(2) { ("p", p) } else { ("q", q) };
    let seq = rig.stored(last.0)[0].seq;
    rig.progress(1, last.0, last.1, &[(seq, Refused)]);
    assert_eq!((held(&rig, "p"), held(&rig, "q")), (vec![], vec![]));
}

#[test]
fn a_refused_message_waits_in_a_member_that_is_away_if_there_is_no_other() {
    let mut rig = Rig::new(1);
    let p = member(&mut rig, 1, "p", 10);
    publish(&mut rig, 0..1, 1);
    let q = member(&mut rig, 1, "q", 10);
    release(&mut rig, 1, "q", q, None);
    rig.progress(1, "p", p, &[(0, Refused)]);
    assert_eq!((held(&rig, "p"), held(&rig, "q")), (vec![], numbers(0..1)));
}

// Strategies, as the log decides by them.

/// How many of `n` messages each of the clients, then each of the nodes got.
fn shares(rig: &mut Rig, clients: &[&str], nodes: NodeId, n: usize) -> Vec<usize> {
    let mut shares: Vec<usize> = clients.iter().map(|client| held(rig, client).len()).collect();
    shares.extend(vec![0; nodes as usize]);
    let before = shares.clone();
    for i in 0..n {
        rig.publish(1, Message { publisher: format!("p{i}").into(), ..message("a", "x", 1) });
        for (node, ..) in handed(rig) {
            shares[clients.len() + node as usize - 1] += 1;
        }
    }
    for (at, client) in clients.iter().enumerate() {
        shares[at] = held(rig, client).len();
    }
    shares.iter().zip(before).map(|(now, before)| now - before).collect()
}

#[test]
fn each_member_counts_clean_ones_of_a_node_together() {
    for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::HashClientId] {
        let mut rig = with(3, by(strategy));
        member(&mut rig, 1, "p", 2000);
        member(&mut rig, 1, "q", 2000);
        announce(&mut rig, 2, 1);
        announce(&mut rig, 3, 6);
        let shares = shares(&mut rig, &["p", "q"], 3, 3000);
        let fair = [1.0 / 9.0, 1.0 / 9.0, 0.0, 1.0 / 9.0, 6.0 / 9.0].map(|share| share * 3000.0);
        for (share, fair) in shares.iter().zip(fair) {
            // Six standard deviations; by turns, one turn of each.
            let off = if strategy == Strategy::RoundRobin { 6.0 } else { 6.0 * f64::sqrt(fair) + 1.0 };
            assert!((*share as f64 - fair).abs() <= off, "{strategy}: {shares:?}");
        }
    }
}

#[test]
fn sticky_is_the_same_member_for_the_whole_cluster() {
    let mut rig = with(3, by(Strategy::Sticky));
    let p = member(&mut rig, 1, "p", 100);
    let q = member(&mut rig, 2, "q", 100);
    rig.publish(1, message("a", "x", 1));
    let (first, other) = if held(&rig, "p").is_empty() { (("q", 2, q), "p") } else { (("p", 1, p), "q") };
    for node in [1, 2, 3, 1] {
        rig.publish(node, message("a", "x", 1));
    }
    assert_eq!(held(&rig, first.0).len(), 5);
    release(&mut rig, first.1, first.0, first.2, None);
    publish(&mut rig, 0..2, 1);
    assert_eq!(held(&rig, other).len(), 2);
    rig.claim(first.1, persistent(first.0));
    publish(&mut rig, 0..2, 1);
    assert_eq!(held(&rig, other).len(), 4, "it is there, so it goes on");
}

#[test]
fn local_is_near_the_publisher_if_anybody_is() {
    let mut rig = with(3, by(Strategy::Local));
    member(&mut rig, 1, "p", 100);
    member(&mut rig, 2, "q", 100);
    for _ in 0..4 {
        rig.publish(2, message("a", "x", 1));
    }
    assert_eq!((held(&rig, "p").len(), held(&rig, "q").len()), (0, 4));
    for _ in 0..4 {
        rig.publish(3, message("a", "x", 1));
    }
    assert_eq!((held(&rig, "p").len(), held(&rig, "q").len()), (2, 6));
}

#[test]
fn a_hash_keeps_a_publisher_or_a_topic_with_a_member() {
    for strategy in [Strategy::HashClientId, Strategy::HashTopic] {
        let mut rig = with(1, by(strategy));
        for client in ["p", "q", "r"] {
            let (incarnation, _) = rig.claim(1, Claim { receive_maximum: 100, ..persistent(client) });
            rig.subscribe(1, client, incarnation, &[sub("$share/g/#", 1)]);
        }
        for i in 0..60 {
            let (topic, publisher) = (format!("t{}", i % 6), format!("c{}", i / 10));
            let key = if strategy == Strategy::HashTopic { &topic } else { &publisher };
            rig.publish(1, Message { publisher: publisher.as_str().into(), ..message(&topic, key, 1) });
        }
        let keys = ["p", "q", "r"].map(|client| held(&rig, client).into_iter().collect::<BTreeSet<_>>());
        assert_eq!(keys.iter().map(BTreeSet::len).sum::<usize>(), 6, "{strategy}: {keys:?}");
        assert!(keys.iter().filter(|keys| !keys.is_empty()).count() > 1, "{strategy}: {keys:?}");
    }
}

#[test]
fn the_node_a_message_comes_from_says_how_it_is_divided() {
    let mut rig = Rig::default();
    let groups = ["g/a=sticky".parse().expect("a rule")];
    rig.up_as(
        1,
        NodeInfo { sharing: Sharing { groups: groups.into(), ..by(Strategy::Local) }, ..Default::default() },
    );
    rig.up_as(2, NodeInfo { sharing: by(Strategy::RoundRobin), ..NodeInfo::default() });
    for client in ["p", "q"] {
        member(&mut rig, 2, client, 100);
    }
    publish(&mut rig, 0..6, 1);
    let stuck = [held(&rig, "p").len(), held(&rig, "q").len()];
    assert!(stuck == [6, 0] || stuck == [0, 6], "{stuck:?}");
    for _ in 0..6 {
        rig.publish(2, message("a", "x", 1));
    }
    assert_eq!([held(&rig, "p").len(), held(&rig, "q").len()].map(|n| n % 6), [3, 3]);
}

// Whatever happens.

#[derive(Clone, Debug)]
enum Act {
    Publish {
        node: NodeId,
        qos: usize,
    },
    Claim {
        client: usize,
        node: NodeId,
        receive_maximum: u16,
    },
    /// Whether it says what it sent, and how far it got.
    Release {
        client: usize,
        sent: Option<u64>,
    },
    /// The session ends with its connection, or without one.
    End {
        client: usize,
    },
    Subscribe {
        client: usize,
        qos: usize,
    },
    Unsubscribe {
        client: usize,
    },
    Step {
        client: usize,
        which: usize,
        step: DeliveryStep,
    },
    Announce {
        node: NodeId,
        members: u32,
    },
    Withdraw {
        node: NodeId,
    },
    /// The node dies and comes back.
    Die {
        node: NodeId,
    },
    Draw {
        node: NodeId,
        max: u32,
    },
    /// A clean member on that node is lost with the oldest message it has.
    Lose {
        node: NodeId,
    },
}

const CLIENTS: [&str; 3] = ["p", "q", "r"];

fn act() -> impl proptest::strategy::Strategy<Value = Act> {
    let (client, node) = (0..CLIENTS.len(), 1..4u64);
    let step = prop::sample::select(vec![Done, Done, Done, Received, Refused]);
    prop_oneof![
        8 => (node.clone(), 0..3usize).prop_map(|(node, qos)| Act::Publish { node, qos }),
        4 => (client.clone(), node.clone(), 1..4u16)
            .prop_map(|(client, node, receive_maximum)| Act::Claim { client, node, receive_maximum }),
        2 => (client.clone(), prop::option::of(0..4u64)).prop_map(|(client, sent)| Act::Release { client, sent }),
        1 => client.clone().prop_map(|client| Act::End { client }),
        3 => (client.clone(), 0..3usize).prop_map(|(client, qos)| Act::Subscribe { client, qos }),
        1 => client.clone().prop_map(|client| Act::Unsubscribe { client }),
        6 => (client, 0..4usize, step).prop_map(|(client, which, step)| Act::Step { client, which, step }),
        1 => (node.clone(), 1..4u32).prop_map(|(node, members)| Act::Announce { node, members }),
        1 => node.clone().prop_map(|node| Act::Withdraw { node }),
        1 => node.clone().prop_map(|node| Act::Die { node }),
        2 => (node.clone(), 0..4u32).prop_map(|(node, max)| Act::Draw { node, max }),
        1 => node.prop_map(|node| Act::Lose { node }),
    ]
}

/// A run of acts, and where every message at QoS 1 and 2 is.
struct Run {
    rig: Rig,
    /// Per client: where it is connected.
    connected: [Option<(NodeId, Incarnation)>; CLIENTS.len()],
    /// Per node: what its clean members have.
    clean: BTreeMap<NodeId, Vec<Message>>,
    published: usize,
    /// At QoS 2 and reserved for an owner: it may have been sent to that client, and to no other.
    sent: BTreeMap<String, usize>,
}

impl Run {
    fn new(strategy: Strategy) -> Self {
        let rig = with(3, by(strategy));
        let clean = (1..=3).map(|node| (node, Vec::new())).collect();
        Self { rig, connected: [None; 3], clean, published: 0, sent: BTreeMap::new() }
    }

    /// Every place that has a message, by payload.
    fn places(&self) -> BTreeMap<String, Vec<String>> {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for client in CLIENTS {
            for payload in held(&self.rig, client) {
                places.entry(payload).or_default().push(client.to_owned());
            }
        }
        for payload in waiting(&self.rig) {
            places.entry(payload).or_default().push("waiting".to_owned());
        }
        for (node, messages) in &self.clean {
            for message in messages {
                places.entry(text(message)).or_default().push(format!("node {node}"));
            }
        }
        places
    }

    fn members(&self) -> usize {
        self.rig.state.shared.get(GROUP).map_or(0, |group| group.slots().len())
    }

    /// Notes what the last command handed to nodes.
    fn take_handed(&mut self) {
        for effect in &self.rig.effects {
            if let Effect::DeliverShared { node, parcel, .. } = effect {
                let message = parcel.here().expect("in memory");
                if message.qos > QoS::AtMostOnce {
                    self.clean.entry(*node).or_default().push(Message::clone(&message));
                }
            }
        }
    }

    fn run(&mut self, node: NodeId, command: Command) -> Outcome {
        let outcome = self.rig.run(node, command);
        self.take_handed();
        outcome
    }

    /// Carries one out; the payloads that may be gone by it.
    fn act(&mut self, act: &Act) -> BTreeSet<String> {
        let mut over = BTreeSet::new();
        match *act {
            Act::Publish { node, qos } => {
                self.published += 1;
                let message = Arc::new(message("a", &self.published.to_string(), qos));
                self.run(node, Command::Publish { message, exactly_once: None, or_refuse: false });
            }
            Act::Claim { client, node, receive_maximum } => {
                let claim = Claim { receive_maximum, ..persistent(CLIENTS[client]) };
                if let Outcome::Claimed { incarnation, .. } = self.run(node, Command::Claim(claim)) {
                    self.connected[client] = Some((node, incarnation));
                }
            }
            Act::Release { client, sent } => {
                let Some((node, incarnation)) = self.connected[client].take() else { return over };
                let id: Arc<str> = CLIENTS[client].into();
                let sent = sent.map(|ahead| self.rig.state.queue_head(&id).unwrap_or(0) + ahead);
                if let (Some(sent), Some(session)) = (sent, self.rig.state.sessions.session(&id)) {
                    let queue = &session.queue;
                    let unsent = queue.parts().0.range(sent.max(queue.dup_upto())..);
                    for (_, entry) in unsent {
                        self.sent.remove(&text(&entry.parcel.here().expect("in memory")));
                    }
                }
                let will = WillFate::Discard;
                self.run(node, Command::Release { client: id, incarnation, will, expiry_s: None, sent });
            }
            Act::End { client } => {
                self.connected[client] = None;
                over.extend(
                    self.sent.iter().filter(|(_, c)| **c == client).map(|(payload, _)| payload.clone()),
                );
                let outcome =
                    self.run(1, Command::Claim(Claim { clean_start: true, ..clean(CLIENTS[client]) }));
                if let Outcome::Claimed { incarnation, .. } = outcome {
                    let client = CLIENTS[client].into();
                    let (will, expiry_s, sent) = (WillFate::Discard, None, None);
                    self.run(1, Command::Release { client, incarnation, will, expiry_s, sent });
                }
            }
            Act::Subscribe { client, qos } => {
                let Some((node, incarnation)) = self.connected[client] else { return over };
                let (client, subscriptions) = (CLIENTS[client].into(), vec![sub(GROUP, qos)]);
                self.run(node, Command::Subscribe { client, incarnation, subscriptions });
            }
            Act::Unsubscribe { client } => {
                let Some((node, incarnation)) = self.connected[client] else { return over };
                let (client, filters) = (CLIENTS[client].into(), vec![GROUP.into()]);
                self.run(node, Command::Unsubscribe { client, incarnation, filters });
            }
            Act::Step { client, which, step } => {
                let Some((node, incarnation)) = self.connected[client] else { return over };
                let Some(stored) = self.rig.stored(CLIENTS[client]).into_iter().nth(which) else {
                    return over;
                };
                if step == Refused {
                    // The client says that it does not have it.
                    self.sent.remove(&text(&stored.message));
                }
                if step != Received {
                    over.insert(text(&stored.message));
                }
                let (client, steps) = (CLIENTS[client].into(), vec![(stored.seq, step)]);
                self.run(node, Command::Progress { client, incarnation, steps });
            }
            Act::Announce { node, members } => {
                self.run(node, Command::RouteAdd { filter: GROUP.into() });
                self.run(node, Command::SharedMembers { filter: GROUP.into(), members });
            }
            Act::Withdraw { node } => {
                self.run(node, Command::RouteRemove { filter: GROUP.into() });
            }
            Act::Die { node } => {
                let by = node % 3 + 1;
                over.extend(self.clean.remove(&node).into_iter().flatten().map(|m| text(&m)));
                self.rig.down(by, node);
                self.rig.up_as(
                    node,
                    NodeInfo { sharing: self.rig.state.nodes.sharing(node), ..NodeInfo::default() },
                );
                let mut clients = Vec::new();
                for (connected, client) in self.connected.iter_mut().zip(CLIENTS) {
                    if connected.take_if(|(on, _)| *on == node).is_some() {
                        clients.push(Arc::from(client));
                    }
                }
                self.run(by, Command::Sweep { clients, routes: vec![GROUP.into()] });
            }
            Act::Draw { node, max } => {
                self.run(node, Command::Draw { filter: GROUP.into(), max });
            }
            Act::Lose { node } => {
                let Some(lost) =
                    self.clean.get_mut(&node).filter(|has| !has.is_empty()).map(|has| has.remove(0))
                else {
                    return over;
                };
                if !self.rig.state.is_shared_durably(GROUP) {
                    // Then it is no matter of the log.
                    over.insert(text(&lost));
                    return over;
                }
                self.run(
                    node,
                    Command::Redeliver { filter: GROUP.into(), message: Arc::new(lost), moves: 0 },
                );
            }
        }
        over
    }

    fn check(
        &mut self,
        act: &Act,
        before: &BTreeMap<String, Vec<String>>,
        over: &BTreeSet<String>,
    ) -> Result<(), TestCaseError> {
        let after = self.places();
        for (payload, places) in &after {
            prop_assert_eq!(places.len(), 1, "{} is with {:?}", payload, places);
        }
        for payload in before.keys().filter(|payload| !after.contains_key(*payload)) {
            prop_assert!(over.contains(payload) || self.members() == 0, "{} is gone by {:?}", payload, act);
        }
        if matches!(act, Act::Publish { qos: 1 | 2, .. }) && self.rig.state.is_shared_durably(GROUP) {
            prop_assert!(
                after.contains_key(&self.published.to_string()),
                "nobody has what was just published"
            );
        }
        // Nobody who has room for it waits beside what waits.
        if !waiting(&self.rig).is_empty() {
            for client in CLIENTS {
                let Some(session) = self.rig.state.sessions.session(client) else { continue };
                let wants = session.subs.get(GROUP).is_some_and(|sub| sub.options.qos > QoS::AtMostOnce);
                let online = session.owner.is_some_and(|owner| self.rig.state.nodes.is_up(owner));
                prop_assert!(
                    !(wants && online && session.has_credit()),
                    "{} has room after {:?}",
                    client,
                    act
                );
            }
        }
        for (at, client) in CLIENTS.iter().enumerate() {
            let Some(session) = self.rig.state.sessions.session(client) else { continue };
            for entry in session.queue.parts().0.values().filter(|e| e.qos == QoS::ExactlyOnce) {
                self.sent.entry(text(&entry.parcel.here().expect("in memory"))).or_insert(at);
            }
        }
        for (payload, client) in &self.sent {
            if let Some(places) = after.get(payload) {
                prop_assert_eq!(&places[0], CLIENTS[*client], "{} may have been sent", payload);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config { cases: 300, ..Config::default() })]
    #[test]
    fn each_message_is_with_exactly_one_member_whatever_happens(
        strategy in prop::sample::select(&Strategy::ALL[..]),
        acts in prop::collection::vec(act(), 1..120),
        restore in any::<prop::sample::Index>(),
    ) {
        let mut run = Run::new(strategy);
        let restore = restore.index(acts.len());
        for (at, act) in acts.iter().enumerate() {
            let before = run.places();
            let over = run.act(act);
            run.check(act, &before, &over)?;
            if at == restore {
                run.rig.state = State::read(&mut bytes(&run.rig.state).as_slice(), Arc::default()).expect("a snapshot");
                prop_assert_eq!(run.places().len(), run.places().values().flatten().count());
            }
        }
    }
}
