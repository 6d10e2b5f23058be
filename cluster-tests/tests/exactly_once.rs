//! QoS 2 into and out of persistent sessions, once each, whatever happens between two packets of a
//! handshake: every step is taken on another node, after a takeover, a kill or a full restart.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::mqtt::{Ack, AckKind, Client, Options, Packet, Props, Publish};
use cluster_tests::{fresh, wait};

const SOON: Duration = Duration::from_secs(20);

/// The inbound message's packet id.
const ID: u16 = 7;

#[test]
fn takeovers_between_all_steps() {
    walk(Fault::Takeover);
}

#[test]
fn the_owner_dies_between_all_steps() {
    walk(Fault::OwnerDies);
}

#[test]
fn the_leader_dies_between_all_steps() {
    walk(Fault::LeaderDies);
}

#[test]
fn all_nodes_die_between_all_steps() {
    walk(Fault::AllDie);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The client goes to another node while the old connection is there.
    Takeover,
    OwnerDies,
    LeaderDies,
    AllDie,
}

/// Both handshakes advance by one step between two faults.
fn walk(fault: Fault) {
    let mut scene = Scene::new(fault);
    let mut publisher = Publishing::new();
    let mut receiver = Receiving::new();

    // The subscriber of what is published, away until the end.
    let watching = Options::v5(&fresh("watcher")).persistent();
    let mut watcher = Client::connect(scene.cluster.mqtt(3), &watching).expect("connects");
    watcher.subscribe(&[(&publisher.topic, 2)]).expect("SUBACK");
    watcher.disconnect().expect("leaves");
    // The messages that the receiver is sent.
    let mut client = receiver.connect(&scene);
    client.subscribe(&[(&receiver.topic, 2)]).expect("SUBACK");
    client.disconnect().expect("leaves");
    let mut source =
        Client::connect(scene.cluster.mqtt(2), &Options::v5(&fresh("source"))).expect("connects");
    for text in ["a", "b", "c"] {
        assert_eq!(source.publish(&receiver.topic, text, 2).expect("acknowledged"), 0);
    }

    // PUBLISH is sent, and PUBREC not awaited. Of the other three, nothing is answered.
    let mut sending = publisher.connect(&scene);
    sending.send_publish(&publisher.message(false)).expect("sent");
    let mut receiving = receiver.connect(&scene);
    receiver.take(&mut receiving, 3);
    assert_eq!(receiver.texts, ["a", "b", "c"]);
    scene.next([sending, receiving]);

    // PUBLISH again, up to PUBREC. PUBREC is sent for the first message, and PUBREL not awaited.
    let mut sending = publisher.connect(&scene);
    assert!(sending.session_present, "{fault:?}");
    publisher.publish_again(&mut sending);
    let mut receiving = receiver.connect(&scene);
    assert!(receiving.session_present, "{fault:?}");
    let again = receiver.take(&mut receiving, 3);
    assert!(again.iter().all(|packet| matches!(packet, Packet::Publish(p) if p.dup)), "{again:?}");
    let first = receiver.first_id;
    receiving.send_ack(AckKind::PubRec, first).expect("sent");
    scene.next([sending, receiving]);

    // PUBLISH once more, as if PUBREC had not come. PUBREL is received, and PUBCOMP not sent.
    let mut sending = publisher.connect(&scene);
    publisher.publish_again(&mut sending);
    let mut receiving = receiver.connect(&scene);
    let came = receiver.take(&mut receiving, 3);
    if !came.contains(&release(first)) {
        // The cluster had not recorded the PUBREC, so that it is due again.
        receiving.send_ack(AckKind::PubRec, first).expect("sent");
        assert_eq!(receiver.take(&mut receiving, 1), [release(first)], "{fault:?}");
    }
    scene.next([sending, receiving]);

    // PUBREL is sent, and PUBCOMP not awaited. PUBREL comes again, and never the message.
    let mut sending = publisher.connect(&scene);
    sending.send_ack(AckKind::PubRel, ID).expect("sent");
    let mut receiving = receiver.connect(&scene);
    let came = receiver.take(&mut receiving, 3);
    assert!(came.contains(&release(first)), "{fault:?}: {came:?}");
    receiving.send_ack(AckKind::PubComp, first).expect("sent");
    scene.next([sending, receiving]);

    // PUBREL again, up to PUBCOMP; the id is free then. The receiver settles everything.
    let mut sending = publisher.connect(&scene);
    sending.send_ack(AckKind::PubRel, ID).expect("sent");
    let code = sending.await_ack(AckKind::PubComp, ID).expect("PUBCOMP");
    // Packet Identifier not found: the first PUBREL was taken.
    assert!(matches!(code, 0 | 0x92), "{fault:?}: {code:#04x}");
    publisher.text = "next";
    sending.send_publish(&publisher.message(false)).expect("sent");
    assert_eq!(sending.await_ack(AckKind::PubRec, ID).expect("PUBREC"), 0);
    sending.send_ack(AckKind::PubRel, ID).expect("sent");
    assert_eq!(sending.await_ack(AckKind::PubComp, ID).expect("PUBCOMP"), 0);
    let mut receiving = receiver.connect(&scene);
    receiving.auto_ack = true;
    receiver.settle(&mut receiving);
    assert_eq!(receiver.texts, ["a", "b", "c"], "{fault:?}: each once and in order");
    scene.next([sending, receiving]);

    let mut receiving = receiver.connect(&scene);
    assert!(receiving.session_present && receiving.quiet().expect("connected"), "{fault:?}: it is settled");
    let mut watcher = Client::connect(scene.cluster.mqtt(scene.at), &watching).expect("connects");
    assert!(watcher.session_present, "{fault:?}");
    assert_eq!(watcher.texts(2, SOON).expect("both"), ["once", "next"], "{fault:?}");
    assert!(watcher.quiet().expect("connected"), "{fault:?}: each once");
}

