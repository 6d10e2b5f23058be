use std::cell::OnceCell;
use std::sync::atomic::Ordering;

use crate::mqtt::{Connect, Packet, QoS, ReasonCode, Version, decode_from_server, encode};
use crate::session::testing::{Harness, encoded, publication, stored};
use crate::session::{Delivered, Delivery, Flow, Limits, Metric, Share};
use crate::state::Stored;

enum Ack {
    Pub,
    Rec,
    Comp,
}

fn ack(h: &mut Harness, ack: Ack, packet_id: u16, reason: ReasonCode) -> Flow {
    let version = h.version;
    let bytes = encoded(|buf| match ack {
        Ack::Pub => encode::puback(buf, version, packet_id, reason),
        Ack::Rec => encode::pubrec(buf, version, packet_id, reason),
        Ack::Comp => encode::pubcomp(buf, version, packet_id, reason),
    });
    h.send(&bytes)
}

const OK: ReasonCode = ReasonCode::Success;

/// Connected as 5.0 with a Receive Maximum.
fn with_window(receive_maximum: u16, limits: Limits) -> Harness {
    let mut h = Harness::new(limits);
    h.connect(&Connect { client_id: "c", receive_maximum, ..Connect::new(Version::V5) });
    h.take();
    h.service.take_calls();
    h
}

#[test]
fn qos_0_and_1_and_2_to_a_clean_session() {
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    assert_eq!(h.deliver("t", b"a", QoS::AtMostOnce, 0), Delivered::Sent);
    assert_eq!(h.deliver("t", b"b", QoS::AtLeastOnce, 0), Delivered::Sent);
    assert_eq!(h.deliver("t", b"c", QoS::ExactlyOnce, 0), Delivered::Sent);
    assert_eq!(h.take(), ["PUBLISH t a q0 id 0", "PUBLISH t b q1 id 1", "PUBLISH t c q2 id 2"]);
    ack(&mut h, Ack::Rec, 2, OK);
    ack(&mut h, Ack::Rec, 2, OK);
    assert_eq!(h.take(), ["PUBREL 2 00", "PUBREL 2 00"]);
    ack(&mut h, Ack::Comp, 2, OK);
    ack(&mut h, Ack::Pub, 1, OK);
    assert_eq!(h.conn.backlog().in_flight, 0);
    assert!(h.take().is_empty());
    assert_eq!(h.count(Metric::PublishSent), 3);
    assert!(h.service.take_calls().is_empty(), "nobody else is interested");
}

#[test]
fn acknowledgements_that_fit_nothing() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    ack(&mut h, Ack::Pub, 9, OK);
    ack(&mut h, Ack::Comp, 9, OK);
    assert!(h.take().is_empty());
    ack(&mut h, Ack::Rec, 9, OK);
    assert_eq!(h.take(), ["PUBREL 9 92"]);
    assert_eq!(h.count(Metric::UnknownPacketIds), 3);
    h.deliver("t", b"c", QoS::ExactlyOnce, 0);
    assert!(matches!(ack(&mut h, Ack::Pub, 1, OK), Flow::Broken(_)));
}

#[test]
fn the_window_and_the_queue_behind_it() {
    let mut h = with_window(2, Limits { queue_max: 3, ..Limits::default() });
    let results: Vec<_> = (0..6).map(|i| h.deliver("t", &[b'0' + i], QoS::AtLeastOnce, 0)).collect();
    use Delivered::{Dropped, Queued, Sent};
    assert_eq!(results, [Sent, Sent, Queued, Queued, Queued, Dropped]);
    assert_eq!(h.count(Metric::DroppedQueueFull), 1);
    assert_eq!(h.take(), ["PUBLISH t 0 q1 id 1", "PUBLISH t 1 q1 id 2"]);
    // QoS 0 does not wait for the window.
    assert_eq!(h.deliver("t", b"x", QoS::AtMostOnce, 0), Sent);
    assert_eq!(h.take(), ["PUBLISH t x q0 id 0"]);
    ack(&mut h, Ack::Pub, 2, OK);
    assert_eq!(h.take(), ["PUBLISH t 2 q1 id 3"]);
    ack(&mut h, Ack::Pub, 1, OK);
    ack(&mut h, Ack::Pub, 3, OK);
    assert_eq!(h.take(), ["PUBLISH t 3 q1 id 4", "PUBLISH t 4 q1 id 5"]);
    assert_eq!(h.conn.backlog().waiting, 0);
}

