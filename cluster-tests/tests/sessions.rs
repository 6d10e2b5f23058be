//! A persistent session belongs to the cluster, not to a node, and has one owner at a time.

use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::mqtt::{Ack, AckKind, Client, Error, Options, Packet, Props, Publish, VERSIONS, Version};
use cluster_tests::wait::eventually;
use cluster_tests::{fresh, http};

const SOON: Duration = Duration::from_secs(20);

/// Persistent options of every version.
fn all_versions() -> impl Iterator<Item = Options> {
    VERSIONS.into_iter().map(|version| Options::new(version, &fresh("session")).persistent())
}

#[test]
fn what_came_while_away_is_found_on_another_node() {
    let cluster = Cluster::start(3);
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    for options in all_versions() {
        let topic = fresh("away");
        let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
        assert!(!client.session_present, "{options:?}");
        assert_eq!(client.subscribe(&[(&topic, 2)]).expect("SUBACK"), [2]);
        client.disconnect().expect("leaves");
        for (qos, text) in [(1, "one"), (2, "two"), (1, "three")] {
            assert_eq!(publisher.publish(&topic, text, qos).expect("acknowledged"), 0);
        }
        let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
        // In 3.1 CONNACK has no place for it.
        assert!(client.session_present || options.version == Version::V31, "{options:?}");
        assert_eq!(client.texts(3, SOON).expect("all there"), ["one", "two", "three"]);
        assert!(client.quiet().expect("connected"), "once each");
        wait_acknowledged(&cluster, 3, &mut client, &options.client_id);
        client.disconnect().expect("leaves");

        // What was acknowledged does not come again.
        let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
        assert!(client.session_present || options.version == Version::V31, "{options:?}");
        assert!(client.quiet().expect("connected"), "{options:?}");
    }
}

/// Waits until the handshakes of QoS 2 are over and the cluster has recorded all
/// acknowledgements: a client that comes back elsewhere within milliseconds may be sent again what
/// it has just acknowledged.
fn wait_acknowledged(cluster: &Cluster, node: usize, client: &mut Client, client_id: &str) {
    wait_for_queue(cluster, node, client, client_id, 0);
}

/// Waits until the cluster has so many messages queued for the client.
fn wait_for_queue(cluster: &Cluster, node: usize, client: &mut Client, client_id: &str, queued: usize) {
    eventually(&format!("a queue of {queued}"), SOON, || {
        client.ping().expect("connected");
        let (_, body) = http::get(cluster.api(node), &format!("/api/v1/clients/{client_id}")).ok()?;
        let client: serde_json::Value = serde_json::from_str(&body).ok()?;
        (client["queued"] == queued).then_some(())
    });
}

#[test]
fn a_delivery_that_is_never_acknowledged_holds_up_no_other() {
    /// More than a session's queue has positions reserved ahead of its client.
    const OTHERS: usize = 2_500;
    let cluster = Cluster::start(1);
    let topic = fresh("unacknowledged");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    assert_eq!(client.subscribe(&[(&topic, 1)]).expect("SUBACK"), [1]);
    let mut publisher = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("pub"))).expect("connects");
    client.auto_ack = false;
    assert_eq!(publisher.publish(&topic, "never", 1).expect("acknowledged"), 0);
    let never = client.recv(SOON).expect("there");
    assert_eq!(never.text(), "never");
    client.auto_ack = true;
    for i in 0..OTHERS {
        assert_eq!(publisher.publish(&topic, i.to_string(), 1).expect("acknowledged"), 0);
        let message = client.recv(SOON).expect("there");
        assert_eq!(message.text(), i.to_string());
        assert_ne!(message.id, never.id, "its packet id is out");
    }
    wait_for_queue(&cluster, 1, &mut client, &options.client_id, 1);
    client.crash();
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    let again = client.recv(SOON).expect("there");
    assert_eq!((again.text().as_str(), again.id, again.dup), ("never", never.id, true));
    assert!(client.quiet().expect("connected"));
}

#[test]
fn what_came_while_away_survives_the_death_of_the_first_node() {
    let mut cluster = Cluster::start(3);
    let options = Options::v5(&fresh("session")).persistent();
    let topic = fresh("away");
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    client.crash();
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(publisher.publish(&topic, "before", 1).expect("acknowledged"), 0);
    cluster.kill9(1);
    assert_eq!(publisher.publish(&topic, "after", 1).expect("acknowledged"), 0);
    let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
    assert!(client.session_present);
    assert_eq!(client.texts(2, SOON).expect("all there"), ["before", "after"]);
}

#[test]
fn a_takeover_redelivers_under_the_same_packet_ids() {
    let cluster = Cluster::start(3);
    let options = Options::v5(&fresh("session")).persistent();
    let topic = fresh("open");
    let mut old = Client::connect(cluster.mqtt(1), &options).expect("connects");
    old.auto_ack = false;
    old.subscribe(&[(&topic, 2)]).expect("SUBACK");
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    for (qos, text) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
        assert_eq!(publisher.publish(&topic, text, qos).expect("acknowledged"), 0);
    }
    let mut first: Vec<Publish> = (0..4).map(|_| old.recv(SOON).expect("a delivery")).collect();
    assert!(first.iter().all(|message| !message.dup), "{first:?}");

    let start = Instant::now();
    let mut new = Client::connect(cluster.mqtt(3), &options).expect("connects");
    assert!(new.session_present);
    let ended = old.ending(SOON).expect("the old connection ends");
    assert!(matches!(ended, Error::Disconnected(0x8e)), "{ended}");
    assert!(start.elapsed() < Duration::from_secs(3), "a takeover took {:?}", start.elapsed());

    let again: Vec<Publish> = (0..4).map(|_| new.recv(SOON).expect("a redelivery")).collect();
    first.iter_mut().for_each(|message| message.dup = true);
    assert_eq!(again, first);
    assert!(new.quiet().expect("connected"));
    assert_eq!(publisher.publish(&topic, "next", 1).expect("acknowledged"), 0);
    let next = new.recv(SOON).expect("a new message");
    assert_eq!((next.text().as_str(), next.dup), ("next", false));
}

