//! Enhanced authentication [MQTT-4.12], with a mechanism that does what the client says.

use std::sync::atomic::Ordering;

use crate::mqtt::{Connect, QoS, ReasonCode, Version};
use crate::session::testing::{FakeExchange, Harness, auth_bytes, publish_bytes};
use crate::session::{Flow, Limits, Metric};

const PINGREQ: [u8; 2] = [0xC0, 0];

fn connect(data: &str) -> Connect<'_> {
    Connect {
        client_id: "c",
        auth_method: Some(FakeExchange::METHOD),
        auth_data: Some(data.as_bytes()),
        ..Connect::new(Version::V5)
    }
}

fn answer(data: &str) -> Vec<u8> {
    auth_bytes(FakeExchange::METHOD, ReasonCode::ContinueAuthentication, data)
}

fn again(data: &str) -> Vec<u8> {
    auth_bytes(FakeExchange::METHOD, ReasonCode::ReAuthenticate, data)
}

/// Waits for the client's answer to a challenge.
fn challenged(limits: Limits) -> Harness {
    let mut h = Harness::new(limits);
    assert_eq!(h.connect(&connect("more")), Flow::Open);
    assert_eq!(h.take(), ["AUTH 18 fake prove it"]);
    assert_eq!(h.service.take_calls(), ["begin fake more"]);
    h
}

/// In, as `ann`.
fn authenticated() -> Harness {
    let mut h = Harness::new(Limits::default());
    assert_eq!(h.connect(&connect("i am ann")), Flow::Open);
    h.take();
    h.service.take_calls();
    h
}

fn broken(flow: Flow) -> ReasonCode {
    match flow {
        Flow::Broken(fault) => fault.reason,
        other => panic!("{other:?}"),
    }
}

fn name_of(h: &Harness) -> Option<&str> {
    h.conn.principal().map(|principal| &*principal.name)
}

#[test]
fn connect_is_carried_out_when_the_exchange_has_succeeded() {
    let mut h = challenged(Limits::default());
    assert!(h.inbound.is_handshake());
    assert_eq!(h.conn.principal(), None);
    assert_eq!(h.send(&answer("more")), Flow::Open);
    assert_eq!(h.take(), ["AUTH 18 fake prove it"]);
    assert_eq!(h.send(&answer("i am ann")), Flow::Open);
    // [MQTT-4.12.0-5]
    assert_eq!(h.take(), ["CONNACK 00 fake welcome"]);
    assert_eq!(
        h.service.take_calls(),
        ["continue more", "continue i am ann", "connect c vV5 expiry 0 as ann"]
    );
    assert_eq!(name_of(&h), Some("ann"));
    assert!(!h.inbound.is_handshake());
    h.send(&PINGREQ);
    assert_eq!(h.take(), ["PINGRESP"]);
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls(), ["ended Lost"]);
}

#[test]
fn in_one_step_and_without_data() {
    let mut h = authenticated();
    assert_eq!(name_of(&h), Some("ann"));
    // A failing step without any data.
    h = Harness::new(Limits::default());
    let flow = h.connect(&Connect { auth_data: None, ..connect("") });
    assert_eq!(broken(flow), ReasonCode::NotAuthorized);
    assert_eq!(h.service.take_calls(), ["begin fake "]);
}

#[test]
fn failures_are_told_by_connack_and_the_broker_hears_of_no_client() {
    let mut h = challenged(Limits::default());
    assert_eq!(broken(h.send(&answer("believe me"))), ReasonCode::NotAuthorized);
    assert_eq!(h.take(), ["CONNACK 87"]);
    assert!(h.link.finished.load(Ordering::Relaxed));
    h.inbound.end(&h.conn);
    assert_eq!(h.service.take_calls(), ["continue believe me"]);
    assert_eq!((h.count(Metric::AuthenticationFailures), h.count(Metric::ConnectRefused)), (1, 1));
    assert_eq!(h.count(Metric::Connections), 0);

    let mut h = Harness::new(Limits::default());
    // [MQTT-4.12.0-1]
    let flow = h.connect(&Connect { auth_method: Some("other"), ..connect("i am ann") });
    assert_eq!(broken(flow), ReasonCode::BadAuthenticationMethod);
    assert_eq!(h.take(), ["CONNACK 8c"]);
}

