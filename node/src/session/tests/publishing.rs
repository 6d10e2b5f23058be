use std::sync::atomic::Ordering;

use crate::mqtt::{PublishOut, QoS, ReasonCode, Version, encode};
use crate::session::testing::{Harness, encoded, publication, publish_bytes};
use crate::session::{Flow, Limits, Metric, turn};

fn publish(h: &mut Harness, qos: QoS, packet_id: u16) -> Flow {
    let bytes = publish_bytes(h.version, "t", b"x", qos, packet_id);
    h.send(&bytes)
}

fn pubrel(h: &mut Harness, packet_id: u16) {
    let bytes = encoded(|buf| encode::pubrel(buf, h.version, packet_id, ReasonCode::Success));
    h.send(&bytes);
}

fn acknowledge(h: &Harness, index: usize, code: ReasonCode) {
    let (conn, ticket) = h.service.tickets.lock()[index].clone();
    conn.acknowledge(ticket, code);
}

#[test]
fn acknowledgements_leave_in_order_whatever_the_order_of_their_completion() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.service.hold_acks.store(true, Ordering::Relaxed);
    publish(&mut h, QoS::AtLeastOnce, 11);
    publish(&mut h, QoS::ExactlyOnce, 12);
    publish(&mut h, QoS::AtLeastOnce, 13);
    acknowledge(&h, 2, ReasonCode::NoMatchingSubscribers);
    acknowledge(&h, 1, ReasonCode::Success);
    assert!(h.take().is_empty());
    acknowledge(&h, 0, ReasonCode::Success);
    assert_eq!(h.take(), ["PUBACK 11 00", "PUBREC 12 00", "PUBACK 13 10"]);
    // Acknowledged twice is acknowledged once.
    acknowledge(&h, 0, ReasonCode::Success);
    assert!(h.take().is_empty());
}

#[test]
fn what_follows_a_refusal_is_known_until_the_client_can_have_heard_of_it() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.service.hold_acks.store(true, Ordering::Relaxed);
    h.service.clock_ms.store(5_000, Ordering::Relaxed);
    for packet_id in 1..=3 {
        publish(&mut h, QoS::AtLeastOnce, packet_id);
    }
    assert!(!h.conn.follows_refused());
    let (conn, second) = h.service.tickets.lock()[1].clone();
    conn.refuse_publish(second, ReasonCode::UnspecifiedError);
    let service = h.service.clone();
    let pass = |ms| service.clock_ms.fetch_add(ms, Ordering::Relaxed);
    // The first is still on its way, so the client hears nothing of the second.
    pass(60_000);
    assert!(h.conn.follows_refused());
    acknowledge(&h, 0, ReasonCode::Success);
    assert_eq!(h.take(), ["PUBACK 1 00", "PUBACK 2 80"]);
    pass(999);
    assert!(h.conn.follows_refused());
    pass(1);
    assert!(!h.conn.follows_refused());
    acknowledge(&h, 2, ReasonCode::Success);
    assert!(!h.conn.follows_refused());
}

#[test]
fn a_qos_2_message_comes_once() {
    for version in [Version::V311, Version::V5] {
        let mut h = Harness::connected(version, Limits::default(), false);
        publish(&mut h, QoS::ExactlyOnce, 5);
        publish(&mut h, QoS::ExactlyOnce, 5);
        assert_eq!(h.take(), ["PUBREC 5 00", "PUBREC 5 00"]);
        assert_eq!(h.service.published.load(Ordering::Relaxed), 1);
        pubrel(&mut h, 5);
        assert_eq!(h.take(), ["PUBCOMP 5 00"]);
        publish(&mut h, QoS::ExactlyOnce, 5);
        assert_eq!(h.service.published.load(Ordering::Relaxed), 2);
        assert_eq!(h.take(), ["PUBREC 5 00"]);
        pubrel(&mut h, 5);
        pubrel(&mut h, 5);
        let unknown = if version == Version::V5 { "PUBCOMP 5 92" } else { "PUBCOMP 5 00" };
        assert_eq!(h.take(), ["PUBCOMP 5 00", unknown]);
        assert_eq!(h.count(Metric::UnknownPacketIds), 1);
    }
}

