//! Retained messages towards a client whose queue the cluster does not keep.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::mqtt::{Connect, Message, QoS, ReasonCode, SubOptions, Version, encode};
use crate::session::testing::{Harness, encoded, publication};
use crate::session::{Delivered, Delivery, Limits, Take, turn};
use crate::state::limits::REPLAY_VISITS_MAX;
use crate::state::{Command, NodeInfo, Pack, Replays, State};

const COUNT: usize = 3000;
const PAYLOAD_BYTES: usize = 100;
/// Unsent bytes to which a page may fill an empty outbox.
const PAGE_BYTES: usize = (32 << 10) + 2 * PAYLOAD_BYTES;

/// A state that retains messages on `t/0000`, `t/0001`, ….
fn retaining(count: usize) -> State {
    let publish = |i| {
        let message = Message {
            topic: format!("t/{i:04}").into(),
            payload: vec![b'x'; PAYLOAD_BYTES].into(),
            properties: Box::default(),
            qos: QoS::ExactlyOnce,
            retain: true,
            expires_at_ms: 0,
            publisher: "p".into(),
        };
        Command::Publish { message: Arc::new(message), exactly_once: None, or_refuse: false }
    };
    let up = Command::NodeUp { info: NodeInfo::default() };
    let commands = std::iter::once(up).chain((0..count).map(publish)).collect();
    let mut state = State::new(Arc::default());
    state.apply(1, 1, &Pack { origin: 1, epoch: 1, seq: 0, commands }, &mut Vec::new()).expect("known");
    state
}

fn subscribe(h: &Harness, state: &State, filter: &str, qos: QoS) {
    let options = SubOptions { qos, ..SubOptions::default() };
    h.conn.set_replay(filter, state.replay(filter, options, 0, true));
}

fn send(h: &Harness, state: &State) {
    let mut visits = REPLAY_VISITS_MAX;
    let resume =
        |replays: &mut Replays, take: Take<'_>| state.resume(replays, h.conn.client(), &mut visits, take);
    turn(|| h.conn.send_retained(0, resume));
}

/// What the front end does after a wake-up; whether the broker is asked for more.
fn is_asked(h: &mut Harness) -> bool {
    if h.link.wakes.swap(0, Ordering::Relaxed) > 0 {
        turn(|| h.inbound.attend(&h.conn, h.now_ms));
    }
    h.service.take_calls() == ["wants more"]
}

fn topics(h: &mut Harness) -> Vec<String> {
    h.take().iter().map(|p| p.split(' ').nth(1).expect("a PUBLISH").to_owned()).collect()
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("t/{i:04}")).collect()
}

/// Connected as 5.0 with a Receive Maximum.
fn connected(receive_maximum: u16) -> Harness {
    let mut h = Harness::new(Limits::default());
    h.connect(&Connect { client_id: "c", receive_maximum, ..Connect::new(Version::V5) });
    h.take();
    h.service.take_calls();
    h.link.wakes.store(0, Ordering::Relaxed);
    h
}

fn puback(h: &mut Harness, packet_id: u16) {
    let bytes = encoded(|buf| encode::puback(buf, Version::V5, packet_id, ReasonCode::Success));
    h.send(&bytes);
}

#[test]
fn a_reader_gets_them_all_a_page_at_a_time() {
    let state = retaining(COUNT);
    let mut h = connected(10);
    subscribe(&h, &state, "t/+", QoS::AtMostOnce);
    let (mut got, mut pages) = (Vec::new(), 0);
    send(&h, &state);
    loop {
        assert!(h.link.bytes.lock().len() <= PAGE_BYTES);
        got.extend(topics(&mut h));
        pages += 1;
        if !is_asked(&mut h) {
            break;
        }
        send(&h, &state);
    }
    assert_eq!(got, expected(0..COUNT));
    assert!(pages >= COUNT * PAYLOAD_BYTES / PAGE_BYTES, "{pages} pages");
    assert!(!h.conn.is_replaying());
}

#[test]
fn a_client_that_does_not_read_is_owed_a_page_and_has_room_for_other_messages() {
    let state = retaining(COUNT);
    let mut h = connected(10);
    h.link.room.store(0, Ordering::Relaxed);
    subscribe(&h, &state, "t/+", QoS::AtMostOnce);
    for _ in 0..10 {
        send(&h, &state);
        assert!(!is_asked(&mut h));
    }
    assert!(h.conn.backlog().outbox_bytes <= PAGE_BYTES);
    assert_eq!(h.deliver("other", b"live", QoS::AtMostOnce, 0), Delivered::Sent);
    h.link.room.store(usize::MAX, Ordering::Relaxed);
    h.conn.writable();
    let mut got = topics(&mut h);
    assert_eq!(got.pop().as_deref(), Some("other"));
    assert_eq!(got, expected(0..got.len()));
    assert!(is_asked(&mut h));
}

