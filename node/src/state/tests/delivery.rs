//! A session's queue: positions, acknowledgements, DUP, expiry and limits.

use super::limits::{PACKET_IDS, QueueLimits, RESERVE_AHEAD, RESERVED_MAX, WhenFull};
use super::*;
use DeliveryStep::{Done, Received};

/// Client "c" on node 1, subscribed to "a" at QoS 2.
fn reader(rig: &mut Rig, receive_maximum: u16) -> Incarnation {
    let (inc, _) = rig.claim(1, Claim { receive_maximum, ..persistent("c") });
    rig.subscribe(1, "c", inc, &[sub("a", 2)]);
    inc
}

fn publish(rig: &mut Rig, payloads: std::ops::Range<u32>) {
    for p in payloads {
        rig.publish(1, message("a", &p.to_string(), 1));
    }
}

fn release(rig: &mut Rig, incarnation: Incarnation, sent: Option<QueueSeq>) {
    let client = "c".into();
    let will = WillFate::Discard;
    rig.run(1, Command::Release { client, incarnation, will, expiry_s: None, sent });
}

fn seqs(rig: &Rig) -> Vec<QueueSeq> {
    rig.stored("c").iter().map(|s| s.seq).collect()
}

fn dups(rig: &Rig) -> Vec<bool> {
    rig.stored("c").iter().map(|s| s.dup).collect()
}

#[test]
fn deliveries_may_finish_out_of_order_and_the_head_follows() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 10);
    publish(&mut rig, 0..4);
    rig.progress(1, "c", inc, &[(2, Done), (1, Done)]);
    assert_eq!((seqs(&rig), rig.state.queue_head("c")), (vec![0, 3], Some(0)));
    rig.progress(1, "c", inc, &[(0, Done), (0, Done), (99, Done)]);
    assert_eq!((seqs(&rig), rig.state.queue_head("c")), (vec![3], Some(3)));
    rig.progress(1, "c", inc, &[(3, Done), (2, Done)]);
    assert_eq!((seqs(&rig), rig.state.queue_head("c")), (vec![], Some(4)));
    publish(&mut rig, 4..5);
    assert_eq!(seqs(&rig), [4]);
}

#[test]
fn only_what_is_reserved_is_sent_and_acknowledgements_reserve_more() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 1);
    let span = 1 + RESERVE_AHEAD as u32;
    publish(&mut rig, 0..span + 2);
    assert!(rig.woken().is_empty(), "nothing more may be sent");
    assert_eq!(rig.stored("c").len() as u32, span);
    assert_eq!(rig.state.sent_upto("c"), Some(u64::from(span)));
    rig.progress(1, "c", inc, &[(1, Done)]);
    assert_eq!(rig.woken(), ["c"]);
    assert_eq!(rig.state.sent_upto("c"), Some(u64::from(span) + 1));
    rig.progress(1, "c", inc, &[(0, Done)]);
    assert_eq!(rig.state.sent_upto("c"), Some(u64::from(span) + 2));
}

#[test]
fn a_delivery_that_is_never_acknowledged_holds_up_no_other() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 10);
    publish(&mut rig, 0..1);
    let mut next = 1;
    for _ in 0..PACKET_IDS / 50 + 2 {
        publish(&mut rig, 0..50);
        let page = rig.state.stored("c", inc, next, 100);
        assert_eq!(page.items.len(), 50);
        assert!(page.items.iter().all(|item| item.seq % PACKET_IDS != 0), "the id of the oldest is out");
        let done: Vec<_> = page.items.iter().map(|item| (item.seq, Done)).collect();
        rig.progress(1, "c", inc, &done);
        next = page.next;
    }
    assert!(next > PACKET_IDS);
    assert_eq!((seqs(&rig), rig.state.queue_head("c")), (vec![0], Some(0)));
    // A restored state goes on in the same way.
    rig.state = State::read(&mut bytes(&rig.state).as_slice(), Arc::default()).expect("a snapshot");
    publish(&mut rig, 0..1);
    assert_eq!(seqs(&rig), [0, next]);
}

#[test]
fn what_is_in_flight_never_shares_a_packet_id() {
    let mut rig = Rig::new(1);
    reader(&mut rig, u16::MAX);
    publish(&mut rig, 0..70_000);
    let ids: std::collections::BTreeSet<_> = seqs(&rig).iter().map(|s| 1 + s % 65_535).collect();
    assert_eq!(ids.len(), rig.stored("c").len());
    assert_eq!(ids.len(), RESERVED_MAX);
}