#[test]
fn an_error_in_pubrec_makes_room() {
    let mut h = with_window(1, Limits::default());
    h.deliver("t", b"a", QoS::ExactlyOnce, 0);
    h.deliver("t", b"b", QoS::ExactlyOnce, 0);
    h.take();
    ack(&mut h, Ack::Rec, 1, ReasonCode::QuotaExceeded);
    assert_eq!(h.take(), ["PUBLISH t b q2 id 2"]);
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let h = with_window(1, Limits { queue_max_bytes: 3000, ..Limits::default() });
    let big = [b'x'; 1000];
    let results: Vec<_> = (0..5).map(|_| h.deliver("t", &big, QoS::AtLeastOnce, 0)).collect();
    use Delivered::{Dropped, Queued, Sent};
    assert_eq!(results, [Sent, Queued, Queued, Dropped, Dropped]);
}

#[test]
fn expiry() {
    let mut h = with_window(1, Limits::default());
    h.service.clock_ms.store(10_000, Ordering::Relaxed);
    assert_eq!(h.deliver("t", b"a", QoS::AtLeastOnce, 10_000), Delivered::Dropped);
    h.deliver("t", b"b", QoS::AtLeastOnce, 10_001);
    h.deliver("t", b"c", QoS::AtLeastOnce, 15_000);
    h.deliver("t", b"d", QoS::AtLeastOnce, 17_500);
    assert_eq!(h.take(), ["PUBLISH t b q1 id 1 expiry 1"]);
    h.service.clock_ms.store(15_000, Ordering::Relaxed);
    ack(&mut h, Ack::Pub, 1, OK);
    assert_eq!(h.take(), ["PUBLISH t d q1 id 2 expiry 3"]);
    assert_eq!(h.count(Metric::DroppedExpired), 2);
}

#[test]
fn no_message_has_more_left_than_it_came_with() {
    let mut h = with_window(2, Limits::default());
    // It came with 10 s on a node whose clock is a little ahead of this one's.
    h.service.clock_ms.store(9_990, Ordering::Relaxed);
    h.deliver("t", b"a", QoS::AtLeastOnce, 20_000);
    h.deliver("t", b"b", QoS::AtLeastOnce, 9_991);
    assert_eq!(h.take(), ["PUBLISH t a q1 id 1 expiry 10", "PUBLISH t b q1 id 2 expiry 1"]);
}

#[test]
fn the_clients_maximum_packet_size() {
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { maximum_packet_size: Some(60), client_id: "c", ..Connect::new(Version::V5) });
    h.take();
    assert_eq!(h.deliver("t", &[b'x'; 60], QoS::AtLeastOnce, 0), Delivered::Dropped);
    assert_eq!(h.deliver("t", b"x", QoS::AtLeastOnce, 0), Delivered::Sent);
    assert_eq!(h.count(Metric::DroppedTooLarge), 1);
    assert_eq!(h.take(), ["PUBLISH t x q1 id 1"]);
}

#[test]
fn aliases_go_to_the_first_topics() {
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { topic_alias_maximum: 1, client_id: "c", ..Connect::new(Version::V5) });
    h.take();
    for topic in ["first", "second", "first", "first"] {
        h.deliver(topic, b"", QoS::AtMostOnce, 0);
    }
    let bytes = h.link.bytes.lock().clone();
    let mut rest = &bytes[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let len = crate::mqtt::frame_len(rest, 999).expect("valid").expect("whole");
        let Ok(Packet::Publish(p)) = decode_from_server(&rest[..len], Version::V5) else {
            panic!("no PUBLISH")
        };
        seen.push((p.topic, p.topic_alias));
        rest = &rest[len..];
    }
    assert_eq!(seen, [("first", 1), ("second", 0), ("", 1), ("", 1)]);
}