#[test]
fn they_take_their_turn_in_the_window_and_wait_for_nothing_in_the_queue() {
    let state = retaining(10);
    let mut h = connected(4);
    subscribe(&h, &state, "#", QoS::AtLeastOnce);
    send(&h, &state);
    assert_eq!(topics(&mut h), expected(0..4));
    send(&h, &state);
    assert_eq!((h.conn.backlog().in_flight, h.conn.backlog().waiting), (4, 0));
    h.service.take_calls();
    // What is live has the next place.
    assert_eq!(h.deliver("live", b"x", QoS::AtLeastOnce, 0), Delivered::Queued);
    puback(&mut h, 1);
    assert_eq!(h.service.take_calls(), ["wants more"]);
    send(&h, &state);
    assert_eq!(topics(&mut h), ["live"]);
    for (packet_id, next) in (2..).zip(4..10) {
        puback(&mut h, packet_id);
        assert_eq!(h.service.take_calls(), ["wants more"]);
        send(&h, &state);
        assert_eq!(topics(&mut h), expected(next..next + 1));
    }
    assert!(!h.conn.is_replaying());
    puback(&mut h, 8);
    assert!(h.service.take_calls().is_empty());
}

#[test]
fn a_window_that_is_full_does_not_hold_up_qos_0() {
    let state = retaining(COUNT);
    let mut h = connected(1);
    h.deliver("t", b"x", QoS::AtLeastOnce, 0);
    subscribe(&h, &state, "#", QoS::AtMostOnce);
    send(&h, &state);
    while is_asked(&mut h) {
        send(&h, &state);
    }
    assert_eq!(topics(&mut h)[1..], expected(0..COUNT));
}

#[test]
fn what_is_newer_on_a_topic_follows_its_retained_message() {
    let state = retaining(COUNT);
    let mut h = connected(10);
    subscribe(&h, &state, "#", QoS::AtMostOnce);
    send(&h, &state);
    let sent = topics(&mut h).len();
    assert_eq!(h.deliver("t/0000", b"newer", QoS::AtMostOnce, 0), Delivered::Sent, "it was sent");
    assert_eq!(topics(&mut h), ["t/0000"]);
    let newer = publication("t/2999", b"newer", QoS::AtMostOnce, 0);
    let delivery = Delivery {
        publication: &newer,
        qos: QoS::AtMostOnce,
        retain: false,
        subscription_ids: &[],
        share: None,
    };
    for expected in [&["t/2999", "t/2999"][..], &["t/2999"]] {
        let mut delivered = h.conn.deliver(&delivery, &OnceCell::new(), 0);
        if delivered == Delivered::TooEarly {
            delivered = h.conn.deliver_after_retained(&delivery, &OnceCell::new(), 0, |replays, take| {
                state.catch_up(replays, h.conn.client(), "t/2999", take);
            });
        }
        assert_eq!(delivered, Delivered::Sent);
        assert_eq!(topics(&mut h), expected);
    }
    // One with RETAIN has replaced what was to come.
    let publication = crate::mqtt::Publication { topic: "t/2998", retain: true, ..newer };
    let delivery = Delivery { publication: &publication, ..delivery };
    assert_eq!(h.conn.deliver(&delivery, &OnceCell::new(), 0), Delivered::Sent);
    h.take();
    while h.conn.is_replaying() {
        send(&h, &state);
    }
    assert_eq!(topics(&mut h), expected(sent..COUNT - 1), "the rest, and nothing twice");
}

#[test]
fn they_end_with_the_subscription_and_with_the_connection() {
    let state = retaining(COUNT);
    let mut h = connected(10);
    for filter in ["#", "t/+"] {
        subscribe(&h, &state, filter, QoS::AtMostOnce);
    }
    send(&h, &state);
    h.take();
    h.conn.set_replay("#", None);
    assert!(h.conn.is_replaying(), "the other goes on");
    h.conn.set_replay("t/+", None);
    assert!(!h.conn.is_replaying());
    send(&h, &state);
    assert!(h.take().is_empty());

    subscribe(&h, &state, "#", QoS::AtMostOnce);
    h.conn.close(crate::session::Ended::Server, ReasonCode::ServerShuttingDown);
    h.take();
    send(&h, &state);
    assert!(h.take().is_empty() && !h.conn.is_replaying());
    subscribe(&h, &state, "#", QoS::AtMostOnce);
    assert!(!h.conn.is_replaying());
}