fn release(id: u16) -> Packet {
    Packet::Ack(Ack { kind: AckKind::PubRel, id, code: 0, props: Props::default() })
}

/// A cluster in which the same goes wrong again and again.
struct Scene {
    cluster: Cluster,
    fault: Fault,
    /// The node that both clients are on.
    at: usize,
    down: Vec<usize>,
}

impl Scene {
    fn new(fault: Fault) -> Self {
        Scene { cluster: Cluster::start(3), fault, at: 1, down: Vec::new() }
    }

    /// The fault, while the clients have connections; these are dropped without a word. A node that
    /// dies stays dead until the next fault, so that the others go on without it.
    fn next(&mut self, connections: [Client; 2]) {
        for i in std::mem::take(&mut self.down) {
            self.cluster.restart(i);
            self.cluster.wait_up(i, true);
        }
        let dead: Vec<usize> = match self.fault {
            Fault::Takeover => vec![],
            Fault::OwnerDies => vec![self.at],
            Fault::LeaderDies => vec![self.cluster.leader()],
            Fault::AllDie => vec![1, 2, 3],
        };
        dead.iter().for_each(|i| self.cluster.kill9(*i));
        let others = (1..3).map(|step| (self.at + step - 1) % 3 + 1);
        let mut alive = others.filter(|i| !dead.contains(i));
        self.at = alive.next().unwrap_or(self.at % 3 + 1);
        if dead.len() == 3 {
            self.cluster.start_all();
        } else {
            self.down = dead;
        }
        drop(connections);
    }
}

/// The client that publishes one message, over many connections.
struct Publishing {
    options: Options,
    topic: String,
    text: &'static str,
}

impl Publishing {
    fn new() -> Self {
        Publishing {
            options: Options::v5(&fresh("publisher")).persistent(),
            topic: fresh("in"),
            text: "once",
        }
    }

    fn connect(&self, scene: &Scene) -> Client {
        connect(scene, &self.options)
    }

    fn message(&self, dup: bool) -> Publish {
        let (topic, payload) = (self.topic.clone(), self.text.as_bytes().to_vec());
        Publish { topic, payload, qos: 2, retain: false, dup, id: ID, props: Props::default() }
    }

    fn publish_again(&self, client: &mut Client) {
        client.send_publish(&self.message(true)).expect("sent");
        assert_eq!(client.await_ack(AckKind::PubRec, ID).expect("PUBREC"), 0);
    }
}

/// The client that receives three messages, over many connections, and does not forget which packet
/// ids it knows [MQTT-4.3.3-10].
struct Receiving {
    options: Options,
    topic: String,
    known: Vec<u16>,
    first_id: u16,
    /// What was new to it.
    texts: Vec<String>,
}

impl Receiving {
    fn new() -> Self {
        let options = Options::v5(&fresh("receiver")).persistent();
        Receiving { options, topic: fresh("out"), known: Vec::new(), first_id: 0, texts: Vec::new() }
    }

    fn connect(&self, scene: &Scene) -> Client {
        let mut client = connect(scene, &self.options);
        client.auto_ack = false;
        client
    }

    /// The next packets; nothing is answered.
    fn take(&mut self, client: &mut Client, count: usize) -> Vec<Packet> {
        (0..count).map(|_| self.next(client)).collect()
    }

    fn next(&mut self, client: &mut Client) -> Packet {
        let packet = client.packet(SOON).expect("a packet");
        match &packet {
            Packet::Publish(message) if !self.known.contains(&message.id) => {
                if self.known.is_empty() {
                    self.first_id = message.id;
                }
                self.known.push(message.id);
                self.texts.push(message.text());
            }
            // Released: its id may name another message.
            Packet::Ack(ack) if ack.kind == AckKind::PubRel => self.known.retain(|id| *id != ack.id),
            _ => {}
        }
        packet
    }

    /// Completes all handshakes that are open.
    fn settle(&mut self, client: &mut Client) {
        let mut open = 2;
        while open > 0 {
            match self.next(client) {
                Packet::Publish(message) => client.send_ack(AckKind::PubRec, message.id).expect("sent"),
                Packet::Ack(ack) => {
                    client.send_ack(AckKind::PubComp, ack.id).expect("sent");
                    open -= usize::from(ack.id != self.first_id);
                }
                other => panic!("{other:?} of a handshake"),
            }
        }
        client.ping().expect("connected");
    }
}

fn connect(scene: &Scene, options: &Options) -> Client {
    // The cluster may be electing.
    wait::eventually("a client is let in", SOON, || {
        Client::connect(scene.cluster.mqtt(scene.at), options).ok()
    })
}