#[test]
fn a_mechanism_may_answer_later() {
    let mut h = Harness::new(Limits::default());
    assert_eq!(h.connect(&connect("late")), Flow::Held);
    // Read before it was held: kept, because it may be next.
    assert_eq!(h.send(&answer("i am ann")), Flow::Held);
    assert!(h.take().is_empty());
    let exchange = Box::new(FakeExchange);
    h.conn.authenticated(crate::auth::Outcome::Continue { data: b"now".to_vec(), exchange });
    assert!(h.link.wakes.load(Ordering::Relaxed) > 0);
    assert_eq!(h.inbound.attend(&h.conn, 5), Flow::Open);
    assert_eq!(h.take(), ["AUTH 18 fake now", "CONNACK 00 fake welcome"]);

    let mut h = Harness::new(Limits::default());
    h.connect(&connect("late"));
    h.conn.authenticated(crate::auth::Outcome::Failure(FakeExchange::REFUSED));
    assert_eq!(broken(h.inbound.attend(&h.conn, 5)), ReasonCode::NotAuthorized);
    assert_eq!(h.take(), ["CONNACK 87"]);

    // Too late: the client has left.
    let mut h = Harness::new(Limits::default());
    h.connect(&connect("late"));
    h.inbound.end(&h.conn);
    h.conn.authenticated(FakeExchange::success("ann"));
    assert_eq!(h.inbound.attend(&h.conn, 5), Flow::Over);
    assert!(h.take().is_empty());
    assert_eq!(h.service.take_calls(), ["begin fake late"]);
}

#[test]
fn only_auth_and_disconnect_may_precede_connack() {
    let publish = publish_bytes(Version::V5, "t", b"x", QoS::AtMostOnce, 0);
    // The last: malformed in a way that CONNACK has no code for.
    for early in [&PINGREQ[..], &publish, &[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0]] {
        let mut h = challenged(Limits::default());
        assert_eq!(broken(h.send(early)), ReasonCode::ProtocolError);
        assert_eq!(h.take(), ["CONNACK 82"]);
        // While the broker verifies.
        let mut h = Harness::new(Limits::default());
        assert_eq!(h.connect(&connect("late")), Flow::Held);
        assert_eq!(broken(h.send(early)), ReasonCode::ProtocolError);
        assert_eq!(h.take(), ["CONNACK 82"]);
        // While CONNECT is carried out.
        let mut h = challenged(Limits::default());
        h.service.hold_connect.store(true, Ordering::Relaxed);
        let mut bytes = answer("i am ann");
        bytes.extend_from_slice(early);
        assert_eq!(broken(h.send(&bytes)), ReasonCode::ProtocolError);
        assert_eq!(h.take(), ["CONNACK 82"]);
        assert!(!h.conn.accept(h.service.grant("c")));
        h.inbound.end(&h.conn);
        assert_eq!(h.service.take_calls().last().map(String::as_str), Some("ended Server"));
    }
    let mut h = challenged(Limits::default());
    assert_eq!(h.send(&[0xE0, 0]), Flow::Over);
    assert!(h.take().is_empty());
    // A second CONNECT.
    let mut h = challenged(Limits::default());
    assert_eq!(broken(h.connect(&connect("more"))), ReasonCode::ProtocolError);
    assert_eq!(h.take(), ["CONNACK 82"]);
}