#[test]
fn reading_goes_on_where_it_left_off() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 10);
    publish(&mut rig, 0..5);
    rig.progress(1, "c", inc, &[(1, Done)]);
    let page = rig.state.stored("c", inc, 0, 2);
    assert_eq!((page.items.len(), page.next), (2, 3));
    let page = rig.state.stored("c", inc, page.next, 10);
    assert_eq!((page.items.iter().map(|s| s.seq).collect::<Vec<_>>(), page.next), (vec![3, 4], 5));
    assert!(rig.state.stored("c", inc, page.next, 10).items.is_empty());
    assert!(rig.state.stored("c", inc + 1, 0, 10).items.is_empty(), "not its incarnation");
}

#[test]
fn dup_is_set_for_what_an_earlier_owner_may_have_sent() {
    let mut rig = Rig::new(2);
    reader(&mut rig, 10);
    publish(&mut rig, 0..2);
    assert_eq!(dups(&rig), [false, false]);
    rig.claim(2, persistent("c"));
    publish(&mut rig, 2..3);
    assert_eq!(rig.payloads("c"), ["0", "1", "2"]);
    assert_eq!(dups(&rig), [true, true, false]);
}

#[test]
fn release_with_the_sent_position_makes_dup_exact() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 10);
    publish(&mut rig, 0..4);
    release(&mut rig, inc, Some(1));
    assert_eq!(rig.state.sent_upto("c"), Some(1));
    let (inc, _) = rig.claim(1, persistent("c"));
    assert_eq!((seqs(&rig), dups(&rig)), (vec![0, 1, 2, 3], vec![true, false, false, false]));
    assert_eq!(rig.payloads("c"), ["0", "1", "2", "3"]);
    // This owner sent nothing, but the one before it did.
    release(&mut rig, inc, Some(0));
    rig.claim(1, persistent("c"));
    assert_eq!(dups(&rig), [true, false, false, false]);
}

#[test]
fn release_with_a_position_below_the_head_frees_only_what_is_incomplete() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 10);
    publish(&mut rig, 0..3);
    rig.progress(1, "c", inc, &[(0, Done)]);
    release(&mut rig, inc, Some(0));
    rig.claim(1, persistent("c"));
    assert_eq!((rig.payloads("c"), dups(&rig)), (vec!["1".into(), "2".into()], vec![false, false]));
}

#[test]
fn a_received_qos_2_delivery_stays_until_it_is_complete() {
    let mut rig = Rig::new(2);
    let inc = reader(&mut rig, 10);
    rig.publish(1, message("a", "x", 2));
    publish(&mut rig, 0..1);
    rig.progress(1, "c", inc, &[(0, Received), (1, Received)]);
    let received = |rig: &Rig| rig.stored("c").iter().map(|s| s.received).collect::<Vec<_>>();
    assert_eq!(received(&rig), [true, false], "QoS 1 knows no PUBREC");
    let (inc, _) = rig.claim(2, persistent("c"));
    assert_eq!(received(&rig), [true, false]);
    rig.progress(2, "c", inc, &[(0, Done)]);
    assert_eq!(seqs(&rig), [1]);
}

// Message expiry.

fn expiring(rig: &mut Rig, payload: &str, expires_at_ms: u64) {
    rig.publish(1, Message { expires_at_ms, ..message("a", payload, 1) });
}

#[test]
fn what_waits_expires_without_a_trace() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 10);
    release(&mut rig, inc, None);
    expiring(&mut rig, "old", 50);
    expiring(&mut rig, "young", 500);
    rig.tick(50);
    rig.claim(1, persistent("c"));
    assert_eq!((rig.payloads("c"), seqs(&rig)), (vec!["young".to_owned()], vec![0]));
}

#[test]
fn what_may_have_been_sent_does_not_expire() {
    let mut rig = Rig::new(1);
    reader(&mut rig, 10);
    expiring(&mut rig, "sent", 50);
    rig.tick(50);
    rig.claim(1, persistent("c"));
    assert_eq!((rig.payloads("c"), dups(&rig)), (vec!["sent".to_owned()], vec![true]));
}

#[test]
fn what_expires_between_reservation_and_sending_is_named_to_the_owner() {
    let mut rig = Rig::new(1);
    let inc = reader(&mut rig, 10);
    expiring(&mut rig, "old", 50);
    publish(&mut rig, 0..1);
    rig.tick(50);
    let page = rig.state.stored("c", inc, 0, 10);
    assert_eq!((page.items.len(), page.expired, page.next), (1, vec![0], 2));
    rig.progress(1, "c", inc, &[(0, Done)]);
    assert_eq!(rig.state.queue_head("c"), Some(1));
}

// Limits.

fn limited(queue: QueueLimits) -> Rig {
    let mut rig = Rig::default();
    rig.up_with(1, NodeLimits { queue, ..NodeLimits::default() });
    rig
}

const SMALL: QueueLimits = QueueLimits { messages: 10, bytes: 4000, when_full: WhenFull::DropOldest };