#[test]
fn the_loser_of_a_takeover_cannot_acknowledge_any_more() {
    let cluster = Cluster::start(3);
    for version in [Version::V311, Version::V5] {
        let options = Options::new(version, &fresh("session")).persistent();
        let mut connections = vec![Client::connect(cluster.mqtt(1), &options).expect("connects")];
        for node in [2, 3, 1, 1, 3] {
            connections.push(Client::connect(cluster.mqtt(node), &options).expect("takes over"));
            let old = connections.len() - 2;
            let ended = connections[old].ending(SOON).expect("the old connection ends");
            match version {
                Version::V5 => assert!(matches!(ended, Error::Disconnected(0x8e)), "{ended}"),
                _ => assert!(matches!(ended, Error::Closed), "{ended}"),
            }
        }
        let mut last = connections.pop().expect("the owner");
        last.ping().expect("the owner is served");
    }
}

#[test]
fn inbound_qos_2_is_taken_once_across_a_takeover() {
    let cluster = Cluster::start(3);
    let topic = fresh("once");
    let watching = Options::v5(&fresh("sub")).persistent();
    let mut subscriber = Client::connect(cluster.mqtt(2), &watching).expect("connects");
    subscriber.subscribe(&[(&topic, 2)]).expect("SUBACK");

    let options = Options::v5(&fresh("session")).persistent();
    let mut message = Publish {
        topic,
        payload: b"once".to_vec(),
        qos: 2,
        retain: false,
        dup: false,
        id: 7,
        props: Default::default(),
    };
    let mut old = Client::connect(cluster.mqtt(1), &options).expect("connects");
    old.send_publish(&message).expect("sent");
    assert_eq!(old.await_ack(AckKind::PubRec, 7).expect("PUBREC"), 0);
    old.crash();

    // The client does not know whether its PUBREC was seen: it sends again, as it must.
    let mut new = Client::connect(cluster.mqtt(3), &options).expect("connects");
    assert!(new.session_present);
    message.dup = true;
    new.send_publish(&message).expect("sent");
    assert_eq!(new.await_ack(AckKind::PubRec, 7).expect("PUBREC"), 0);
    new.send_ack(AckKind::PubRel, 7).expect("sent");
    assert_eq!(new.await_ack(AckKind::PubComp, 7).expect("PUBCOMP"), 0);
    assert_eq!(subscriber.texts(1, SOON).expect("there"), ["once"]);

    // After PUBCOMP the id is free, and names another message.
    message.dup = false;
    message.payload = b"other".to_vec();
    new.send_publish(&message).expect("sent");
    assert_eq!(new.await_ack(AckKind::PubRec, 7).expect("PUBREC"), 0);
    new.send_ack(AckKind::PubRel, 7).expect("sent");
    assert_eq!(new.await_ack(AckKind::PubComp, 7).expect("PUBCOMP"), 0);
    assert_eq!(subscriber.texts(1, SOON).expect("there"), ["other"]);
    assert!(subscriber.quiet().expect("connected"), "each once");
}

#[test]
fn outbound_qos_2_goes_on_where_it_was_across_a_takeover() {
    let cluster = Cluster::start(3);
    let topic = fresh("once");
    let options = Options::v5(&fresh("session")).persistent();
    let mut old = Client::connect(cluster.mqtt(1), &options).expect("connects");
    old.auto_ack = false;
    old.subscribe(&[(&topic, 2)]).expect("SUBACK");
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(publisher.publish(&topic, "once", 2).expect("acknowledged"), 0);
    let message = old.recv(SOON).expect("the delivery");
    old.send_ack(AckKind::PubRec, message.id).expect("sent");
    let release =
        Packet::Ack(Ack { kind: AckKind::PubRel, id: message.id, code: 0, props: Props::default() });
    assert_eq!(old.packet(SOON).expect("PUBREL"), release);
    let received = old.crash();

    // PUBREC was recorded, so the message itself must not come again: PUBREL does.
    let mut new = Client::connect(cluster.mqtt(3), &options).expect("connects");
    new.received = received;
    assert!(new.session_present);
    assert_eq!(new.packet(SOON).expect("PUBREL"), release);
    new.send_ack(AckKind::PubComp, message.id).expect("sent");
    assert!(new.quiet().expect("connected"));
    new.disconnect().expect("leaves");
    let mut last = Client::connect(cluster.mqtt(2), &options).expect("connects");
    assert!(last.quiet().expect("connected"), "complete after PUBCOMP");
}

#[test]
fn a_clean_start_ends_the_session_everywhere() {
    let cluster = Cluster::start(3);
    let options = Options::v5(&fresh("session")).persistent();
    let topic = fresh("gone");
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    client.disconnect().expect("leaves");
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    assert!(publisher.publish(&topic, "lost", 1).expect("acknowledged") < 0x80);
    let clean = Options { clean_start: true, ..options.clone() };
    let client = Client::connect(cluster.mqtt(3), &clean).expect("connects");
    assert!(!client.session_present);
    client.disconnect().expect("leaves");
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    assert!(client.session_present, "of the clean start");
    publisher.publish(&topic, "nobody subscribed", 1).expect("acknowledged");
    assert!(client.quiet().expect("connected"));
}
