//! What a node does for its clients while it has no lease, as `cluster.minority` says, and that
//! they hardly notice when it was only for a moment.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{
    Ack, AckKind, Client, Error, Options, Packet, Props, Publish, Version, connect, subscribe, unsubscribe,
};
use cluster_tests::wait::eventually;

const SOON: Duration = Duration::from_secs(20);

/// Longer than any of these tests makes a lease stay away.
const PATIENT: &str = "lease_patience_ms = 60_000\n";
/// Not at all, so that the tests need not wait for what is refused.
const IMPATIENT: &str = "lease_patience_ms = 0\n";

fn to(cluster: &Cluster, node: usize, options: &Options) -> Client {
    Client::connect(cluster.mqtt(node), options).expect("connects")
}

fn clean(cluster: &Cluster, node: usize) -> Client {
    to(cluster, node, &Options::v5(&fresh("clean")))
}

fn wait_fenced(cluster: &mut Cluster, i: usize) {
    eventually("a node that is cut off is not ready", SOON, || {
        (!cluster.node(i).answers("/readyz")).then_some(())
    });
}

fn message(topic: &str, text: &str, qos: u8, id: u16) -> Publish {
    let (topic, payload) = (topic.to_owned(), text.as_bytes().to_vec());
    Publish { topic, payload, qos, retain: false, dup: false, id, props: Props::default() }
}

/// Cuts all nodes from each other until each has lost its lease.
fn part(cluster: &mut Cluster) {
    (1..=3).for_each(|i| cluster.links().isolate(i));
    (1..=3).for_each(|i| wait_fenced(cluster, i));
}

#[test]
fn what_came_while_there_was_no_lease_is_served_when_it_is_back() {
    let mut cluster = Cluster::linked(PATIENT);
    let topic = fresh("lapse");
    let mut subscriber = clean(&cluster, 1);
    subscriber.subscribe(&[(&format!("{topic}/order"), 1)]).expect("SUBACK");
    let persistent = Options::v5(&fresh("persistent")).persistent();
    let mut queue = to(&cluster, 2, &persistent);
    queue.subscribe(&[(&format!("{topic}/order"), 1)]).expect("SUBACK");
    let (mut publisher, mut granted, mut changing) =
        (clean(&cluster, 1), clean(&cluster, 1), to(&cluster, 1, &Options::v311("changing").persistent()));
    changing.subscribe(&[("old/+", 1)]).expect("SUBACK");
    part(&mut cluster);

    // Nobody is told no, and nobody yes.
    let mut late = Client::open(cluster.mqtt(1), Version::V5).expect("opens");
    late.send(&connect(&Options::v5(&fresh("late")))).expect("sent");
    for number in 0..20u16 {
        let topic = format!("{topic}/order");
        publisher.send_publish(&message(&topic, &number.to_string(), 1, 1 + number)).expect("sent");
    }
    let with = Props::default();
    granted.send(&subscribe(Version::V5, 1, &[(&format!("{topic}/new"), 0)], &with)).expect("sent");
    changing.send(&subscribe(Version::V311, 7, &[("new/+", 1)], &with)).expect("sent");
    changing.send(&unsubscribe(Version::V311, 8, &["old/+"])).expect("sent");
    for client in [&mut publisher, &mut granted, &mut changing] {
        client.ping().expect("connected, and nothing but the answer to this came");
    }
    assert!(matches!(late.packet(Duration::from_millis(100)), Err(Error::Timeout)));

    cluster.links().heal();
    late.await_connack().expect("let in");
    for number in 0..20 {
        let ack = publisher.next_puback(SOON).expect("acknowledged");
        assert_eq!((ack.id, ack.code), (1 + number, 0), "in their order");
    }
    let want: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(subscriber.texts(20, SOON).expect("delivered"), want);
    assert_eq!(queue.texts(20, SOON).expect("queued and delivered"), want);
    assert_eq!(granted.await_suback(1).expect("SUBACK"), [0]);
    // The SUBACK waits for the other nodes too.
    let mut answers = [0; 2].map(|_| {
        loop {
            match changing.packet(SOON).expect("answered") {
                Packet::SubAck { id: 7, codes, .. } => break (7, codes),
                Packet::UnsubAck { id: 8, .. } => break (8, Vec::new()),
                other => assert_eq!(other, Packet::PingResp),
            }
        }
    });
    answers.sort();
    assert_eq!(answers, [(7, vec![1]), (8, Vec::new())]);
    late.publish(&format!("{topic}/new"), "one", 0).expect("sent");
    assert_eq!(granted.recv(SOON).expect("subscribed").text(), "one");
    late.publish("old/x", "not wanted any more", 1).expect("acknowledged");
    late.publish("new/x", "wanted", 1).expect("acknowledged");
    assert_eq!(changing.recv(SOON).expect("subscribed").text(), "wanted");
}