#[test]
fn stored_deliveries_keep_their_place() {
    let mut h = Harness::connected(Version::V5, Limits { inflight_max: 3, ..Limits::default() }, true);
    let items: Vec<Stored> = (0..5).map(|seq| stored(seq, &[b'a' + seq as u8], QoS::AtLeastOnce)).collect();
    assert_eq!(h.conn.deliver_stored(&items[..2], 0), 2);
    // Somebody else read the queue at the same time.
    assert_eq!(h.conn.deliver_stored(&items, 0), 3);
    assert_eq!((h.conn.next_seq(), h.conn.sent_upto()), (3, 3));
    assert_eq!(h.take(), ["PUBLISH s a q1 id 1", "PUBLISH s b q1 id 2", "PUBLISH s c q1 id 3"]);
    ack(&mut h, Ack::Pub, 2, OK);
    assert_eq!(h.service.take_calls(), ["progress [(1, Done)]", "wants more"]);
    assert_eq!(h.conn.deliver_stored(&items[3..], 0), 1);
    assert_eq!(h.take(), ["PUBLISH s d q1 id 4"]);
    let both = [
        encoded(|b| encode::puback(b, Version::V5, 1, OK)),
        encoded(|b| encode::puback(b, Version::V5, 4, OK)),
    ];
    h.send(&both.concat());
    assert_eq!(h.service.take_calls(), ["progress [(0, Done), (3, Done)]", "wants more"]);
    // Live deliveries at QoS 0 go beside, others must come through the queue.
    assert_eq!(h.deliver("t", b"x", QoS::AtMostOnce, 0), Delivered::Sent);
    assert_eq!(h.deliver("t", b"x", QoS::AtLeastOnce, 0), Delivered::Dropped);
}

#[test]
fn stored_qos_2_waits_for_its_record() {
    let mut h = Harness::connected(Version::V5, Limits::default(), true);
    let received = Stored { received: true, dup: true, ..stored(65_535, b"old", QoS::ExactlyOnce) };
    let dup = Stored { dup: true, ..stored(65_536, b"dup", QoS::ExactlyOnce) };
    assert_eq!(h.conn.deliver_stored(&[received, dup], 0), 2);
    assert_eq!(h.take(), ["PUBREL 1 00", "PUBLISH s dup q2 id 2 dup"]);
    ack(&mut h, Ack::Rec, 2, OK);
    ack(&mut h, Ack::Rec, 2, OK);
    assert_eq!(h.service.take_calls(), ["progress [(65536, Received)]"]);
    assert!(h.take().is_empty(), "PUBREL waits for the record");
    h.conn.received(&[65_535, 65_536, 99]);
    assert_eq!(h.take(), ["PUBREL 2 00"]);
    ack(&mut h, Ack::Comp, 2, OK);
    ack(&mut h, Ack::Comp, 1, OK);
    assert_eq!(
        h.service.take_calls(),
        ["progress [(65536, Done)]", "wants more", "progress [(65535, Done)]", "wants more"]
    );
}

#[test]
fn stored_deliveries_that_cannot_be_sent_are_over() {
    let mut h = Harness::new(Limits::default());
    h.service.persistent.store(true, Ordering::Relaxed);
    h.connect(&Connect { maximum_packet_size: Some(50), client_id: "c", ..Connect::new(Version::V5) });
    h.take();
    h.service.take_calls();
    let items = [stored(0, &[0; 50], QoS::AtLeastOnce), stored(1, b"fits", QoS::AtLeastOnce)];
    let wakes = h.link.wakes.load(Ordering::Relaxed);
    assert_eq!(h.conn.deliver_stored(&items, 0), 2);
    assert!(h.link.wakes.load(Ordering::Relaxed) > wakes);
    assert_eq!(h.take(), ["PUBLISH s fits q1 id 2"]);
    h.inbound.attend(&h.conn, 0);
    assert_eq!(h.service.take_calls(), ["progress [(0, Done)]"]);
}