#[test]
fn the_oldest_unsent_message_is_dropped_and_counted_at_the_limit() {
    let mut rig = limited(SMALL);
    let inc = reader(&mut rig, 1);
    publish(&mut rig, 0..2);
    release(&mut rig, inc, Some(2));
    publish(&mut rig, 2..13);
    let info = rig.state.client("c").expect("a session");
    assert_eq!((info.queued, info.dropped), (10, 3));
    rig.claim(1, persistent("c"));
    assert_eq!(rig.payloads("c")[..4], ["0", "1", "5", "6"], "what was sent is kept");
}

#[test]
fn a_queue_is_bounded_in_bytes() {
    let mut rig = limited(SMALL);
    let inc = reader(&mut rig, 10);
    release(&mut rig, inc, None);
    let payload = "x".repeat(1000);
    for _ in 0..6 {
        rig.publish(1, message("a", &payload, 1));
    }
    let info = rig.state.client("c").expect("a session");
    assert!(info.queued_bytes <= 4000);
    assert_eq!((info.queued, info.dropped), (3, 3));
}

fn or_refuse(rig: &mut Rig, message: Message) -> Outcome {
    rig.run(1, Command::Publish { message: Arc::new(message), exactly_once: None, or_refuse: true })
}

#[test]
fn a_full_queue_that_refuses_keeps_the_oldest_and_tells_the_publisher() {
    let mut rig = limited(QueueLimits { when_full: WhenFull::Refuse, ..SMALL });
    let inc = reader(&mut rig, 1);
    release(&mut rig, inc, None);
    publish(&mut rig, 0..10);
    assert_eq!(or_refuse(&mut rig, message("a", "10", 1)), Outcome::Refused);
    let info = rig.state.client("c").expect("a session");
    assert_eq!((info.queued, info.dropped), (10, 1));
    // Who cannot be told is told nothing, and it is dropped all the same.
    assert_eq!(rig.publish(1, message("a", "11", 1)), 0);
    let (inc, _) = rig.claim(1, persistent("c"));
    assert_eq!(rig.payloads("c").len(), 10);
    assert_eq!(rig.payloads("c")[..2], ["0", "1"]);
    rig.progress(1, "c", inc, &[(0, Done)]);
    assert_eq!(
        or_refuse(&mut rig, message("a", "12", 1)),
        Outcome::Published { matched: 1, duplicate: false }
    );
}

#[test]
fn what_somebody_takes_is_not_refused() {
    let mut rig = limited(QueueLimits { when_full: WhenFull::Refuse, messages: 1, ..SMALL });
    let inc = reader(&mut rig, 1);
    release(&mut rig, inc, None);
    publish(&mut rig, 0..1);
    let taken = Outcome::Published { matched: 0, duplicate: false };
    assert_eq!(or_refuse(&mut rig, message("a", "x", 1)), Outcome::Refused);
    assert_eq!(or_refuse(&mut rig, retained("a", "x", 1)), taken, "it is kept");
    rig.run(1, Command::RouteAdd { filter: "a".into() });
    assert_eq!(or_refuse(&mut rig, message("a", "x", 1)), taken, "a clean subscriber gets it");
}

#[test]
fn what_expired_makes_room_in_a_queue_that_refuses() {
    let mut rig = limited(QueueLimits { when_full: WhenFull::Refuse, messages: 2, ..SMALL });
    let inc = reader(&mut rig, 1);
    release(&mut rig, inc, None);
    expiring(&mut rig, "old", 50);
    publish(&mut rig, 0..1);
    rig.tick(50);
    publish(&mut rig, 1..2);
    rig.claim(1, persistent("c"));
    assert_eq!(rig.payloads("c"), ["0", "1"]);
}

#[test]
fn a_refused_publish_at_qos_2_leaves_its_packet_id_free() {
    let mut rig = limited(QueueLimits { when_full: WhenFull::Refuse, messages: 1, ..SMALL });
    let inc = reader(&mut rig, 1);
    release(&mut rig, inc, None);
    let (publisher, _) = rig.claim(1, persistent("p"));
    let exact = |text: &str| Command::Publish {
        message: Arc::new(Message { publisher: "p".into(), ..message("a", text, 2) }),
        exactly_once: Some((publisher, 7)),
        or_refuse: true,
    };
    publish(&mut rig, 0..1);
    assert_eq!(rig.run(1, exact("1")), Outcome::Refused);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.progress(1, "c", inc, &[(0, Done)]);
    assert_eq!(rig.run(1, exact("1")), Outcome::Published { matched: 1, duplicate: false });
    assert_eq!(rig.run(1, exact("1")), Outcome::Published { matched: 0, duplicate: true });
}