#[test]
fn a_repeat_shares_the_fate_of_a_qos_2_message_that_is_not_decided() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.service.hold_acks.store(true, Ordering::Relaxed);
    publish(&mut h, QoS::ExactlyOnce, 5);
    publish(&mut h, QoS::ExactlyOnce, 5);
    assert!(h.take().is_empty());
    acknowledge(&h, 0, ReasonCode::QuotaExceeded);
    assert_eq!(h.take(), ["PUBREC 5 97", "PUBREC 5 97"]);
    // The id is free again.
    publish(&mut h, QoS::ExactlyOnce, 5);
    assert_eq!(h.service.published.load(Ordering::Relaxed), 2);
}

#[test]
fn qos_2_of_a_persistent_session_is_the_brokers_business() {
    let mut h = Harness::connected(Version::V5, Limits::default(), true);
    publish(&mut h, QoS::ExactlyOnce, 5);
    publish(&mut h, QoS::ExactlyOnce, 5);
    pubrel(&mut h, 5);
    assert_eq!(
        h.service.take_calls(),
        ["publish t x q2 id 5 expiry None", "publish t x q2 id 5 expiry None", "release 5"]
    );
    assert_eq!(h.take(), ["PUBREC 5 00", "PUBREC 5 00", "PUBCOMP 5 00"]);
}

#[test]
fn an_error_that_3_x_cannot_express_closes_instead_of_acknowledging() {
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    h.service.hold_acks.store(true, Ordering::Relaxed);
    publish(&mut h, QoS::AtLeastOnce, 1);
    publish(&mut h, QoS::AtLeastOnce, 2);
    acknowledge(&h, 0, ReasonCode::NotAuthorized);
    assert_eq!(h.take(), ["PUBACK 1 00"]);
    acknowledge(&h, 1, ReasonCode::QuotaExceeded);
    assert!(h.take().is_empty());
    assert!(h.link.finished.load(Ordering::Relaxed));
}

#[test]
fn the_receive_maximum_is_enforced() {
    let limits = Limits { receive_maximum: 3, ..Limits::default() };
    let mut h = Harness::connected(Version::V5, limits.clone(), false);
    h.service.hold_acks.store(true, Ordering::Relaxed);
    publish(&mut h, QoS::AtLeastOnce, 1);
    publish(&mut h, QoS::ExactlyOnce, 2);
    publish(&mut h, QoS::AtLeastOnce, 3);
    // Room by the first PUBACK only; PUBREC gives none.
    for index in 0..2 {
        acknowledge(&h, index, ReasonCode::Success);
    }
    assert_eq!(publish(&mut h, QoS::AtLeastOnce, 4), Flow::Open);
    assert!(matches!(publish(&mut h, QoS::AtLeastOnce, 5), Flow::Broken(_)));
    assert_eq!(h.take(), ["PUBACK 1 00", "PUBREC 2 00", "DISCONNECT 93"]);

    // A 3.x client does not know of it and is not read meanwhile.
    let mut h = Harness::connected(Version::V311, limits, false);
    h.service.hold_acks.store(true, Ordering::Relaxed);
    publish(&mut h, QoS::AtLeastOnce, 1);
    publish(&mut h, QoS::AtLeastOnce, 2);
    assert_eq!(publish(&mut h, QoS::AtLeastOnce, 3), Flow::Held);
    assert_eq!(publish(&mut h, QoS::AtLeastOnce, 4), Flow::Held);
    assert_eq!(h.service.tickets.lock().len(), 3);
    let wakes = h.link.wakes.load(Ordering::Relaxed);
    acknowledge(&h, 0, ReasonCode::Success);
    assert_eq!(h.link.wakes.load(Ordering::Relaxed), wakes + 1);
    // Two unanswered, and the fourth comes in.
    assert_eq!(h.inbound.attend(&h.conn, 7), Flow::Held);
    assert_eq!(h.service.tickets.lock().len(), 4);
    for index in 1..4 {
        acknowledge(&h, index, ReasonCode::Success);
    }
    assert_eq!(h.inbound.attend(&h.conn, 9), Flow::Open);
    assert_eq!(h.take(), ["PUBACK 1 00", "PUBACK 2 00", "PUBACK 3 00", "PUBACK 4 00"]);
}

