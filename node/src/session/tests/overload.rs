//! What clients see of a node that has more to do than it can.

use std::sync::atomic::Ordering;

use crate::mqtt::{Connect, Packet, QoS, ReasonCode, Version, decode_from_server};
use crate::overload::{Level, Rate};
use crate::session::testing::{Harness, publish_bytes};
use crate::session::{Flow, Limits, Metric};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn connect(h: &mut Harness, version: Version) -> Flow {
    h.connect(&Connect { client_id: "c", clean_start: true, ..Connect::new(version) })
}

/// The Server Reference of the CONNACK that was sent, and its reason.
fn connack(h: &Harness) -> (ReasonCode, Option<String>) {
    let bytes = h.link.bytes.lock();
    match decode_from_server(&bytes, h.version) {
        Ok(Packet::ConnAck(ack)) => (ack.reason, ack.server_reference.map(str::to_owned)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_finds_no_room_is_told_so_or_where_there_is() {
    for version in VERSIONS {
        for (elsewhere, wants) in [
            (None, (ReasonCode::QuotaExceeded, None)),
            (Some("b:1883"), (ReasonCode::UseAnotherServer, Some("b:1883".to_owned()))),
        ] {
            let mut h = Harness::new(Limits::default());
            h.context.pressure.set_level(Level::Refuse);
            h.context.pressure.set_elsewhere(elsewhere);
            assert_eq!(connect(&mut h, version), Flow::Over);
            let wants = if version == Version::V5 { wants } else { (ReasonCode::ServerUnavailable, None) };
            assert_eq!(connack(&h), wants);
            assert!(h.service.take_calls().is_empty(), "the broker is not asked");
            let redirected = wants.1.is_some();
            assert_eq!(h.count(Metric::ConnectRedirected), u64::from(redirected));
            assert_eq!(h.count(Metric::ConnectNoRoom), u64::from(!redirected));
        }
    }
}

#[test]
fn who_comes_to_a_node_that_lets_its_clients_go_is_sent_elsewhere() {
    for version in VERSIONS {
        let mut h = Harness::new(Limits::default());
        h.service.draining.store(true, Ordering::Relaxed);
        h.context.pressure.set_elsewhere(Some("b:1883"));
        assert_eq!(connect(&mut h, version), Flow::Over);
        let elsewhere = (ReasonCode::UseAnotherServer, Some("b:1883".to_owned()));
        let unavailable = (ReasonCode::ServerUnavailable, None);
        assert_eq!(connack(&h), if version == Version::V5 { elsewhere } else { unavailable });
        assert!(h.service.take_calls().is_empty(), "the broker is not asked");
    }
}

#[test]
fn who_is_let_go_is_told_where_to_go() {
    for (version, reference) in
        [(Version::V5, Some("b:1883")), (Version::V5, None), (Version::V311, Some("b:1883"))]
    {
        let mut h = Harness::connected(version, Limits::default(), false);
        h.conn.let_go(ReasonCode::UseAnotherServer, reference);
        let bytes = h.link.bytes.lock().clone();
        match (version, decode_from_server(&bytes, version)) {
            (Version::V5, Ok(Packet::Disconnect(said))) => {
                assert_eq!((said.reason, said.server_reference), (ReasonCode::UseAnotherServer, reference));
            }
            (Version::V311, _) => assert!(bytes.is_empty(), "3.x has no word for it"),
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(h.inbound.attend(&h.conn, 0), Flow::Over);
        h.inbound.end(&h.conn);
        assert_eq!(h.service.take_calls(), ["ended Server"]);
    }
}

#[test]
fn below_that_everybody_is_let_in() {
    for level in [Level::Normal, Level::Shrink, Level::Pause] {
        let mut h = Harness::new(Limits { connections_max: 1, ..Limits::default() });
        h.context.pressure.set_level(level);
        assert_eq!(connect(&mut h, Version::V5), Flow::Open);
        assert_eq!(h.take(), ["CONNACK 00"]);
    }
    let mut h = Harness::new(Limits { connections_max: 0, ..Limits::default() });
    assert_eq!(connect(&mut h, Version::V311), Flow::Over);
    assert_eq!(h.take(), ["CONNACK 88"]);
}

#[test]
fn a_hard_pressed_node_gives_and_takes_smaller_windows() {
    let limits = || Limits { receive_maximum: 160, ..Limits::default() };
    let mut h = Harness::new(limits());
    h.context.pressure.set_level(Level::Shrink);
    connect(&mut h, Version::V5);
    let granted = match decode_from_server(&h.link.bytes.lock(), Version::V5) {
        Ok(Packet::ConnAck(ack)) => ack.receive_maximum,
        other => panic!("{other:?}"),
    };
    assert_eq!(granted, 10);
    // Who was granted more is not read beyond it, whatever the version, and closed by no means.
    for version in VERSIONS {
        let mut h = Harness::connected(version, limits(), false);
        h.service.hold_acks.store(true, Ordering::Relaxed);
        let publish = |h: &mut Harness, id| {
            let bytes = publish_bytes(version, "t", b"x", QoS::AtLeastOnce, id);
            h.send(&bytes)
        };
        for id in 1..=20 {
            assert_eq!(publish(&mut h, id), Flow::Open);
        }
        h.context.pressure.set_level(Level::Shrink);
        assert_eq!(publish(&mut h, 21), Flow::Held);
        assert_eq!(publish(&mut h, 22), Flow::Held);
        assert_eq!(h.service.published.load(Ordering::Relaxed), 21);
        for at in 0..12 {
            let (conn, ticket) = h.service.tickets.lock()[at].clone();
            conn.acknowledge(ticket, ReasonCode::Success);
        }
        assert!(h.link.wakes.load(Ordering::Relaxed) > 0, "it asks to be read again");
        let flow = h.inbound.attend(&h.conn, h.now_ms);
        assert_eq!((flow, h.service.published.load(Ordering::Relaxed)), (Flow::Held, 22));
        // The pressure is over: the next acknowledgement lets it go on.
        h.context.pressure.set_level(Level::Normal);
        assert_eq!(h.inbound.attend(&h.conn, h.now_ms), Flow::Open);
    }
}

/// Publishes until it is held; how many went through.
fn publish_until_held(h: &mut Harness, payload: &[u8]) -> usize {
    let before = h.service.published.load(Ordering::Relaxed);
    let bytes = publish_bytes(h.version, "t", payload, QoS::AtMostOnce, 0);
    while h.send(&bytes) == Flow::Open {}
    h.service.published.load(Ordering::Relaxed) - before
}

#[test]
fn who_publishes_too_fast_is_not_read_for_a_while_and_never_closed() {
    let limits = || Limits { publish_rate: Rate::new(10, 1_000), ..Limits::default() };
    for version in VERSIONS {
        let mut h = Harness::connected(version, limits(), false);
        h.now_ms = 50_000;
        // A second's worth at once, and the one that was too many.
        assert_eq!(publish_until_held(&mut h, b"x"), 11);
        assert_eq!(h.count(Metric::PublishersSlowed), 1);
        assert_eq!(h.inbound.check(&h.conn, h.now_ms), Some(50_100), "a tenth of a second for one message");
        assert_eq!(h.link.wakes.swap(0, Ordering::Relaxed), 1, "CONNACK's");
        // What it has sent besides is kept, and processed one by one as it may be.
        let bytes = publish_bytes(version, "t", b"x", QoS::AtMostOnce, 0).repeat(3);
        assert_eq!(h.send(&bytes), Flow::Held);
        for published in [12, 13, 14] {
            h.now_ms += 50;
            assert_eq!(h.inbound.check(&h.conn, h.now_ms), Some(h.now_ms + 50));
            assert_eq!(h.inbound.attend(&h.conn, h.now_ms), Flow::Held);
            h.now_ms += 50;
            assert!(h.inbound.check(&h.conn, h.now_ms).is_some());
            assert_eq!(h.link.wakes.swap(0, Ordering::Relaxed), 1, "it asks to be read again");
            assert_eq!(h.inbound.attend(&h.conn, h.now_ms), Flow::Held);
            assert_eq!(h.service.published.load(Ordering::Relaxed), published);
        }
        h.now_ms += 100;
        assert_eq!(h.inbound.attend(&h.conn, h.now_ms), Flow::Open);
    }
}

#[test]
fn bytes_count_as_well_and_a_wait_has_an_end() {
    let limits =
        Limits { publish_bytes_rate: Rate::new(1_000, 1_000), stall_timeout_ms: 5_000, ..Limits::default() };
    let mut h = Harness::connected(Version::V5, limits, false);
    assert_eq!(publish_until_held(&mut h, &[b'x'; 400]), 3);
    // A message of an hour's worth costs ten seconds, and neither the bound on a backlog nor the
    // keep-alive counts meanwhile.
    h.now_ms = 20_000;
    h.inbound.attend(&h.conn, h.now_ms);
    assert_eq!(publish_until_held(&mut h, &[b'x'; 500_000]), 1);
    let next_ms = h.inbound.check(&h.conn, h.now_ms).expect("open");
    assert_eq!(next_ms, 30_000);
    for now_ms in [25_000, 29_999] {
        assert!(h.inbound.check(&h.conn, now_ms).is_some(), "closed after {now_ms} ms");
        assert_eq!(h.inbound.attend(&h.conn, now_ms), Flow::Held);
    }
    assert!(h.inbound.check(&h.conn, 30_000).is_some());
    assert_ne!(h.inbound.attend(&h.conn, 30_000), Flow::Over);
}

#[test]
fn a_limit_that_is_not_set_costs_nothing() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    let bytes = publish_bytes(Version::V5, "t", b"x", QoS::AtMostOnce, 0).repeat(10_000);
    assert_eq!(h.send(&bytes), Flow::Open);
    assert_eq!(h.service.published.load(Ordering::Relaxed), 10_000);
    assert!(format!("{:?}", h.inbound).contains("rare: None"), "{:?}", h.inbound);
}
