//! A node that was paused for longer than its lease comes back into a world that went on without
//! it. Whatever its clients had sent it meanwhile, it acknowledges, delivers and deletes nothing.

use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{
    Ack, AckKind, Client, Error, Options, Packet, Props, Publish, Version, Will, subscribe,
};
use cluster_tests::wait::{eventually, pass};

const SOON: Duration = Duration::from_secs(20);

/// Several leases.
const PAUSE: Duration = Duration::from_secs(10);

fn message(topic: &str, text: &str, qos: u8, id: u16) -> Publish {
    let (topic, payload) = (topic.to_owned(), text.as_bytes().to_vec());
    Publish { topic, payload, qos, retain: false, dup: false, id, props: Props::default() }
}

/// The next message, which is left unacknowledged.
fn next_message(client: &mut Client) -> Publish {
    loop {
        match client.packet(SOON).expect("a message") {
            Packet::Publish(message) => return message,
            other => assert!(matches!(other, Packet::Ack(_) | Packet::PingResp), "{other:?}"),
        }
    }
}

fn a_paused_owner_does_nothing_any_more(choose: impl FnOnce(&mut Cluster) -> usize) {
    let mut cluster = Cluster::start(3);
    let owner = choose(&mut cluster);
    let other = cluster.follower(&[owner]);
    let topic = fresh("pause");
    let of = |last: &str| format!("{topic}/{last}");
    let connect = |node, options: &Options| Client::connect(cluster.mqtt(node), options).expect("connects");
    let mut watching = connect(other, &Options::v5(&fresh("watching")));
    watching.subscribe(&[(&of("will/+"), 1), (&of("own"), 2)]).expect("SUBACK");
    let will = |name: &str| Will::new(&of(&format!("will/{name}")), name, 1);
    let options = Options::v5(&fresh("owned")).persistent().will(will("owned"));
    let mut old = connect(owner, &options);
    old.subscribe(&[(&of("in"), 2)]).expect("SUBACK");
    let clean = Options::v5(&fresh("clean")).keep_alive_s(5).will(will("clean"));
    let mut clean = connect(owner, &clean);
    clean.subscribe(&[(&of("in"), 1)]).expect("SUBACK");
    let mut publisher = connect(other, &Options::v5(&fresh("pub")));
    old.auto_ack = false;
    publisher.publish(&of("in"), "one", 1).expect("acknowledged");
    publisher.publish(&of("in"), "two", 2).expect("acknowledged");
    let (one, two) = (next_message(&mut old), next_message(&mut old));
    assert_eq!(clean.texts(2, SOON).expect("delivered"), ["one", "two"]);
    assert_eq!((one.text(), two.text()), ("one".into(), "two".into()));
    // The client is in the middle of a publish at QoS 2 of its own.
    old.send_publish(&message(&of("own"), "own", 2, 500)).expect("sent");
    assert_eq!(old.await_ack(AckKind::PubRec, 500).expect("PUBREC"), 0);
    assert_eq!(watching.recv(SOON).expect("published").text(), "own");

    cluster.freeze(owner);
    let paused = Instant::now();
    // All this waits in the socket of the paused node.
    old.send_ack(AckKind::PubAck, one.id).expect("sent");
    old.send_ack(AckKind::PubRec, two.id).expect("sent");
    old.send_ack(AckKind::PubRel, 500).expect("sent");
    for (qos, id) in [(1, 501), (2, 502)] {
        old.send_publish(&message(&of("stale"), "stale", qos, id)).expect("sent");
        clean.send_publish(&message(&of("stale"), "stale", qos, id)).expect("sent");
    }
    let request = subscribe(Version::V5, 503, &[(&of("stale"), 1)], &Props::default());
    old.send(&request).expect("sent");
    clean.send(&request).expect("sent");

    // Meanwhile the session has a new owner.
    let mut new =
        eventually("the session moves", SOON, || Client::connect(cluster.mqtt(other), &options).ok());
    assert!(new.session_present);
    new.auto_ack = false;
    for before in [&one, &two] {
        let again = next_message(&mut new);
        assert_eq!((again.text(), again.id, again.dup), (before.text(), before.id, true));
    }
    new.send_ack(AckKind::PubRec, two.id).expect("sent");
    assert_eq!(new.await_ack(AckKind::PubRel, two.id).expect("PUBREL"), 0);
    new.send_ack(AckKind::PubComp, two.id).expect("sent");
    new.send_ack(AckKind::PubRel, 500).expect("sent");
    assert_eq!(new.await_ack(AckKind::PubComp, 500).expect("PUBCOMP"), 0);
    publisher.publish(&of("in"), "three", 1).expect("acknowledged");
    let three = next_message(&mut new);
    assert_eq!(three.text(), "three");
    cluster.wait_up(owner, false);
    let mut wills = watching.texts(2, SOON).expect("the wills of the node that is gone");
    wills.sort();
    assert_eq!(wills, ["clean", "owned"]);
    pass(PAUSE.saturating_sub(paused.elapsed()));

    cluster.thaw(owner);
    for (who, client) in [("owned", &mut old), ("clean", &mut clean)] {
        loop {
            match client.packet(SOON) {
                Ok(Packet::PingResp) | Err(Error::Disconnected(_)) => {}
                // Its keep-alive has run out meanwhile, for all that the node knows.
                Ok(Packet::Disconnect { code: 0x8b | 0x8d | 0x8e, .. }) => {}
                // No is no promise.
                Ok(Packet::Ack(Ack { code: 0x80.., .. })) => {}
                Ok(Packet::SubAck { codes, .. }) if codes.iter().all(|code| *code >= 0x80) => {}
                Err(Error::Closed) => break,
                other => panic!("{who}: a node that was declared down sent {other:?}"),
            }
        }
    }
    cluster.node(owner).wait_ready();
    assert!(watching.quiet().expect("connected"), "no will and no message a second time");
    // What the new owner's client has not acknowledged is there, on the node that was paused too.
    drop(new);
    let mut back = connect_to(&cluster, owner, &options);
    assert!(back.session_present);
    for left in [&one, &three] {
        let again = next_message(&mut back);
        assert_eq!((again.text(), again.id, again.dup), (left.text(), left.id, true));
    }
    back.send_ack(AckKind::PubAck, one.id).expect("sent");
    back.send_ack(AckKind::PubAck, three.id).expect("sent");
    assert!(back.quiet().expect("connected"), "the stale subscription is none");
    publisher.publish(&of("in"), "four", 2).expect("acknowledged");
    assert_eq!(next_message(&mut back).text(), "four");
}