#[test]
fn a_connection_that_stalls_for_too_long_is_closed_but_not_for_its_keep_alive() {
    let limits = Limits { receive_maximum: 1, stall_timeout_ms: 30_000, ..Limits::default() };
    let mut h = Harness::new(limits);
    h.connect(&crate::mqtt::Connect {
        keep_alive_s: 1,
        client_id: "c",
        ..crate::mqtt::Connect::new(Version::V311)
    });
    h.service.hold_acks.store(true, Ordering::Relaxed);
    assert_eq!(publish(&mut h, QoS::AtLeastOnce, 1), Flow::Held);
    assert_eq!(h.inbound.check(&h.conn, 29_999), Some(30_000));
    assert_eq!(h.inbound.check(&h.conn, 30_000), None);
    assert_eq!(h.count(Metric::StallTimeouts), 1);
}

#[test]
fn requests_beyond_the_bound_wait() {
    let mut h = Harness::connected(Version::V5, Limits { requests_max: 2, ..Limits::default() }, false);
    h.service.hold_answers.store(true, Ordering::Relaxed);
    let subscribe = |packet_id| {
        encoded(|buf| {
            let filter = crate::mqtt::SubscribeFilter { filter: "a/+", options: Default::default() };
            encode::subscribe(buf, Version::V5, packet_id, 9, &[filter]).expect("fits");
        })
    };
    assert_eq!(h.send(&subscribe(1)), Flow::Open);
    assert_eq!(h.send(&[subscribe(2), subscribe(3)].concat()), Flow::Held);
    assert_eq!(h.service.take_calls(), ["subscribe 1 9 [\"a/+\"]", "subscribe 2 9 [\"a/+\"]"]);
    h.conn.subscribed(2, &[ReasonCode::GrantedQoS1]);
    assert_eq!(h.inbound.attend(&h.conn, 0), Flow::Held);
    assert_eq!(h.service.take_calls(), ["subscribe 3 9 [\"a/+\"]"]);
    assert_eq!(h.take(), ["SUBACK 2"]);
}

#[test]
fn a_request_of_very_many_filters_is_alone_under_way() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.service.hold_answers.store(true, Ordering::Relaxed);
    let filters = vec![crate::mqtt::SubscribeFilter { filter: "a", options: Default::default() }; 257];
    let subscribe = |packet_id, filters: &[_]| {
        encoded(|buf| encode::subscribe(buf, Version::V5, packet_id, 0, filters).expect("fits"))
    };
    let both = [subscribe(1, &filters), subscribe(2, &filters[..1])].concat();
    assert_eq!(h.send(&both), Flow::Held);
    assert_eq!(h.service.take_calls().len(), 1);
    h.conn.subscribed(1, &vec![ReasonCode::Success; filters.len()]);
    assert_eq!(h.inbound.attend(&h.conn, 0), Flow::Open);
    assert_eq!(h.service.take_calls(), ["subscribe 2 0 [\"a\"]"]);
    // Nothing of its weight is left: as many small ones as ever may follow.
    let small: Vec<u8> = (3..60).flat_map(|id| subscribe(id, &filters[..1])).collect();
    assert_eq!(h.send(&small), Flow::Open);
}

