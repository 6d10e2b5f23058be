//! The closing handshake, whoever begins it: Autobahn's groups 6 and 7.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{
    self, Client, Error, Options, Packet, Transport, VERSIONS, Version, Will, connect, disconnect,
};
use cluster_tests::websocket::{Frame, RawSocket, opcode};

use super::{PINGREQ, SOON, Witness, alone, connected, message};

/// The payload of the broker's answer to a Close frame.
fn answer_to(cluster: &Cluster, close: &Frame) -> Vec<u8> {
    let mut socket = connected(cluster);
    socket.send(close);
    let ending = socket.ending();
    assert!(ending.packets.is_empty(), "{ending:x?}");
    ending.close.unwrap_or_else(|| panic!("no answer to {close:x?}")).payload
}

#[test]
fn a_close_is_answered_with_its_status() {
    let cluster = alone();
    assert!(answer_to(&cluster, &Frame::new(opcode::CLOSE, [])).is_empty());
    let valid =
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
    for status in valid {
        for reason in ["", "Hello World!", &"*".repeat(123), "κόσμε", "\u{10ffff}\u{fffe}\0"] {
            let payload = answer_to(&cluster, &Frame::close(status, reason));
            assert_eq!(payload, status.to_be_bytes(), "{status} {reason:?}");
        }
    }
    for status in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        for reason in ["", "reason"] {
            let payload = answer_to(&cluster, &Frame::close(status, reason));
            assert_eq!(payload, 1002_u16.to_be_bytes(), "{status}");
        }
    }
    let cases = [
        (1002, Frame::new(opcode::CLOSE, [3])),
        (1002, Frame::close(1000, "*".repeat(124))),
        (1007, Frame::close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80")),
        (1007, Frame::close(1000, b"\xff")),
        (1007, Frame::close(1000, b"cut \xe2\x82")),
        (1007, Frame::close(1000, b"overlong \xc0\xaf")),
        (1007, Frame::close(1000, b"\xf4\x90\x80\x80")),
    ];
    for (status, close) in cases {
        assert_eq!(answer_to(&cluster, &close), u16::to_be_bytes(status), "{close:x?}");
    }
}

#[test]
fn nothing_counts_after_a_close() {
    let cluster = alone();
    let mut witness = Witness::new(&cluster, "after/#");
    let late = Frame::binary(mqtt::publish(Version::V311, &message("after/close", b"late".into())));
    let in_time = Frame::binary(mqtt::publish(Version::V311, &message("after/close", b"in time".into())));
    let close = Frame::close(1001, "bye");
    for after in [close.clone(), Frame::close(1000, ""), Frame::ping("x"), late, Frame::binary(PINGREQ)] {
        let mut socket = connected(&cluster);
        socket.send_all(&[in_time.clone(), close.clone(), after.clone()]);
        let ending = socket.ending();
        assert_eq!((ending.status(), ending.pongs), (Some(1001), 0), "{after:x?}");
        assert!(ending.packets.is_empty(), "{ending:x?}");
        witness.hears("in time");
        // And in a write of its own.
        let mut socket = connected(&cluster);
        socket.send(&close);
        let answer = socket.frame().expect("an answer");
        assert_eq!(answer.status(), Some(1001));
        socket.send(&after);
        assert_eq!(socket.frame(), None, "{after:x?}");
    }
    // In the middle of a message.
    let mut socket = connected(&cluster);
    socket.send_all(&[Frame::binary(PINGREQ).unfinished(), close.clone()]);
    let ending = socket.ending();
    assert_eq!((ending.status(), ending.packets), (Some(1001), vec![Packet::PingResp]));
    witness.hears_nothing();
}

#[test]
fn a_close_is_no_disconnect_but_waits_for_what_came_before() {
    let cluster = alone();
    let mut witness = Witness::new(&cluster, "will/#");
    let mut options = Options::v5(&fresh("dies"));
    options.will = Some(Will::new("will/a", "gone", 0));
    let mut socket = RawSocket::connect(cluster.ws(1), &options);
    socket.send(&Frame::close(1000, ""));
    assert_eq!(socket.ending().status(), Some(1000));
    witness.hears("gone");
    // All of a connection in one write, CONNECT and Close included.
    let mut socket = RawSocket::open(cluster.ws(1));
    let all = [
        connect(&options),
        mqtt::publish(Version::V5, &message("will/b", b"published".into())),
        disconnect(Version::V5, 0),
    ];
    socket.send_all(&[Frame::binary(all.concat()), Frame::close(1000, "")]);
    let ending = socket.ending();
    assert_eq!(ending.status(), Some(1000));
    assert!(matches!(ending.packets[..], [Packet::ConnAck { code: 0, .. }]), "{ending:?}");
    witness.hears("published");
    witness.hears_nothing();
}