#[test]
fn auth_packets_that_the_protocol_forbids_before_connack() {
    let method = FakeExchange::METHOD;
    let cases = [
        (auth_bytes("other", ReasonCode::ContinueAuthentication, "i am ann"), "CONNACK 8c"),
        (auth_bytes("fak", ReasonCode::ContinueAuthentication, "i am ann"), "CONNACK 8c"),
        (auth_bytes(method, ReasonCode::ReAuthenticate, "i am ann"), "CONNACK 82"),
        (auth_bytes(method, ReasonCode::Success, "i am ann"), "CONNACK 82"),
        // Success without properties.
        (vec![0xF0, 0], "CONNACK 82"),
        // No method.
        (vec![0xF0, 2, 0x18, 0], "CONNACK 82"),
        (vec![0xF0, 6, 0x18, 4, 0x16, 0, 1, b'x'], "CONNACK 82"),
        // Flags, an unknown code, no properties.
        (vec![0xF1, 0], "CONNACK 81"),
        (vec![0xF0, 2, 0x17, 0], "CONNACK 81"),
        (vec![0xF0, 1, 0x18], "CONNACK 81"),
    ];
    for (bytes, expected) in cases {
        let mut h = challenged(Limits::default());
        broken(h.send(&bytes));
        assert_eq!(h.take(), [expected], "{bytes:?}");
        assert!(h.service.take_calls().is_empty());
    }
}

#[test]
fn a_client_without_a_method_gets_and_sends_no_auth() {
    // [MQTT-4.12.0-6], [MQTT-4.12.0-7]
    for bytes in [again("i am ann"), answer("i am ann")] {
        let mut h = Harness::connected(Version::V5, Limits::default(), false);
        assert_eq!(broken(h.send(&bytes)), ReasonCode::ProtocolError);
        assert_eq!(h.take(), ["DISCONNECT 82"]);
        assert!(h.service.take_calls().is_empty());
    }
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    assert_eq!(broken(h.send(&again("i am ann"))), ReasonCode::MalformedPacket);
    assert!(h.take().is_empty());
}

#[test]
fn an_exchange_has_the_time_of_a_connect() {
    let limits = Limits { connect_timeout_ms: 100, ..Limits::default() };
    let mut h = Harness::new(limits.clone());
    h.now_ms = 60;
    h.connect(&connect("more"));
    h.take();
    assert_eq!(h.inbound.check(&h.conn, 60), Some(100));
    // Going on does not prolong it.
    h.now_ms = 90;
    h.send(&answer("more"));
    assert_eq!(h.take(), ["AUTH 18 fake prove it"]);
    assert_eq!(h.inbound.check(&h.conn, 90), Some(100));
    assert_eq!(h.inbound.check(&h.conn, 100), None);
    assert_eq!(h.take(), ["CONNACK 87"]);
    assert_eq!(h.count(Metric::ConnectTimeouts), 1);

    let mut h = Harness::new(limits.clone());
    h.connect(&connect("late"));
    assert_eq!(h.inbound.check(&h.conn, 100), None);
    assert_eq!(h.take(), ["CONNACK 88"]);

    // The broker's own time begins when CONNECT is passed on.
    let mut h = challenged(limits);
    h.service.hold_connect.store(true, Ordering::Relaxed);
    h.now_ms = 50;
    h.send(&answer("i am ann"));
    assert_eq!(h.inbound.check(&h.conn, 100), Some(20_050));
}

#[test]
fn again_while_everything_goes_on() {
    let mut h = authenticated();
    h.now_ms = 10;
    assert_eq!(h.send(&again("more")), Flow::Open);
    assert_eq!(h.take(), ["AUTH 18 fake prove it"]);
    // Both ways.
    h.send(&publish_bytes(Version::V5, "t", b"x", QoS::AtLeastOnce, 5));
    h.deliver("d", b"y", QoS::AtMostOnce, 0);
    h.conn.flush();
    assert_eq!(h.take(), ["PUBACK 5 00", "PUBLISH d y q0 id 0"]);
    assert_eq!(h.send(&answer("i am ann")), Flow::Open);
    assert_eq!(h.take(), ["AUTH 00 fake welcome"]);
    let calls = h.service.take_calls();
    assert_eq!((calls[0].as_str(), calls[2].as_str()), ("begin fake more", "continue i am ann"));
    assert_eq!(calls.len(), 3, "no second CONNECT: {calls:?}");
    // And once more, in one step.
    h.send(&again("i am ann"));
    assert_eq!(h.take(), ["AUTH 00 fake welcome"]);
    assert_eq!(name_of(&h), Some("ann"));
    assert_eq!(h.inbound.check(&h.conn, 10), Some(60_010), "nothing is due");
}

