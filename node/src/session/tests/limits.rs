//! What a well-formed packet may hold, and what a client takes.

use std::sync::atomic::Ordering;

use crate::mqtt::{Connect, ForwardProperties, QoS, UserProperties, Version, Will};
use crate::session::testing::Harness;
use crate::session::{Delivered, Flow, Limits, Metric};

const PROPERTY: [u8; 7] = [0x26, 0, 1, b'k', 0, 1, b'v'];

fn user_properties(n: usize) -> Vec<u8> {
    PROPERTY.repeat(n)
}

/// A packet of 5.0 with less than 128 bytes in it.
fn packet(first: u8, before: &[u8], properties: &[u8], after: &[u8]) -> Vec<u8> {
    let len = before.len() + 1 + properties.len() + after.len();
    assert!(len < 128);
    [&[first, len as u8], before, &[properties.len() as u8], properties, after].concat()
}

fn limited() -> Limits {
    Limits { user_properties_max: 2, user_properties_max_bytes: 20, filters_max: 2, ..Limits::default() }
}

/// A packet with these properties.
type Make = fn(&[u8]) -> Vec<u8>;

#[test]
fn user_properties_are_bounded_in_every_packet() {
    let packets: [Make; 6] = [
        |p| packet(0x30, b"\0\x01t", p, b"x"),
        |p| packet(0x82, &[0, 1], p, b"\0\x01f\0"),
        |p| packet(0xA2, &[0, 1], p, b"\0\x01f"),
        |p| packet(0x40, &[0, 1, 0], p, b""),
        |p| packet(0x62, &[0, 1, 0], p, b""),
        |p| packet(0x50, &[0, 1, 0x80], p, b""),
    ];
    for make in packets {
        let mut h = Harness::connected(Version::V5, limited(), false);
        assert_eq!(h.send(&make(&user_properties(2))), Flow::Open);
        h.take();
        assert!(matches!(h.send(&make(&user_properties(3))), Flow::Broken(_)));
        assert_eq!(h.take(), ["DISCONNECT 97"]);
        // Two, but too large.
        let mut h = Harness::connected(Version::V5, limited(), false);
        let large = [&user_properties(1)[..], &[0x26, 0, 9], &[b'k'; 9], &[0, 0]].concat();
        assert!(matches!(h.send(&make(&large)), Flow::Broken(_)));
        assert_eq!(h.take(), ["DISCONNECT 97"]);
    }
    // What else is in the block does not count.
    let mut h = Harness::connected(Version::V5, limited(), false);
    let other = [&user_properties(2)[..], &[0x03, 0, 20], &[b'c'; 20]].concat();
    assert_eq!(h.send(&packet(0x30, b"\0\x01t", &other, b"x")), Flow::Open);
}

fn refusal(version: Version, connect: impl FnOnce(&mut Connect<'_>), limits: Limits) -> Vec<String> {
    let mut h = Harness::new(limits);
    let mut request = Connect { client_id: "c", ..Connect::new(version) };
    connect(&mut request);
    let flow = h.connect(&request);
    assert!(matches!(flow, Flow::Broken(_)), "{flow:?}");
    assert!(h.service.take_calls().is_empty());
    h.take()
}

fn will<'a>(topic: &'a str, payload: &'a [u8]) -> Option<Will<'a>> {
    let properties = ForwardProperties::default();
    Some(Will { topic, payload, qos: QoS::AtMostOnce, retain: false, delay_s: 0, expiry_s: None, properties })
}

#[test]
fn a_connect_beyond_the_limits_is_refused_with_its_reason() {
    let limits = || Limits {
        topic_max_bytes: 5,
        topic_levels_max: 2,
        will_max_bytes: 3,
        client_id_max_bytes: 4,
        ..limited()
    };
    let leaked = |n| -> &'static [u8] { Box::leak(user_properties(n).into_boxed_slice()) };
    let many = UserProperties::from_wire(leaked(3)).expect("well-formed");
    assert_eq!(refusal(Version::V5, |c| c.user_properties = many, limits()), ["CONNACK 97"]);
    let both = |c: &mut Connect<'_>| {
        c.will = will("w", b"");
        if let Some(will) = &mut c.will {
            will.properties = ForwardProperties::from_wire(leaked(2)).expect("well-formed");
        }
        c.user_properties = UserProperties::from_wire(leaked(1)).expect("well-formed");
    };
    assert_eq!(refusal(Version::V5, both, limits()), ["CONNACK 97"]);
    assert_eq!(refusal(Version::V5, |c| c.client_id = "12345", limits()), ["CONNACK 85"]);
    assert_eq!(refusal(Version::V5, |c| c.will = will("w", b"1234"), limits()), ["CONNACK 97"]);
    assert_eq!(refusal(Version::V5, |c| c.will = will("a/b/c", b""), limits()), ["CONNACK 90"]);
    assert_eq!(refusal(Version::V5, |c| c.will = will("abcdef", b""), limits()), ["CONNACK 90"]);
    // In 3.x the nearest return code, or none.
    assert_eq!(refusal(Version::V311, |c| c.client_id = "12345", limits()), ["CONNACK 85"]);
    assert_eq!(refusal(Version::V311, |c| c.will = will("w", b"1234"), limits()), ["CONNACK 88"]);
    assert!(refusal(Version::V311, |c| c.will = will("abcdef", b""), limits()).is_empty());
}