#[test]
fn a_connect_that_waited_in_vain_takes_nobody_over() {
    let mut cluster = Cluster::linked(PATIENT);
    let victim = cluster.follower(&[]);
    let other = cluster.leader();
    cluster.links().isolate(victim);
    wait_fenced(&mut cluster, victim);
    let options = Options::v5(&fresh("moving")).persistent();
    let mut given_up = Client::open(cluster.mqtt(victim), Version::V5).expect("opens");
    given_up.send(&connect(&options)).expect("sent");
    // What it sends next, the node would refuse to read; so it is seen that it has read CONNECT.
    assert!(matches!(given_up.packet(Duration::from_millis(200)), Err(Error::Timeout)));
    drop(given_up);
    let mut client = to(&cluster, other, &options);
    cluster.links().heal();
    cluster.node(victim).wait_ready();
    // What waited there has been dealt with once a later CONNECT is answered.
    drop(clean(&cluster, victim));
    assert!(client.quiet().expect("still connected"));
}

#[test]
fn close_sends_clients_to_another_node() {
    let mut cluster = Cluster::linked(&format!("{IMPATIENT}minority = \"close\"\n"));
    let victim = cluster.follower(&[]);
    let other = cluster.leader();
    let options = Options::v5(&fresh("five")).persistent();
    let mut five = to(&cluster, victim, &options);
    let mut three = to(&cluster, victim, &Options::v311(&fresh("three")));
    cluster.links().isolate(victim);
    assert!(matches!(five.ending(SOON).expect("closed"), Error::Disconnected(0x8b)));
    assert!(matches!(three.ending(SOON).expect("closed"), Error::Closed));
    for version in [Version::V5, Version::V311] {
        let late = Client::connect(cluster.mqtt(victim), &Options::new(version, &fresh("late")));
        assert!(matches!(late, Err(Error::Refused(0x88 | 3))), "{:?}", late.err());
    }
    let moved = to(&cluster, other, &options);
    assert!(moved.session_present);
    cluster.links().heal();
    cluster.node(victim).wait_ready();
    drop(clean(&cluster, victim));
}

