use std::sync::atomic::Ordering;

use crate::mqtt::{Connect, Disconnect, Packet, ReasonCode, Version, decode_from_server, encode};
use crate::session::testing::{Harness, encoded};
use crate::session::{Conn, Ended, Flow, Inbound, Limits, Metric};

#[test]
fn an_idle_connection_is_small_and_owns_nothing() {
    assert!(size_of::<Conn>() <= 144, "{}", size_of::<Conn>());
    assert!(size_of::<Inbound>() <= 56, "{}", size_of::<Inbound>());
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    assert!(h.conn.out.lock().owns_nothing());
    h.send(&[0xC0, 0]);
    assert_eq!(h.take(), ["PINGRESP"]);
    h.now_ms = 1;
    assert!(h.inbound.check(&h.conn, h.now_ms).is_some());
    assert!(h.conn.out.lock().owns_nothing());
}

#[test]
fn accepted_at_once() {
    let mut h = Harness::new(Limits::default());
    let flow = h.connect(&Connect { client_id: "c", ..Connect::new(Version::V5) });
    assert_eq!(flow, Flow::Open);
    assert_eq!(h.service.take_calls(), ["connect c vV5 expiry 0"]);
    assert_eq!(h.take(), ["CONNACK 00"]);
    assert_eq!((h.conn.client(), h.conn.incarnation()), ("c", 7));
    assert_eq!(h.count(Metric::Connections), 1);
    h.inbound.end(&h.conn);
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls(), ["ended Lost"]);
    assert_eq!(h.count(Metric::Connections), 0);
}

#[test]
fn connack_announces_the_limits_and_what_differs_from_the_wish() {
    let mut h = Harness::new(Limits { keep_alive_max_s: 60, session_expiry_max_s: 100, ..Limits::default() });
    h.connect(&Connect { session_expiry_s: 1000, keep_alive_s: 0, ..Connect::new(Version::V5) });
    let bytes = h.link.bytes.lock().clone();
    let Ok(Packet::ConnAck(ack)) = decode_from_server(&bytes, Version::V5) else { panic!("no CONNACK") };
    assert_eq!(ack.receive_maximum, 1024);
    assert_eq!(ack.maximum_packet_size, Some(1 << 20));
    assert_eq!(ack.topic_alias_maximum, 64);
    assert_eq!(ack.session_expiry_s, Some(100));
    assert_eq!(ack.server_keep_alive_s, Some(60));
    assert_eq!(ack.assigned_client_id, Some("assigned"));
}

#[test]
fn what_comes_before_the_answer_waits() {
    let mut h = Harness::new(Limits::default());
    h.service.hold_connect.store(true, Ordering::Relaxed);
    assert_eq!(h.connect(&Connect { client_id: "c", ..Connect::new(Version::V311) }), Flow::Held);
    assert_eq!(h.send(&[0xC0, 0, 0xC0]), Flow::Held);
    assert_eq!(h.send(&[0]), Flow::Held);
    assert!(h.take().is_empty());
    assert!(h.conn.accept(h.service.grant("c")));
    assert_eq!(h.take(), ["CONNACK 00"]);
    assert!(h.link.wakes.load(Ordering::Relaxed) > 0);
    assert_eq!(h.inbound.attend(&h.conn, 5), Flow::Open);
    assert_eq!(h.take(), ["PINGRESP", "PINGRESP"]);
}

#[test]
fn an_answer_to_a_connection_that_is_over_goes_nowhere() {
    let mut h = Harness::new(Limits::default());
    h.service.hold_connect.store(true, Ordering::Relaxed);
    h.connect(&Connect { client_id: "c", ..Connect::new(Version::V5) });
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls(), ["connect c vV5 expiry 0", "ended Lost"]);
    assert!(!h.conn.accept(h.service.grant("c")));
    h.conn.refuse(ReasonCode::NotAuthorized);
    assert!(h.take().is_empty());
    assert_eq!(h.count(Metric::Connections), 0);
}

