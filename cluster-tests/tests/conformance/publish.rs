//! PUBLISH as a packet, and who gets the message.

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::fresh;
use cluster_tests::mqtt::{AckKind, Client, Prop, Props, Publish, prop, publish};

use crate::messages::{
    Bad, ack_with, bad, both_sessions, each_ends, ends, expect_ack, frame, message, next_publish, string,
    texts,
};

pub const CASES: &[Case] = &[
    case("QoS 3 ends the connection", qos_3).v3(&["3.3.1-4", "4.8.0-1"]).v5(&["3.3.1-4", "4.13.1-1"]),
    case("a QoS 0 message marked as a repeat ends the connection", qos_0_repeat)
        .v3(&["3.3.1-2"])
        .v5(&["3.3.1-2"]),
    case("a QoS 1 or 2 message without a packet id ends the connection", no_packet_id)
        .v3(&["2.3.1-1"])
        .v5(&["2.2.1-3"]),
    case("what is no topic name ends the connection", no_topic_name)
        .v3(&["3.3.2-1", "3.3.2-2", "4.7.1-1", "4.7.3-1", "4.7.3-2", "1.5.3-1", "1.5.3-2"])
        .v5(&["3.3.2-1", "3.3.2-2", "4.7.0-1", "4.7.3-1", "4.7.3-2", "1.5.4-1", "1.5.4-2"]),
    case("a PUBLISH that ends too early ends the connection", cut_short)
        .v3(&["4.8.0-1"])
        .v5(&["4.13.1-1", "1.5.5-1"]),
    case("an acknowledgement with wrong flags ends the connection", wrong_flags)
        .v3(&["2.2.2-1", "2.2.2-2", "3.6.1-1"])
        .v5(&["2.1.3-1", "3.6.1-1"]),
    case("a malformed acknowledgement ends the connection", malformed_acks)
        .v3(&["4.8.0-1"])
        .v5(&["4.13.1-1", "3.4.2-1", "3.5.2-1", "3.6.2-1", "3.7.2-1"]),
    case("an acknowledgement of the wrong kind ends the connection", wrong_acks)
        .v3(&["4.8.0-1"])
        .v5(&["4.13.1-1"]),
    case("acknowledgements of unknown packet ids are answered or passed over", unknown_acks)
        .v3(&["4.3.3-2"])
        .v5(&["4.3.3-11", "3.6.2-1", "3.7.2-1"]),
    case("each QoS is answered in its way, with the same packet id", answered_by_qos)
        .v3(&["3.3.4-1", "2.3.1-6", "4.3.2-2", "4.3.3-2"])
        .v5(&["3.3.4-1", "2.2.1-5", "4.3.2-4", "4.3.3-8", "4.3.3-11", "3.4.2-1", "3.5.2-1", "3.7.2-1"]),
    case("PUBACK and PUBREC tell whether anybody is subscribed", no_subscribers).v5(&["3.4.2-1", "3.5.2-1"]),
    case("after PUBACK the packet id stands for a new message", id_after_puback)
        .v3(&["4.3.2-2"])
        .v5(&["4.3.2-5"]),
    case("a repeat is not marked as one to the subscribers", dup_stays_behind)
        .v3(&["3.3.1-3"])
        .v5(&["3.3.1-3"]),
    case("a message reaches every matching session, connected or not", every_session)
        .v3(&["4.5.0-1", "3.1.2-5"])
        .v5(&["4.5.0-1"]),
    case("topic names arrive as they were sent and match the filter", topic_names)
        .v3(&["3.3.2-3", "1.5.3-3", "4.7.3-4"])
        .v5(&["3.3.2-3", "1.5.4-3", "4.7.3-4"]),
    case("payloads of any bytes and sizes arrive as they were sent", payloads)
        .v3(&["4.5.0-1", "4.2.0-1"])
        .v5(&["4.5.0-1", "4.2-1"]),
    case("a publish to the server's own topics is acknowledged and goes nowhere", server_topics)
        .v3(&["3.3.5-2"])
        .v5(&["3.4.2-1", "3.5.2-1"]),
    case("after a PUBREC with an error code the packet id stands for a new message", id_after_refusal)
        .v5(&["4.3.3-9"]),
    case("a subscription identifier from a client ends the connection", subscription_id)
        .v5(&["3.3.4-6", "4.13.1-1"]),
];