fn connect_to(cluster: &Cluster, node: usize, options: &Options) -> Client {
    Client::connect(cluster.mqtt(node), options).expect("connects")
}

#[test]
fn a_follower_that_owns_sessions_is_paused() {
    a_paused_owner_does_nothing_any_more(|cluster| cluster.follower(&[]));
}

#[test]
fn the_leader_that_owns_sessions_is_paused() {
    a_paused_owner_does_nothing_any_more(Cluster::leader);
}

#[test]
fn a_majority_is_paused_and_the_cluster_stands_still_until_it_is_back() {
    let mut cluster = Cluster::start(3);
    let left = cluster.follower(&[]);
    let paused: Vec<usize> = (1..=3).filter(|i| *i != left).collect();
    let topic = fresh("majority");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = connect_to(&cluster, left, &options);
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    let mut publisher = connect_to(&cluster, left, &Options::v5(&fresh("pub")));
    paused.iter().for_each(|i| cluster.freeze(*i));
    eventually("the node left is not ready", SOON, || (!cluster.node(left).answers("/readyz")).then_some(()));
    publisher.send_publish(&message(&topic, "during", 1, 1)).expect("sent");
    let ack = publisher.next_puback(SOON).expect("an answer");
    assert!(ack.code >= 0x80, "a node alone acknowledged: {ack:?}");
    paused.iter().for_each(|i| cluster.thaw(*i));
    (1..=3).for_each(|i| cluster.node(i).wait_ready());
    // Its session may have begun anew with the node's life, and is the same.
    let mut client = connect_to(&cluster, paused[0], &options);
    assert!(client.session_present);
    let mut publisher = connect_to(&cluster, left, &Options::v5(&fresh("pub")));
    assert_eq!(publisher.publish(&topic, "after", 1).expect("acknowledged"), 0);
    assert_eq!(client.recv(SOON).expect("delivered").text(), "after");
    assert!(client.quiet().expect("connected"));
}