#[test]
fn refusals_speak_the_clients_version() {
    for (version, expected) in [(Version::V5, "CONNACK 87"), (Version::V311, "CONNACK 87")] {
        let mut h = Harness::new(Limits::default());
        *h.service.refuse.lock() = Some(ReasonCode::NotAuthorized);
        assert_eq!(h.connect(&Connect { client_id: "c", ..Connect::new(version) }), Flow::Over);
        assert_eq!(h.take(), [expected]);
        assert!(h.link.finished.load(Ordering::Relaxed));
        h.inbound.end(&h.conn);
        assert_eq!(h.service.take_calls().last().map(String::as_str), Some("ended Server"));
    }
}

#[test]
fn connects_that_the_protocol_forbids() {
    let cases: [(Connect<'_>, &str); 3] = [
        (Connect { clean_start: false, ..Connect::new(Version::V311) }, "CONNACK 85"),
        (Connect::new(Version::V31), "CONNACK 85"),
        (Connect { client_id: "0123456789", ..Connect::new(Version::V5) }, "CONNACK 85"),
    ];
    for (connect, expected) in cases {
        let mut h = Harness::new(Limits { client_id_max_bytes: 9, ..Limits::default() });
        assert!(matches!(h.connect(&connect), Flow::Broken(_)), "{connect:?}");
        assert_eq!(h.take(), [expected], "{connect:?}");
        h.inbound.end(&h.conn);
        assert!(h.service.take_calls().is_empty(), "the broker has not heard of it");
    }
}

#[test]
fn anything_but_connect_first_and_a_second_connect() {
    let mut h = Harness::new(Limits::default());
    assert!(matches!(h.send(&[0xC0, 0]), Flow::Broken(_)));
    assert!(h.take().is_empty());
    assert!(h.link.finished.load(Ordering::Relaxed));

    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    assert!(matches!(h.connect(&Connect::new(Version::V5)), Flow::Broken(_)));
    assert_eq!(h.take(), ["DISCONNECT 82"]);
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    assert!(matches!(h.connect(&Connect::new(Version::V311)), Flow::Broken(_)));
    assert!(h.take().is_empty());
    assert_eq!(h.context.counters.protocol_errors().collect::<Vec<_>>(), [(0x82, 1)]);
}

#[test]
fn time_outs() {
    let mut h = Harness::new(Limits::default());
    assert_eq!(h.inbound.check(&h.conn, 0), Some(10_000));
    assert_eq!(h.inbound.check(&h.conn, 9_999), Some(10_000));
    assert_eq!(h.inbound.check(&h.conn, 10_000), None);
    assert!(h.link.finished.load(Ordering::Relaxed));
    assert_eq!(h.count(Metric::ConnectTimeouts), 1);

    let mut h = Harness::new(Limits::default());
    h.service.hold_connect.store(true, Ordering::Relaxed);
    h.connect(&Connect::new(Version::V5));
    assert_eq!(h.inbound.check(&h.conn, 20_000), None);
    assert_eq!(h.take(), ["CONNACK 88"]);
}

#[test]
fn keep_alive_is_one_and_a_half_times_what_was_asked_exactly() {
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { keep_alive_s: 3, ..Connect::new(Version::V5) });
    h.take();
    assert_eq!(h.inbound.check(&h.conn, 4_499), Some(4_500));
    h.now_ms = 4_499;
    h.send(&[0xC0, 0]);
    assert_eq!(h.inbound.check(&h.conn, 4_500), Some(8_999));
    h.now_ms = 8_000;
    h.send(&[0xC0]); // Half a packet is not a packet.
    assert_eq!(h.inbound.check(&h.conn, 8_999), None);
    assert_eq!(h.take(), ["PINGRESP", "DISCONNECT 8d"]);
    assert_eq!(h.count(Metric::KeepAliveTimeouts), 1);
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls().last().map(String::as_str), Some("ended Lost"));
}

#[test]
fn closing_says_why_to_those_who_understand() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver);
    h.conn.close(Ended::Server, ReasonCode::ServerShuttingDown);
    assert_eq!(h.take(), ["DISCONNECT 8e"]);
    assert_eq!(h.inbound.attend(&h.conn, 0), Flow::Over);
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls(), ["ended TakenOver"]);

    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    h.conn.close(Ended::Server, ReasonCode::ServerShuttingDown);
    assert!(h.take().is_empty());
    assert!(h.link.finished.load(Ordering::Relaxed));
}