/// Malformed Packet, Protocol Error.
const BROKEN: &[u8] = &[0x81, 0x82];

/// The empty property block of 5.0.
fn no_props(at: &Site) -> &'static [u8] {
    if at.is_v5() { &[0] } else { &[] }
}

/// QoS 0 on `topic`.
fn on_topic(at: &Site, what: &'static str, topic: &[u8], codes: &'static [u8]) -> Bad {
    bad(what, frame(0x30, &[&string(topic), no_props(at), b"x"]), codes)
}

fn qos_3(at: &Site) -> Outcome {
    let with = |first| frame(first, &[&string(b"t"), &[0, 1], no_props(at), b"x"]);
    each_ends(at, &[bad("QoS 3", with(0x36), BROKEN), bad("QoS 3, all flags", with(0x3f), BROKEN)])
}

fn qos_0_repeat(at: &Site) -> Outcome {
    let packet = frame(0x38, &[&string(b"t"), no_props(at), b"x"]);
    each_ends(at, &[bad("DUP at QoS 0", packet, BROKEN)])
}

fn no_packet_id(at: &Site) -> Outcome {
    let with = |first| frame(first, &[&string(b"t"), &[0, 0], no_props(at), b"x"]);
    each_ends(at, &[bad("packet id 0 at QoS 1", with(0x32), BROKEN), bad("at QoS 2", with(0x34), BROKEN)])
}

fn no_topic_name(at: &Site) -> Outcome {
    const NAME: &[u8] = &[0x81, 0x82, 0x90];
    each_ends(
        at,
        &[
            on_topic(at, "no characters", b"", NAME),
            on_topic(at, "wildcard #", b"t/#", NAME),
            on_topic(at, "wildcard +", b"t/+/u", NAME),
            on_topic(at, "wildcard inside a level", b"t+", NAME),
            on_topic(at, "U+0000", b"t/\0", NAME),
            on_topic(at, "a byte that is no UTF-8", b"t/\xff", NAME),
            on_topic(at, "a sequence cut short", b"t/\xe2\x82", NAME),
            on_topic(at, "an overlong encoding", b"t/\xc0\xaf", NAME),
            on_topic(at, "a surrogate", b"t/\xed\xa0\x80", NAME),
        ],
    )
}

fn cut_short(at: &Site) -> Outcome {
    let mut rows = vec![
        bad("nothing at all", frame(0x30, &[]), BROKEN),
        bad("inside the topic's length", frame(0x30, &[&[0]]), BROKEN),
        bad("inside the topic", frame(0x30, &[&[0, 5], b"abc"]), BROKEN),
        bad("before the packet id", frame(0x32, &[&string(b"t")]), BROKEN),
        bad("inside the packet id", frame(0x32, &[&string(b"t"), &[1]]), BROKEN),
    ];
    if at.is_v5() {
        let with = |props: &[u8]| frame(0x30, &[&string(b"t"), props]);
        rows.push(bad("before the properties", with(&[]), BROKEN));
        rows.push(bad("inside the properties", with(&[9, 1, 0]), BROKEN));
        rows.push(bad("inside a property", with(&[2, 2, 0]), BROKEN));
        rows.push(bad("a longer length than needed", with(&[0x80, 0x00]), BROKEN));
        rows.push(bad("a length of five bytes", with(&[0x80, 0x80, 0x80, 0x80, 0x01]), BROKEN));
    }
    each_ends(at, &rows)
}

fn wrong_flags(at: &Site) -> Outcome {
    let with = |first| frame(first, &[&[0, 1]]);
    each_ends(
        at,
        &[
            bad("PUBREL without its flag", with(0x60), BROKEN),
            bad("PUBREL with flags 0110", with(0x66), BROKEN),
            bad("PUBREL with flags 0011", with(0x63), BROKEN),
            bad("PUBACK with flags 0010", with(0x42), BROKEN),
            bad("PUBREC with flags 0010", with(0x52), BROKEN),
            bad("PUBREC with flags 0001", with(0x51), BROKEN),
            bad("PUBCOMP with flags 0010", with(0x72), BROKEN),
        ],
    )
}