#[test]
fn topic_aliases() {
    let mut h = Harness::connected(Version::V5, Limits { topic_alias_max: 2, ..Limits::default() }, false);
    let send = |h: &mut Harness, topic: &str, alias: u16, with_topic: bool| {
        let publication = publication(topic, b"x", QoS::AtMostOnce, 0);
        let bytes = encoded(|buf| {
            let publish = PublishOut {
                topic_alias: Some((alias, with_topic)),
                ..PublishOut::new(Version::V5, &publication)
            };
            encode::publish(buf, &publish).expect("fits");
        });
        h.send(&bytes)
    };
    send(&mut h, "one", 2, true);
    send(&mut h, "", 2, false);
    send(&mut h, "two", 2, true);
    send(&mut h, "", 2, false);
    let topics: Vec<_> =
        h.service.take_calls().iter().map(|call| call.split(' ').nth(1).map(String::from)).collect();
    assert_eq!(topics.iter().flatten().collect::<Vec<_>>(), ["one", "one", "two", "two"]);
    assert!(
        matches!(send(&mut h, "", 1, false), Flow::Broken(fault) if fault.reason == ReasonCode::ProtocolError)
    );
    let mut h = Harness::connected(Version::V5, Limits { topic_alias_max: 2, ..Limits::default() }, false);
    assert!(matches!(send(&mut h, "x", 3, true), Flow::Broken(_)));
    assert_eq!(h.take(), ["DISCONNECT 94"]);
}

#[test]
fn a_publish_waits_for_the_subscription_before_it() {
    let subscribe = [0x82, 6, 0, 7, 0, 1, b't', 0];
    let publish = [0x30, 4, 0, 1, b't', b'x'];
    let mut h = Harness::connected(Version::V311, Limits::default(), true);
    h.service.hold_answers.store(true, Ordering::Relaxed);
    // What is no PUBLISH goes on.
    assert_eq!(h.send(&[&subscribe[..], &[0xc0, 0], &publish, &[0xc0, 0]].concat()), Flow::Held);
    assert_eq!(h.service.take_calls(), ["subscribe 7 0 [\"t\"]"]);
    assert_eq!(h.take(), ["PINGRESP"]);
    h.conn.subscribed(7, &[ReasonCode::Success]);
    assert_eq!(h.inbound.attend(&h.conn, 0), Flow::Open);
    assert_eq!(h.service.take_calls(), ["publish t x q0 id 0 expiry None"]);
    assert_eq!(h.take().last().map(String::as_str), Some("PINGRESP"));
    // A clean session's subscription is there at once.
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    h.service.hold_answers.store(true, Ordering::Relaxed);
    assert_eq!(h.send(&[&subscribe[..], &publish].concat()), Flow::Open);
    assert_eq!(h.service.take_calls().len(), 2);
}

#[test]
fn a_subscription_follows_what_was_published_before_it() {
    for persistent in [false, true] {
        let mut h = Harness::connected(Version::V5, Limits::default(), persistent);
        // As the broker notes a publish that goes through the log.
        h.conn.publish_order().lock().get_or_insert_default().log_started();
        for request in [&[0x82, 7, 0, 1, 0, 0, 1, b'f', 0][..], &[0xA2, 6, 0, 2, 0, 0, 1, b'f']] {
            assert_eq!(h.send(&[request, &[0xC0, 0]].concat()), Flow::Held);
            assert!(h.service.take_calls().is_empty());
            assert!(h.take().is_empty(), "nor does what follows overtake it");
            let wakes = h.link.wakes.load(Ordering::Relaxed);
            // Another is still under way.
            assert_eq!(h.inbound.attend(&h.conn, 1), Flow::Held);
            if let Some(order) = h.conn.publish_order().lock().as_mut() {
                order.log_ended(1);
                assert!(order.is_settled());
            }
            h.conn.publishes_settled();
            assert!(h.link.wakes.load(Ordering::Relaxed) > wakes);
            assert_eq!(turn(|| h.inbound.attend(&h.conn, 2)), Flow::Open);
            assert_eq!(h.service.take_calls().len(), 1);
            assert_eq!(h.take().len(), 2);
            h.conn.publish_order().lock().get_or_insert_default().log_started();
        }
    }
}