#[test]
fn what_a_member_of_a_group_has_not_acknowledged_can_be_taken_back() {
    let mut h = with_window(2, Limits::default());
    for (i, qos) in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce].into_iter().enumerate() {
        let payload = [b'a' + i as u8];
        let publication = publication("t", &payload, qos, 0);
        let delivery = Delivery {
            publication: &publication,
            qos,
            retain: false,
            subscription_ids: &[],
            share: Some(Share { group: 4, moves: 0 }),
        };
        h.conn.deliver(&delivery, &OnceCell::new(), 0);
    }
    ack(&mut h, Ack::Rec, 2, OK); // It has that one.
    let back: Vec<_> = h.conn.take_unacknowledged();
    let payloads: Vec<_> = back.iter().map(|u| (u.share.group, &*u.message.payload)).collect();
    assert_eq!(payloads, [(4, &b"a"[..]), (4, &b"c"[..])]);
}

fn member_delivery<'a>(publication: &'a crate::mqtt::Publication<'a>) -> Delivery<'a> {
    let share = Some(Share { group: 4, moves: 1 });
    Delivery { publication, qos: publication.qos, retain: false, subscription_ids: &[], share }
}

#[test]
fn what_a_member_of_a_group_refuses_is_reported_once() {
    let mut h = with_window(3, Limits::default());
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce] {
        let publication = publication("t", b"x", qos, 0);
        h.conn.deliver(&member_delivery(&publication), &OnceCell::new(), 0);
    }
    h.service.take_calls();
    ack(&mut h, Ack::Pub, 1, ReasonCode::ImplementationSpecificError);
    ack(&mut h, Ack::Rec, 2, ReasonCode::ImplementationSpecificError);
    ack(&mut h, Ack::Pub, 3, OK);
    assert_eq!(h.service.take_calls(), ["refused x", "refused x"]);
    assert!(h.conn.take_unacknowledged().is_empty());
}

#[test]
fn an_offer_that_is_not_taken_is_not_counted_and_room_is_what_can_be_sent() {
    let mut h = with_window(1, Limits { queue_max: 1, ..Limits::default() });
    let publication = publication("t", b"x", QoS::AtLeastOnce, 0);
    let offer = |h: &Harness| h.conn.offer(&member_delivery(&publication), &OnceCell::new(), 0);
    assert_eq!((h.conn.room(QoS::AtLeastOnce), offer(&h)), (1, Ok(Delivered::Sent)));
    assert_eq!((h.conn.room(QoS::AtLeastOnce), offer(&h)), (0, Ok(Delivered::Queued)));
    assert_eq!(offer(&h), Err(Metric::DroppedQueueFull));
    assert_eq!((h.count(Metric::DroppedQueueFull), h.conn.room(QoS::AtMostOnce)), (0, 1));
    // What waited was not sent: it may be given to another member whatever its QoS.
    let sent: Vec<_> = h.conn.take_unacknowledged().iter().map(|u| (u.sent, u.share.moves)).collect();
    assert_eq!(sent, [(true, 1), (false, 1)]);
    h.take();
    ack(&mut h, Ack::Pub, 1, OK);
    assert_eq!(h.conn.room(QoS::AtLeastOnce), 1);
}

#[test]
fn a_message_that_fits_only_without_a_new_alias_goes_without() {
    let mut h = Harness::new(Limits::default());
    let connect = Connect {
        topic_alias_maximum: 1,
        maximum_packet_size: Some(60),
        client_id: "c",
        ..Connect::new(Version::V5)
    };
    h.connect(&connect);
    h.take();
    // Fixed header 2, topic 7, no properties 1; an alias takes 3.
    assert_eq!(h.deliver("topic", &[b'x'; 50], QoS::AtMostOnce, 0), Delivered::Sent);
    assert_eq!(h.deliver("topic", &[b'x'; 51], QoS::AtMostOnce, 0), Delivered::Dropped);
    let sent = std::mem::take(&mut *h.link.bytes.lock());
    assert_eq!(sent.len(), 60);
    let Ok(Packet::Publish(p)) = decode_from_server(&sent, Version::V5) else { panic!("no PUBLISH") };
    assert_eq!((p.topic, p.topic_alias), ("topic", 0));
}

