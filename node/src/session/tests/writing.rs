use std::sync::atomic::Ordering;

use proptest::prelude::*;

use crate::mqtt::{self, QoS, ReasonCode, Version};
use crate::session::testing::{Harness, packets};
use crate::session::{Delivered, Ended, Flow, Limits, Metric, turn};

#[test]
fn one_write_per_turn() {
    let h = Harness::connected(Version::V311, Limits::default(), false);
    turn(|| {
        h.deliver("t", b"a", QoS::AtMostOnce, 0);
        turn(|| h.deliver("t", b"b", QoS::AtMostOnce, 0));
        assert!(h.link.bytes.lock().is_empty());
    });
    assert_eq!(packets(&h.link.bytes.lock(), Version::V311).len(), 2);
    assert!(h.conn.out.lock().owns_nothing());
}

#[test]
fn a_full_outbox_drops_qos_0_and_delays_the_rest() {
    let limits = Limits { outbox_max_bytes: 100, ..Limits::default() };
    let mut h = Harness::connected(Version::V311, limits, false);
    h.link.room.store(10, Ordering::Relaxed);
    for _ in 0..4 {
        assert_eq!(h.deliver("t", &[b'x'; 30], QoS::AtMostOnce, 0), Delivered::Sent);
    }
    assert_eq!(h.deliver("t", b"late", QoS::AtMostOnce, 0), Delivered::Dropped);
    assert_eq!(h.count(Metric::DroppedOutboxFull), 1);
    assert_eq!(h.deliver("t", b"kept", QoS::AtLeastOnce, 0), Delivered::Queued);
    h.link.room.store(usize::MAX, Ordering::Relaxed);
    h.conn.writable();
    let got = h.take();
    assert_eq!(got.len(), 5);
    assert_eq!(got[4], "PUBLISH t kept q1 id 1");
}

#[test]
fn a_client_that_only_talks_is_not_listened_to() {
    let limits = Limits { outbox_max_bytes: 100, packet_max_bytes: 100, ..Limits::default() };
    let mut h = Harness::connected(Version::V311, limits, false);
    h.link.room.store(0, Ordering::Relaxed);
    let pings = [0xC0, 0].repeat(300);
    assert_eq!(h.send(&pings), Flow::Held);
    let wakes = h.link.wakes.load(Ordering::Relaxed);
    h.link.room.store(usize::MAX, Ordering::Relaxed);
    h.conn.writable();
    assert!(h.link.wakes.load(Ordering::Relaxed) > wakes);
    assert_eq!(h.inbound.attend(&h.conn, 0), Flow::Open);
    assert_eq!(h.take().len(), 300);
}

#[test]
fn a_client_that_is_behind_may_take_what_was_sent_before_the_close() {
    let mut h = Harness::connected(Version::V5, Limits::default(), false);
    h.link.room.store(5, Ordering::Relaxed);
    h.deliver("t", &[b'x'; 30], QoS::AtMostOnce, 0);
    let wakes = h.link.wakes.load(Ordering::Relaxed);
    h.conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver);
    assert!(h.conn.has_output());
    assert!(!h.link.finished.load(Ordering::Relaxed));
    // Its owner hears of it, and decides how long to wait.
    assert!(h.link.wakes.load(Ordering::Relaxed) > wakes);
    assert_eq!(h.inbound.attend(&h.conn, 0), Flow::Over);
    assert_eq!(h.deliver("t", b"x", QoS::AtMostOnce, 0), Delivered::Dropped);
    assert_eq!(h.count(Metric::DroppedClosed), 1);
    h.link.room.store(usize::MAX, Ordering::Relaxed);
    h.conn.writable();
    assert_eq!(h.take().last().map(String::as_str), Some("DISCONNECT 8e"));
    assert!(h.link.finished.load(Ordering::Relaxed) && !h.conn.has_output());
}

/// Takes binary frames, of one packet each, and raw control frames apart.
fn unframe(mut bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut payload, mut controls) = (Vec::new(), 0);
    while !bytes.is_empty() {
        let (len, header) = match bytes[1] {
            126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 => (u64::from_be_bytes(bytes[2..10].try_into().expect("8 bytes")) as usize, 10),
            len => (usize::from(len), 2),
        };
        match bytes[0] {
            0x82 => {
                let packet = &bytes[header..header + len];
                let whole = mqtt::frame_len(packet, u32::MAX).expect("a packet");
                assert_eq!(whole, Some(len), "one packet in each frame");
                payload.extend_from_slice(packet);
            }
            0x8A => controls += 1,
            other => panic!("opcode {other:x}"),
        }
        bytes = &bytes[header + len..];
    }
    (payload, controls)
}

proptest! {
    /// Whatever is appended by whom and however little the socket takes at a time, the bytes
    /// arrive in order and in whole frames.
    #[test]
    fn the_outbox_keeps_order_through_blocking(
        framed in any::<bool>(),
        steps in proptest::collection::vec((0u8..4, 0usize..300), 1..60),
    ) {
        let mut h = Harness::connected(Version::V311, Limits::default(), false);
        if framed {
            h.conn.set_framed();
        }
        let (mut sent, mut room, mut pongs) = (0u32, 0, 0);
        h.link.room.store(0, Ordering::Relaxed);
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    let payload = [&sent.to_be_bytes()[..], &vec![7; size * 10]].concat();
                    prop_assert_eq!(h.deliver("t", &payload, QoS::AtMostOnce, 0), Delivered::Sent);
                    sent += 1;
                }
                2 if framed => {
                    h.conn.append_raw(&[0x8A, 0]);
                    pongs += 1;
                }
                _ => {
                    room += size;
                    h.link.room.store(room, Ordering::Relaxed);
                    h.conn.writable();
                }
            }
        }
        h.link.room.store(usize::MAX, Ordering::Relaxed);
        h.conn.writable();
        let mut bytes = std::mem::take(&mut *h.link.bytes.lock());
        if framed {
            let (payload, controls) = unframe(&bytes);
            prop_assert_eq!(controls, pongs);
            bytes = payload;
        }
        *h.link.bytes.lock() = bytes;
        let got = h.take();
        prop_assert_eq!(got.len(), sent as usize);
        for (i, packet) in got.iter().enumerate() {
            let tag = (i as u32).to_be_bytes().escape_ascii().to_string();
            prop_assert!(packet.starts_with(&format!("PUBLISH t {tag}")), "{packet}");
        }
        h.inbound.check(&h.conn, 1);
        prop_assert!(h.conn.out.lock().owns_nothing());
    }
}