fn malformed_acks(at: &Site) -> Outcome {
    let mut rows = Vec::new();
    for (what, first) in [("PUBACK", 0x40), ("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70)] {
        rows.push(bad(what, frame(first, &[]), BROKEN));
        rows.push(bad(what, frame(first, &[&[1]]), BROKEN));
        rows.push(bad(what, frame(first, &[&[0, 0]]), BROKEN));
        if at.is_v5() {
            let with = |rest: &[u8]| frame(first, &[&[0, 1], rest]);
            // A code of no packet, one of other packets, a property of other packets, a reason
            // string twice, bytes behind the properties.
            rows.push(bad(what, with(&[0xff]), BROKEN));
            rows.push(bad(what, with(&[0x8e]), BROKEN));
            rows.push(bad(what, with(&[0, 2, 1, 1]), BROKEN));
            rows.push(bad(what, with(&[0, 8, 0x1f, 0, 1, b'a', 0x1f, 0, 1, b'b']), BROKEN));
            rows.push(bad(what, with(&[0, 0, 0]), BROKEN));
        } else {
            rows.push(bad(what, frame(first, &[&[0, 1, 0]]), BROKEN));
        }
    }
    if at.is_v5() {
        rows.push(bad("PUBREL with a code of PUBREC", ack_with(AckKind::PubRel, 1, 0x80), BROKEN));
        rows.push(bad("PUBACK with a code of PUBREL", ack_with(AckKind::PubAck, 1, 0x92), BROKEN));
    }
    each_ends(at, &rows)
}

fn wrong_acks(at: &Site) -> Outcome {
    let rows = [
        ("PUBREC at QoS 1", 1, AckKind::PubRec),
        ("PUBCOMP at QoS 1", 1, AckKind::PubComp),
        ("PUBACK at QoS 2", 2, AckKind::PubAck),
        ("PUBCOMP for a PUBLISH", 2, AckKind::PubComp),
    ];
    for (what, qos, kind) in rows {
        for options in both_sessions(at) {
            let mut client = Client::connect(at.near(), &options)?;
            client.auto_ack = false;
            let topic = at.topic();
            client.subscribe(&[(&topic, qos)])?;
            at.client()?.publish(&topic, "x", qos)?;
            let id = next_publish(&mut client)?.id;
            client.send_ack(kind, id)?;
            ends(at, client, what, &[0x82])?;
            at.forget(&options)?;
        }
    }
    Ok(())
}

fn unknown_acks(at: &Site) -> Outcome {
    let not_found = if at.is_v5() { 0x92 } else { 0 };
    for options in both_sessions(at) {
        let mut client = Client::connect(at.near(), &options)?;
        client.send_ack(AckKind::PubRel, 77)?;
        assert_eq!(expect_ack(&mut client, AckKind::PubComp, 77)?, not_found);
        client.send_ack(AckKind::PubRec, 78)?;
        assert_eq!(expect_ack(&mut client, AckKind::PubRel, 78)?, not_found);
        client.send_ack(AckKind::PubComp, 78)?;
        client.send_ack(AckKind::PubAck, 79)?;
        client.ping()?;
        // An id that was known is not any more.
        client.publish(&at.topic(), "x", 2)?;
        client.send_ack(AckKind::PubRel, 1)?;
        assert_eq!(expect_ack(&mut client, AckKind::PubComp, 1)?, not_found);
        at.forget(&options)?;
    }
    Ok(())
}

fn answered_by_qos(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let mut client = Client::connect(at.near(), &options)?;
        let topic = at.topic();
        for id in [1, 0x1234, u16::MAX] {
            client.send_publish(&message(&topic, "not answered", 0, 0))?;
            client.send_publish(&message(&topic, "1", 1, id))?;
            assert!(expect_ack(&mut client, AckKind::PubAck, id)? < 0x80);
            client.send_publish(&message(&topic, "2", 2, id))?;
            assert!(expect_ack(&mut client, AckKind::PubRec, id)? < 0x80);
            client.send_ack(AckKind::PubRel, id)?;
            assert_eq!(expect_ack(&mut client, AckKind::PubComp, id)?, 0);
        }
        at.forget(&options)?;
    }
    Ok(())
}

