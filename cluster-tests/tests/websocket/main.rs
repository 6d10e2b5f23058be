//! The WebSocket listener keeps to RFC 6455 as strictly as the Autobahn test suite asks, and to
//! the rules of MQTT over it.

mod closing;
mod control;
mod frames;
mod opening;

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::mqtt::{Client, Options, Packet, Props, Publish, Version, publish};
use cluster_tests::websocket::{Frame, RawSocket};
use cluster_tests::{fresh, mqtt};

const PINGREQ: [u8; 2] = [0xc0, 0];

/// For a message to arrive.
const SOON: Duration = Duration::from_secs(20);

fn alone() -> Cluster {
    Cluster::start(1)
}

/// A connected client of 3.1.1.
fn connected(cluster: &Cluster) -> RawSocket {
    RawSocket::connect(cluster.ws(1), &Options::v311(&fresh("ws")))
}

/// A client whose messages to `topic` come back to it: the echo that WebSocket tests need.
fn echo(cluster: &Cluster, topic: &str) -> RawSocket {
    let mut socket = connected(cluster);
    socket.send(&Frame::binary(mqtt::subscribe(Version::V311, 1, &[(topic, 0)], &Props::default())));
    assert!(matches!(socket.packet(), Packet::SubAck { id: 1, .. }));
    socket
}

fn message(topic: &str, payload: Vec<u8>) -> Publish {
    Publish {
        topic: topic.into(),
        payload,
        qos: 0,
        retain: false,
        dup: false,
        id: 0,
        props: Props::default(),
    }
}

/// A message whose PUBLISH packet has this length, and the packet; `length`: of 16 or more.
fn message_of(topic: &str, length: usize) -> (Publish, Vec<u8>) {
    let bytes = |payload: usize| (0..payload).map(|i| (i * 7 % 251) as u8).collect::<Vec<u8>>();
    // The topic with its length, and the fixed header: 1 byte and 1 to 4 of Remaining Length.
    let around = topic.len() + 3;
    for header in 1..=4 {
        let message = message(topic, bytes(length - around - header));
        let packet = publish(Version::V311, &message);
        if packet.len() == length {
            return (message, packet);
        }
    }
    panic!("no PUBLISH has {length} bytes");
}

/// Somebody else on the same node, who is not to notice anything.
struct Witness(Client);

impl Witness {
    fn new(cluster: &Cluster, topic: &str) -> Self {
        let mut client = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("witness"))).expect("connects");
        client.subscribe(&[(topic, 1)]).expect("granted");
        Witness(client)
    }

    fn hears(&mut self, text: &str) {
        assert_eq!(self.0.recv(SOON).expect("a message").text(), text);
    }

    fn hears_nothing(&mut self) {
        assert!(self.0.quiet().expect("served"));
    }
}