#[test]
fn the_end_of_the_stream_waits_for_the_broker_to_note_the_disconnect() {
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    h.service.hold_answers.store(true, Ordering::Relaxed);
    assert_eq!(h.send(&[0xc0, 0, 0xe0, 0]), Flow::Over);
    h.inbound.end(&h.conn);
    assert_eq!(h.take(), ["PINGRESP"]);
    assert!(!h.link.finished.load(Ordering::Relaxed));
    h.conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver);
    assert!(!h.link.finished.load(Ordering::Relaxed));
    h.conn.dismiss();
    assert!(h.link.finished.load(Ordering::Relaxed));
}

#[test]
fn a_clients_disconnect() {
    let bytes = |reason, session_expiry_s| {
        encoded(|buf| {
            let packet = Disconnect { reason, session_expiry_s, ..Disconnect::default() };
            assert!(encode::disconnect(buf, &packet, u32::MAX));
        })
    };
    for (reason, with_will) in [(ReasonCode::Success, false), (ReasonCode::DisconnectWithWill, true)] {
        let mut h = Harness::connected(Version::V5, Limits::default(), false);
        assert_eq!(h.send(&bytes(reason, None)), Flow::Over);
        h.inbound.end(&h.conn);
        assert_eq!(
            h.service.take_calls(),
            [format!("ended Disconnect {{ with_will: {with_will}, expiry_s: None }}")]
        );
        assert!(h.take().is_empty());
    }
    // The session was to end with the connection; that cannot be taken back.
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    assert!(matches!(h.send(&bytes(ReasonCode::Success, Some(5))), Flow::Broken(_)));
    assert_eq!(h.take(), ["DISCONNECT 82"]);
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls(), ["ended Lost"]);

    let mut h = Harness::new(Limits { session_expiry_max_s: 50, ..Limits::default() });
    h.connect(&Connect { session_expiry_s: 10, ..Connect::new(Version::V5) });
    h.service.take_calls();
    h.send(&bytes(ReasonCode::Success, Some(99)));
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls(), ["ended Disconnect { with_will: false, expiry_s: Some(50) }"]);
}

/// The reason string of the only packet sent.
fn reason_string(h: &Harness) -> Option<String> {
    let bytes = h.link.bytes.lock();
    match decode_from_server(&bytes, Version::V5).expect("a packet") {
        Packet::ConnAck(ack) => ack.reason_string.map(Into::into),
        Packet::Disconnect(disconnect) => disconnect.reason_string.map(Into::into),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_5_0_client_is_told_in_words_what_it_did() {
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { client_id: &"x".repeat(2000), ..Connect::new(Version::V5) });
    assert!(reason_string(&h).is_some_and(|text| text.contains("client id")));
    // Unreadable, but with a protocol name and level that say how to answer.
    let mut h = Harness::new(Limits::default());
    h.send(b"\x10\x0D\0\x04MQTT\x05\x01\0\0\0\0\0");
    assert!(reason_string(&h).is_some_and(|text| !text.is_empty()));
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.send(&[0xC1, 0]);
    assert!(reason_string(&h).is_some_and(|text| text.contains("flags")));
    // Not at the cost of what it takes.
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { maximum_packet_size: Some(40), ..Connect::new(Version::V5) });
    h.take();
    h.send(&[0xC1, 0]);
    assert_eq!(*h.link.bytes.lock(), [0xE0, 2, 0x81, 0]);
}

#[test]
fn another_protocol_is_found_out_by_its_first_byte() {
    for bytes in [&b"GET / HTTP/1.1"[..], b"\x30", b"\0", b"\xF0"] {
        let mut h = Harness::new(Limits::default());
        assert!(matches!(h.send(&bytes[..1]), Flow::Broken(_)), "{bytes:?}");
        assert!(h.link.bytes.lock().is_empty());
        assert!(h.service.take_calls().is_empty());
    }
}