fn no_subscribers(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let mut publisher = Client::connect(at.near(), &options)?;
        for qos in [1, 2] {
            let topic = at.topic();
            assert_eq!(publisher.publish(&topic, "x", qos)?, 0x10, "nobody at QoS {qos}");
            let other = format!("{topic}/other");
            let _other = at.subscriber(&other, 2)?;
            assert_eq!(publisher.publish(&topic, "x", qos)?, 0x10, "nobody at this topic, QoS {qos}");
            for granted in 0..=2 {
                let topic = at.topic();
                let _clean = at.subscriber(&topic, granted)?;
                assert_eq!(publisher.publish(&topic, "x", qos)?, 0, "a clean session at QoS {granted}");

                let (topic, session) = (at.topic(), at.persistent());
                let mut kept = Client::connect(at.far(), &session)?;
                kept.subscribe(&[(&topic, granted)])?;
                assert_eq!(publisher.publish(&topic, "x", qos)?, 0, "a kept session at QoS {granted}");
                at.forget(&session)?;
            }
        }
        at.forget(&options)?;
    }
    Ok(())
}

fn id_after_puback(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut publisher = at.client()?;
    for dup in [false, true] {
        publisher.send_publish(&Publish { dup, ..message(&topic, "again", 1, 9) })?;
        expect_ack(&mut publisher, AckKind::PubAck, 9)?;
    }
    assert_eq!(texts(&at.received(&mut publisher, &mut subscriber)?), ["again", "again"]);
    Ok(())
}

fn dup_stays_behind(at: &Site) -> Outcome {
    let topic = at.topic();
    let kept = at.persistent();
    let mut clean = at.subscriber(&topic, 2)?;
    let mut persistent = Client::connect(at.far(), &kept)?;
    persistent.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    for (qos, kind) in [(1, AckKind::PubAck), (2, AckKind::PubRec)] {
        publisher.send_publish(&Publish { dup: true, ..message(&topic, "x", qos, 3) })?;
        expect_ack(&mut publisher, kind, 3)?;
        for subscriber in [&mut clean, &mut persistent] {
            let message = at.recv(subscriber)?;
            assert_eq!((message.qos, message.dup), (qos, false));
        }
    }
    at.forget(&kept)?;
    Ok(())
}

fn every_session(at: &Site) -> Outcome {
    let topic = at.topic();
    let (online, offline) = (at.persistent(), at.persistent());
    let mut away = Client::connect(at.far(), &offline)?;
    away.subscribe(&[(&topic, 2)])?;
    away.disconnect()?;
    let mut publisher = at.client()?;
    publisher.subscribe(&[(&topic, 2)])?;
    let mut clean_near = at.client()?;
    clean_near.subscribe(&[(&topic, 2)])?;
    let mut kept_far = Client::connect(at.far(), &online)?;
    kept_far.subscribe(&[(&topic, 2)])?;
    let mut clean_far = at.subscriber(&topic, 2)?;
    for (qos, payload) in [(1, "one"), (2, "two")] {
        publisher.publish(&topic, payload, qos)?;
    }
    let mut back = Client::connect(at.near(), &offline)?;
    for subscriber in [&mut publisher, &mut clean_near, &mut kept_far, &mut clean_far, &mut back] {
        // Order holds within a QoS.
        let mut got = [at.recv(subscriber)?, at.recv(subscriber)?].map(|m| (m.qos, m.text()));
        got.sort();
        assert_eq!(got, [(1, "one".into()), (2, "two".into())]);
    }
    at.forget(&online)?;
    at.forget(&offline)?;
    Ok(())
}