#[test]
fn available_serves_the_clean_sessions_of_the_node() {
    let mut cluster = Cluster::linked(&format!("{IMPATIENT}minority = \"available\"\n"));
    let victim = cluster.follower(&[]);
    let other = cluster.leader();
    let topic = fresh("available");
    let of = |last: &str| format!("{topic}/{last}");
    let (mut subscriber, mut publisher) = (clean(&cluster, victim), clean(&cluster, victim));
    subscriber.subscribe(&[(&of("here"), 2), (&of("queued"), 1), (&of("there"), 1)]).expect("SUBACK");
    let mut elsewhere = clean(&cluster, other);
    elsewhere.subscribe(&[(&of("there"), 1), (&of("late"), 1)]).expect("SUBACK");
    let options = Options::v5(&fresh("persistent")).persistent();
    let mut persistent = to(&cluster, victim, &options);
    persistent.subscribe(&[(&of("queued"), 1)]).expect("SUBACK");

    cluster.links().isolate(victim);
    wait_fenced(&mut cluster, victim);
    for (text, qos) in [("one", 1), ("two", 2), ("zero", 0)] {
        assert_eq!(publisher.publish(&of("here"), text, qos).expect("acknowledged"), 0);
        assert_eq!(subscriber.recv(SOON).expect("delivered").text(), text);
    }
    assert_eq!(subscriber.subscribe(&[(&of("new"), 1)]).expect("SUBACK"), [1]);
    assert_eq!(publisher.publish(&of("new"), "new", 1).expect("acknowledged"), 0);
    assert_eq!(subscriber.recv(SOON).expect("delivered").text(), "new");
    assert_eq!(subscriber.unsubscribe(&[&of("new")]).expect("UNSUBACK"), [0]);
    // What others have to do with, the quorum decides.
    for last in ["queued", "there", "new", "nobody"] {
        let code = publisher.publish(&of(last), "no", 1).expect("an answer");
        assert!(code >= 0x80, "{last} was acknowledged: {code:#04x}");
    }
    let code = publisher.retain(&of("retained"), "no", 1);
    assert!(!matches!(code, Ok(0..0x80)), "a retained message was acknowledged: {code:?}");
    let code = persistent.publish(&of("here"), "no", 1).expect("an answer");
    assert!(code >= 0x80, "a persistent publisher was acknowledged: {code:#04x}");
    assert!(persistent.subscribe(&[(&of("more"), 1)]).expect("SUBACK")[0] >= 0x80);
    assert!(persistent.unsubscribe(&[&of("queued")]).expect("UNSUBACK")[0] >= 0x80);
    let late = Client::connect(cluster.mqtt(victim), &Options::v5(&fresh("late")));
    assert!(matches!(late, Err(Error::Refused(0x88))), "{:?}", late.err());

    cluster.links().heal();
    cluster.node(victim).wait_ready();
    let mut publisher = clean(&cluster, victim);
    assert_eq!(publisher.publish(&of("there"), "after", 1).expect("acknowledged"), 0);
    assert_eq!(elsewhere.recv(SOON).expect("delivered").text(), "after");
    let mut persistent = to(&cluster, other, &options);
    assert!(persistent.session_present);
    assert_eq!(publisher.publish(&of("queued"), "after", 1).expect("acknowledged"), 0);
    assert_eq!(persistent.recv(SOON).expect("delivered").text(), "after");
}

#[test]
fn by_default_a_minority_acknowledges_nothing() {
    let mut cluster = Cluster::linked(IMPATIENT);
    let victim = cluster.follower(&[]);
    let topic = fresh("qos0");
    let (mut subscriber, mut publisher) = (clean(&cluster, victim), clean(&cluster, victim));
    let mut old = to(&cluster, victim, &Options::v311(&fresh("three")));
    subscriber.subscribe(&[(&topic, 2)]).expect("SUBACK");
    cluster.links().isolate(victim);
    wait_fenced(&mut cluster, victim);
    publisher.publish(&topic, "zero", 0).expect("sent");
    assert_eq!(subscriber.recv(SOON).expect("delivered").text(), "zero");
    for qos in [1, 2] {
        let code = publisher.publish(&topic, "no", qos).expect("an answer");
        assert!(code >= 0x80, "QoS {qos} was acknowledged: {code:#04x}");
    }
    assert!(subscriber.quiet().expect("connected"), "what is refused is not delivered");
    assert!(matches!(old.publish(&topic, "no", 1), Err(Error::Closed)), "3.x sees a close");
    let id = publisher.take_id();
    publisher.send_publish(&message(&topic, "no", 1, id)).expect("sent");
    // The reason is in the acknowledgement itself.
    let refused = publisher.packet(SOON).expect("an answer");
    assert!(matches!(refused, Packet::Ack(Ack { kind: AckKind::PubAck, code: 0x80.., .. })), "{refused:?}");
}