#[test]
fn pubrel_of_a_resumed_session_takes_no_room_in_the_window() {
    let mut h = Harness::connected(Version::V5, Limits { inflight_max: 1, ..Limits::default() }, true);
    let received = |seq| Stored { received: true, dup: true, ..stored(seq, b"received", QoS::ExactlyOnce) };
    let dup = Stored { dup: true, ..stored(0, b"dup", QoS::AtLeastOnce) };
    let items = [dup, received(1), received(2), stored(3, b"new", QoS::AtLeastOnce)];
    assert_eq!(h.conn.deliver_stored(&items, 0), 3);
    assert_eq!(h.take(), ["PUBLISH s dup q1 id 1 dup", "PUBREL 2 00", "PUBREL 3 00"]);
}

#[test]
fn an_answer_that_the_client_does_not_take_ends_the_connection() {
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { maximum_packet_size: Some(30), client_id: "c", ..Connect::new(Version::V5) });
    h.take();
    let codes = |count| vec![OK; count];
    h.conn.subscribed(1, &codes(25));
    assert_eq!(h.take(), ["SUBACK 1"]);
    h.conn.unsubscribed(2, &codes(26));
    assert_eq!(h.take(), ["DISCONNECT 95"]);
}

#[test]
fn the_life_that_is_left_is_told_in_whole_seconds() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.service.clock_ms.store(1_000, Ordering::Relaxed);
    for expires_at_ms in [1_100, 2_499, 2_500, 101_300] {
        h.deliver("t", b"", QoS::AtMostOnce, expires_at_ms);
    }
    assert_eq!(h.deliver("t", b"", QoS::AtMostOnce, 1_000), Delivered::Dropped);
    let told: Vec<String> = [1, 1, 2, 100].map(|s| format!("PUBLISH t  q0 id 0 expiry {s}")).into();
    assert_eq!(h.take(), told);
}

/// Delivers at QoS 0, marked as retained or not.
fn hand_over(h: &Harness, payload: &[u8], retain: bool) {
    let publication = publication("t", payload, QoS::AtMostOnce, 0);
    let qos = QoS::AtMostOnce;
    let delivery = Delivery { publication: &publication, qos, retain, subscription_ids: &[], share: None };
    assert_eq!(h.conn.deliver(&delivery, &OnceCell::new(), 0), Delivered::Sent);
}

#[test]
fn retained_messages_follow_the_suback_and_what_is_newer_follows_them() {
    let mut h = Harness::connected(Version::V311, Limits::default(), false);
    h.service.hold_answers.store(true, Ordering::Relaxed);
    for packet_id in 1..=2 {
        h.send(&[0x82, 6, 0, packet_id, 0, 1, b'f', 0]);
    }
    hand_over(&h, b"live", false);
    hand_over(&h, b"retained", true);
    hand_over(&h, b"newer", false);
    assert_eq!(h.deliver("t", b"newest", QoS::AtLeastOnce, 0), Delivered::Sent);
    assert_eq!(h.take(), ["PUBLISH t live q0 id 0"], "it precedes nothing");
    h.conn.subscribed(1, &[ReasonCode::Success]);
    assert_eq!(h.take(), ["SUBACK 1"], "it may be of the other");
    h.conn.subscribed(2, &[ReasonCode::Success]);
    let after =
        ["SUBACK 2", "PUBLISH t retained q0 id 0", "PUBLISH t newer q0 id 0", "PUBLISH t newest q1 id 1"];
    assert_eq!(h.take(), after);
    hand_over(&h, b"retained as published", true);
    assert_eq!(h.take().len(), 1);
}

#[test]
fn what_waits_for_a_suback_is_bounded_as_if_it_were_sent() {
    let limits = Limits { outbox_max_bytes: 100, ..Limits::default() };
    let mut h = Harness::connected(Version::V311, limits, false);
    h.service.hold_answers.store(true, Ordering::Relaxed);
    h.send(&[0x82, 6, 0, 1, 0, 1, b'f', 0]);
    hand_over(&h, &[b'x'; 100], true);
    assert_eq!(h.deliver("t", b"too much", QoS::AtMostOnce, 0), Delivered::Dropped);
    assert_eq!(h.deliver("t", b"later", QoS::AtLeastOnce, 0), Delivered::Queued);
    h.conn.subscribed(1, &[ReasonCode::Success]);
    let got = h.take();
    assert_eq!((got.len(), &*got[0], &*got[2]), (3, "SUBACK 1", "PUBLISH t later q1 id 1"));
}