#[test]
fn topics_are_bounded_in_bytes_and_levels() {
    let limits = || Limits { topic_max_bytes: 5, topic_levels_max: 2, ..Limits::default() };
    for topic in [&b"\0\x06abcdef"[..], b"\0\x05a/b/c"] {
        let mut h = Harness::connected(Version::V5, limits(), false);
        assert_eq!(h.send(&packet(0x30, b"\0\x05abc/d", b"", b"x")), Flow::Open);
        assert!(matches!(h.send(&packet(0x30, topic, b"", b"x")), Flow::Broken(_)));
        assert_eq!(h.take(), ["DISCONNECT 90"]);
    }
}

#[test]
fn text_that_is_not_text_is_refused_where_that_is_checked() {
    let bad = b"caf\xE9";
    let checked = || Limits { check_payload_format: true, ..Limits::default() };
    for (limits, code) in [(Limits::default(), "00"), (checked(), "99")] {
        let mut h = Harness::connected(Version::V5, limits, false);
        h.send(&packet(0x32, b"\0\x01t\0\x01", b"\x01\x01", bad));
        h.send(&packet(0x34, b"\0\x01t\0\x02", b"\x01\x01", bad));
        assert_eq!(h.take(), [format!("PUBACK 1 {code}"), format!("PUBREC 2 {code}")]);
        // Neither what is not said to be text nor what is.
        h.send(&packet(0x32, b"\0\x01t\0\x03", b"\x01\x00", bad));
        h.send(&packet(0x32, b"\0\x01t\0\x04", b"", bad));
        h.send(&packet(0x32, b"\0\x01t\0\x05", b"\x01\x01", "café".as_bytes()));
        assert_eq!(h.take(), ["PUBACK 3 00", "PUBACK 4 00", "PUBACK 5 00"]);
        assert_eq!(h.service.published.load(Ordering::Relaxed), if code == "00" { 5 } else { 3 });
    }
    let mut h = Harness::connected(Version::V5, checked(), false);
    assert!(matches!(h.send(&packet(0x30, b"\0\x01t", b"\x01\x01", bad)), Flow::Broken(_)));
    assert_eq!(h.take(), ["DISCONNECT 99"]);
    let mut h = Harness::new(checked());
    let properties = ForwardProperties::from_wire(b"\x01\x01").expect("forwardable");
    let will = Will {
        topic: "t",
        payload: bad,
        properties,
        qos: QoS::AtMostOnce,
        retain: false,
        delay_s: 0,
        expiry_s: None,
    };
    h.connect(&Connect { client_id: "c", will: Some(will), ..Connect::new(Version::V5) });
    assert_eq!(h.take(), ["CONNACK 99"]);
}

#[test]
fn filters_in_one_packet_are_bounded() {
    let filters = |n: usize| b"\0\x01f\0".repeat(n);
    let names = |n: usize| b"\0\x01f".repeat(n);
    let mut h = Harness::connected(Version::V5, limited(), false);
    h.send(&packet(0x82, &[0, 1], b"", &filters(2)));
    h.send(&packet(0x82, &[0, 2], b"", &filters(3)));
    h.send(&packet(0xA2, &[0, 3], b"", &names(2)));
    h.send(&packet(0xA2, &[0, 4], b"", &names(3)));
    let answers = h.link.bytes.lock().clone();
    let expected = [
        &[0x90, 5, 0, 1, 0, 0, 0][..],
        &[0x90, 6, 0, 2, 0, 0x97, 0x97, 0x97],
        &[0xB0, 5, 0, 3, 0, 0, 0],
        &[0xB0, 6, 0, 4, 0, 0x83, 0x83, 0x83],
    ];
    assert_eq!(answers, expected.concat());
    assert_eq!(h.service.take_calls().len(), 2, "the broker saw only what is within the limit");

    let mut h = Harness::connected(Version::V311, limited(), false);
    h.send(&[&[0x82, 14, 0, 1][..], &filters(3)].concat());
    assert_eq!(*h.link.bytes.lock(), [0x90, 5, 0, 1, 0x80, 0x80, 0x80]);
    h.link.bytes.lock().clear();
    assert!(matches!(h.send(&[&[0xA2, 11, 0, 2][..], &names(3)].concat()), Flow::Broken(_)));
    assert!(h.take().is_empty(), "UNSUBACK cannot say no");
}