/// The last packets and the status after this was sent.
fn ending_after(cluster: &Cluster, version: Version, bytes: &[u8]) -> (Vec<Packet>, Option<u16>) {
    let mut socket = RawSocket::connect(cluster.ws(1), &Options::new(version, &fresh("ends")));
    socket.send(&Frame::binary(bytes));
    let ending = socket.ending();
    let status = ending.status();
    (ending.packets, status)
}

fn codes(packets: &[Packet]) -> Vec<u8> {
    let code = |packet: &Packet| match packet {
        Packet::Disconnect { code, .. } | Packet::ConnAck { code, .. } => *code,
        other => panic!("{other:?}"),
    };
    packets.iter().map(code).collect()
}

#[test]
fn the_broker_closes_with_the_status_of_its_reason() {
    let cluster = alone();
    for version in VERSIONS {
        let told = |code: u8| if version == Version::V5 { vec![code] } else { vec![] };
        for (bytes, code, status) in [
            (&[0xc1, 0][..], 0x81, 1002),                  // flags on PINGREQ
            (&[0x20, 3, 0, 0, 0], 0x82, 1002),             // CONNACK
            (&[0x30, 0xff, 0xff, 0xff, 0x7f], 0x95, 1009), // more than the largest packet
        ] {
            let (packets, got) = ending_after(&cluster, version, bytes);
            assert_eq!((codes(&packets), got), (told(code), Some(status)), "{version:?} {bytes:x?}");
        }
        let (packets, status) = ending_after(&cluster, version, &disconnect(version, 0));
        assert_eq!((packets, status), (vec![], Some(1000)), "{version:?}: DISCONNECT");

        let options = Options::new(version, &fresh("taken-over"));
        let mut first = RawSocket::connect(cluster.ws(1), &options);
        let _second = Client::connect(Transport::Ws(cluster.ws(1)), &options).expect("connects");
        let ending = first.ending();
        assert_eq!((codes(&ending.packets), ending.status()), (told(0x8e), Some(1008)), "{version:?}");
    }
    // A CONNECT that is refused, and a first packet that is none.
    let mut refused = RawSocket::open(cluster.ws(1));
    let mut bytes = connect(&Options::v5("x"));
    bytes[8] = 6;
    refused.send(&Frame::binary(bytes));
    let ending = refused.ending();
    assert_eq!((codes(&ending.packets), ending.status()), (vec![0x84], Some(1002)));
    let mut nonsense = RawSocket::open(cluster.ws(1));
    nonsense.send(&Frame::binary(PINGREQ));
    let ending = nonsense.ending();
    assert_eq!((ending.status(), ending.packets), (Some(1002), vec![]));
}

#[test]
fn a_node_that_stops_goes_away() {
    let mut cluster = alone();
    let mut socket = RawSocket::connect(cluster.ws(1), &Options::v5(&fresh("left")));
    cluster.node(1).signal("TERM");
    let ending = socket.ending();
    assert_eq!((codes(&ending.packets), ending.status()), (vec![0x8b], Some(1001)));
    cluster.node(1).wait_exit();
}

#[test]
fn a_websocket_library_closes_cleanly_with_it() {
    let cluster = alone();
    let transport = Transport::Ws(cluster.ws(1));
    let mut client = Client::connect(transport, &Options::v5(&fresh("library"))).expect("connects");
    client.send(&[0xc1, 0]).expect("sent");
    assert!(matches!(client.ending(SOON), Ok(Error::Disconnected(0x81))));
    let client = Client::connect(transport, &Options::v311(&fresh("library"))).expect("connects");
    client.disconnect().expect("closed");
    let mut idle = RawSocket::open(cluster.ws(1));
    assert!(idle.is_silent(Duration::from_millis(100)));
}