#[test]
fn again_answered_later() {
    let mut h = authenticated();
    assert_eq!(h.send(&again("late")), Flow::Open);
    h.send(&PINGREQ);
    assert_eq!(h.take(), ["PINGRESP"]);
    h.conn.authenticated(FakeExchange::success("ann"));
    assert_eq!(h.inbound.attend(&h.conn, 5), Flow::Open);
    h.conn.flush();
    assert_eq!(h.take(), ["AUTH 00 fake welcome"]);
    // An answer before the question.
    assert_eq!(h.send(&again("late")), Flow::Open);
    assert_eq!(broken(h.send(&answer("i am ann"))), ReasonCode::ProtocolError);
    assert_eq!(h.take(), ["DISCONNECT 82"]);
}

#[test]
fn again_and_failing() {
    let method = FakeExchange::METHOD;
    let cases = [
        (vec![again("believe me")], "DISCONNECT 87"),
        (vec![again("more"), answer("believe me")], "DISCONNECT 87"),
        (vec![again("i am bob")], "DISCONNECT 87"),
        // While one is running.
        (vec![again("more"), again("more")], "DISCONNECT 82"),
        (vec![answer("i am ann")], "DISCONNECT 82"),
        (vec![auth_bytes("other", ReasonCode::ReAuthenticate, "i am ann")], "DISCONNECT 8c"),
        (vec![again("more"), auth_bytes("x", ReasonCode::ContinueAuthentication, "")], "DISCONNECT 8c"),
        (vec![auth_bytes(method, ReasonCode::Success, "")], "DISCONNECT 82"),
    ];
    for (packets, expected) in cases {
        let mut h = authenticated();
        let flows: Vec<_> = packets.iter().map(|packet| h.send(packet)).collect();
        assert!(matches!(flows.last(), Some(Flow::Broken(_))), "{flows:?}");
        assert_eq!(h.take().last().map(String::as_str), Some(expected));
        assert!(h.link.finished.load(Ordering::Relaxed));
        h.inbound.end(&h.conn);
        assert_eq!(h.service.take_calls().last().map(String::as_str), Some("ended Lost"), "its will fires");
    }
}

#[test]
fn again_and_stalling() {
    let mut h = authenticated();
    h.now_ms = 1_000;
    h.send(&again("more"));
    assert_eq!(h.inbound.check(&h.conn, 1_000), Some(11_000));
    h.now_ms = 10_999;
    h.send(&PINGREQ);
    assert_eq!(h.inbound.check(&h.conn, 10_999), Some(11_000));
    assert_eq!(h.inbound.check(&h.conn, 11_000), None);
    assert_eq!(h.take().last().map(String::as_str), Some("DISCONNECT 87"));
    assert_eq!(h.count(Metric::AuthenticationFailures), 1);
}

#[test]
fn what_exceeds_the_clients_maximum_packet_size_is_not_sent() {
    let small = |data| Connect { maximum_packet_size: Some(100), ..connect(data) };
    let mut h = Harness::new(Limits::default());
    assert_eq!(broken(h.connect(&small("fat"))), ReasonCode::ImplementationSpecificError);
    assert_eq!(h.take(), ["CONNACK 83"]);
    let mut h = Harness::new(Limits::default());
    assert_eq!(h.connect(&small("i am ann")), Flow::Open);
    h.take();
    assert_eq!(broken(h.send(&again("fat"))), ReasonCode::ImplementationSpecificError);
    assert_eq!(h.take(), ["DISCONNECT 83"]);
}