fn topic_names(at: &Site) -> Outcome {
    let root = at.topic();
    let mut subscriber = at.subscriber(&format!("{root}/#"), 1)?;
    let mut publisher = at.client()?;
    let names = [
        "",
        "/",
        "/a",
        "//",
        "a/",
        " ",
        "a b",
        "\u{feff}",
        "\u{feff}a",
        "é",
        "e\u{301}",
        "日本",
        "\u{10ffff}",
        "$SYS",
        "A",
        "a",
        "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p",
    ];
    for name in names {
        let topic = if name.is_empty() { root.clone() } else { format!("{root}/{name}") };
        publisher.publish(&topic, "x", 1)?;
        assert_eq!(at.recv(&mut subscriber)?.topic, topic);
    }
    let mut narrow = at.subscriber(&format!("{root}/e\u{301}"), 1)?;
    publisher.publish(&format!("{root}/é"), "x", 1)?;
    publisher.publish(&format!("{root}//e\u{301}"), "x", 1)?;
    assert!(at.received(&mut publisher, &mut narrow)?.is_empty());
    Ok(())
}

fn payloads(at: &Site) -> Outcome {
    let topic = at.topic();
    let kept = at.persistent();
    let mut clean = at.subscriber(&topic, 2)?;
    let mut persistent = Client::connect(at.far(), &kept)?;
    persistent.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    let all: Vec<u8> = (0..=255).collect();
    // Around the steps of the Remaining Length too.
    for length in [0, 1, 127, 128, 16_383, 16_384, 256 * 1024] {
        let payload: Vec<u8> = all.iter().copied().cycle().take(length).collect();
        for qos in 0..=2 {
            publisher.publish(&topic, &payload, qos)?;
            for subscriber in [&mut clean, &mut persistent] {
                let got = at.recv(subscriber)?;
                assert!(got.payload == payload, "{length} bytes at QoS {qos} arrived otherwise");
            }
        }
    }
    at.forget(&kept)?;
    Ok(())
}

fn server_topics(at: &Site) -> Outcome {
    let topic = format!("$SYS/{}", fresh("t"));
    let mut subscriber = at.subscriber(&topic, 2)?;
    let refused = if at.is_v5() { 0x87 } else { 0 };
    for options in both_sessions(at) {
        let mut publisher = Client::connect(at.near(), &options)?;
        for qos in 0..=2 {
            let expected = if qos == 0 { 0 } else { refused };
            assert_eq!(publisher.publish(&topic, "x", qos)?, expected, "QoS {qos}");
            assert_eq!(publisher.retain(&topic, "x", qos)?, expected, "retained, QoS {qos}");
        }
        assert!(at.received(&mut publisher, &mut subscriber)?.is_empty());
        at.forget(&options)?;
    }
    let mut later = at.subscriber(&topic, 2)?;
    assert!(later.quiet()?, "nothing is retained");
    Ok(())
}

fn id_after_refusal(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 2)?;
    for options in both_sessions(at) {
        let mut publisher = Client::connect(at.near(), &options)?;
        publisher.send_publish(&message("$SYS/conformance", "refused", 2, 5))?;
        assert_eq!(expect_ack(&mut publisher, AckKind::PubRec, 5)?, 0x87);
        publisher.send_publish(&message(&topic, "new", 2, 5))?;
        assert_eq!(expect_ack(&mut publisher, AckKind::PubRec, 5)?, 0);
        publisher.send_ack(AckKind::PubRel, 5)?;
        assert_eq!(expect_ack(&mut publisher, AckKind::PubComp, 5)?, 0);
        assert_eq!(texts(&at.received(&mut publisher, &mut subscriber)?), ["new"]);
        at.forget(&options)?;
    }
    Ok(())
}

fn subscription_id(at: &Site) -> Outcome {
    let props = Props::default().with(prop::SUBSCRIPTION_ID, Prop::Varint(7));
    for qos in 0..=2 {
        let topic = at.topic();
        let mut subscriber = at.subscriber(&topic, 2)?;
        let mut client = at.client()?;
        client
            .send(&publish(at.version, &Publish { props: props.clone(), ..message(&topic, "x", qos, 1) }))?;
        ends(at, client, "a subscription identifier", &[0x82])?;
        let got = at.received(&mut at.client()?, &mut subscriber)?;
        assert!(got.is_empty(), "nothing of it is passed on");
    }
    Ok(())
}