/// Connected as a client that takes no larger packet.
fn taking(maximum_packet_size: u32) -> Harness {
    let mut h = Harness::new(Limits::default());
    let maximum_packet_size = Some(maximum_packet_size);
    h.connect(&Connect {
        client_id: "c",
        maximum_packet_size,
        topic_alias_maximum: 9,
        ..Connect::new(Version::V5)
    });
    assert_eq!(h.take(), ["CONNACK 00"]);
    h
}

#[test]
fn an_answer_that_the_client_does_not_take_ends_the_connection() {
    let mut h = taking(30);
    h.send(&packet(0x82, &[0, 1], b"", &b"\0\x01f\0".repeat(25)));
    assert_eq!(h.take(), ["SUBACK 1"]);
    h.send(&packet(0x82, &[0, 2], b"", &b"\0\x01f\0".repeat(26)));
    assert_eq!(h.take(), ["DISCONNECT 95"]);
}

#[test]
fn a_new_alias_does_not_make_a_message_too_large() {
    let h = taking(21);
    // 20 bytes, and 3 for the alias.
    assert_eq!(h.deliver("topic", &[b'x'; 10], QoS::AtMostOnce, 0), Delivered::Sent);
    assert_eq!(h.link.bytes.lock().len(), 20);
    assert_eq!(h.deliver("topic", &[b'x'; 12], QoS::AtMostOnce, 0), Delivered::Dropped);
    assert_eq!(h.count(Metric::DroppedTooLarge), 1);
    // The alias is still to be had.
    h.link.bytes.lock().clear();
    assert_eq!(h.deliver("topic", b"x", QoS::AtMostOnce, 0), Delivered::Sent);
    assert_eq!(h.deliver("topic", &[b'x'; 13], QoS::AtMostOnce, 0), Delivered::Sent);
}

#[test]
fn one_message_larger_than_the_queue_waits_all_the_same() {
    let limits = Limits { queue_max_bytes: 1000, ..Limits::default() };
    let mut h = Harness::new(limits);
    h.connect(&Connect { client_id: "c", receive_maximum: 1, ..Connect::new(Version::V5) });
    h.take();
    assert_eq!(h.deliver("t", b"first", QoS::AtLeastOnce, 0), Delivered::Sent);
    assert_eq!(h.deliver("t", &[b'x'; 2000], QoS::AtLeastOnce, 0), Delivered::Queued);
    assert_eq!(h.deliver("t", b"third", QoS::AtLeastOnce, 0), Delivered::Dropped);
    h.take();
    h.send(&[0x40, 2, 0, 1]);
    assert_eq!(h.take().len(), 1, "its turn has come");
}

#[test]
fn sending_a_large_packet_is_a_sign_of_life() {
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { client_id: "c", keep_alive_s: 2, ..Connect::new(Version::V311) });
    h.take();
    // 100,000 bytes to come.
    h.send(&[0x30, 0xA0, 0x8D, 0x06, 0, 1, b't']);
    for second in 1..20 {
        h.now_ms = second * 2_000;
        assert!(h.inbound.check(&h.conn, h.now_ms).is_some(), "{second}");
        assert_eq!(h.send(&[b'x'; 2000]), Flow::Open);
    }
    // A drop now and then is not.
    h.now_ms += 2_900;
    h.send(&[b'x'; 10]);
    assert_eq!(h.inbound.check(&h.conn, h.now_ms + 100), None);
    assert_eq!(h.count(Metric::KeepAliveTimeouts), 1);
}

#[test]
fn a_client_that_still_takes_one_large_message_is_read() {
    let limits = Limits { outbox_max_bytes: 100, packet_max_bytes: 1000, ..Limits::default() };
    let mut h = Harness::connected(Version::V5, limits, false);
    h.link.room.store(0, Ordering::Relaxed);
    assert_eq!(h.deliver("t", &[b'x'; 900], QoS::AtMostOnce, 0), Delivered::Sent);
    assert_eq!(h.send(&[0xC0, 0]), Flow::Open);
}
