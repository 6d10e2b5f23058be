//! SUBSCRIBE and UNSUBSCRIBE.

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{
    AckKind, Client, Packet, Prop, Props, Version, prop, publish, subscribe, unsubscribe,
};

use crate::messages::{SOON, each_packet_ends, frame, message};

pub const CASES: &[Case] = &[
    case("flags of SUBSCRIBE and UNSUBSCRIBE are 0010", flags)
        .v3(&["3.8.1-1", "3.10.1-1", "2.2.2-1", "2.2.2-2"])
        .v5(&["3.8.1-1", "3.10.1-1", "2.1.3-1"])
        .not_in_v31(),
    case("a SUBSCRIBE or UNSUBSCRIBE needs a filter, in UTF-8, and whole", malformed)
        .v3(&["3.8.3-1", "3.8.3-3", "3.10.3-1", "3.10.3-2", "1.5.3-1", "4.8.0-1"])
        .v5(&["3.8.3-1", "3.8.3-2", "3.10.3-1", "3.10.3-2", "1.5.4-1", "4.13.1-1"]),
    case("packet id 0 is an error", packet_id_0).v3(&["2.3.1-1"]).v5(&["2.2.1-3"]),
    case("reserved bits of the options, and QoS 3, are an error", reserved_options)
        .v3(&["3.8.3-4"])
        .v5(&["3.8.3-5"]),
    case("a SUBSCRIBE gets one SUBACK with its id and a code per filter, in their order", one_suback)
        .v3(&["3.8.4-1", "3.8.4-2", "3.8.4-4", "3.8.4-5", "3.9.3-1", "3.9.3-2", "2.3.1-7"])
        .v5(&["3.8.4-1", "3.8.4-2", "3.8.4-5", "3.8.4-6", "3.8.4-7", "3.9.3-1", "3.9.3-2", "2.2.1-6"]),
    case("a filter that is not one ends the connection", bad_filter)
        .v3(&["4.7.1-2", "4.7.1-3", "4.7.3-1", "4.8.0-1"])
        .v5(&["4.7.1-1", "4.7.1-2", "4.7.3-1", "4.13.1-1"]),
    case("a filter that is refused does not harm the others of its packet", refused_alone)
        .v3(&["3.8.4-5", "3.9.3-1", "3.9.3-2"])
        .v5(&["3.8.4-6", "3.9.3-1", "3.9.3-2"])
        .not_in_v31(),
    case("a message comes at the lower of its QoS and the granted one", lower_qos)
        .v3(&["3.8.4-6"])
        .v5(&["3.8.4-8"]),
    case("the same filter again replaces the subscription and sends what is retained", replaced)
        .v3(&["3.8.4-3"])
        .v5(&["3.8.4-3", "3.8.4-4"]),
    case("replacing a subscription loses nothing", replaced_without_loss).v3(&["3.8.4-3"]).v5(&["3.8.4-4"]),
    case("no local: a client does not get its own messages, others do", no_local).v5(&["3.8.3-3"]),
    case("no local goes by the client id, whatever the connection", no_local_by_id).v5(&["3.8.3-3"]),
    case("a subscription identifier of 0, or a second one, is an error", bad_identifier).v5(&["4.13.1-1"]),
    case("a subscription identifier may be as large as its type", large_identifier).v5(&["3.3.4-3"]),
    case("SUBACK and UNSUBACK keep to the client's Maximum Packet Size", answers_fit)
        .v5(&["3.9.2-1", "3.9.2-2", "3.11.2-1", "3.11.2-2"]),
    case("an UNSUBSCRIBE gets one UNSUBACK with its id, also when nothing matched", one_unsuback)
        .v3(&["3.10.4-4", "3.10.4-5", "3.10.4-6", "2.3.1-7"])
        .v5(&["3.10.4-4", "3.10.4-5", "3.10.4-6", "3.11.3-1", "3.11.3-2", "2.2.1-6"]),
    case("UNSUBSCRIBE ends the subscription of exactly this filter", exact_unsubscribe)
        .v3(&["3.10.4-1", "3.10.4-2"])
        .v5(&["3.10.4-1", "3.10.4-2"]),
    case("a delivery that began before UNSUBSCRIBE is finished", started_delivery)
        .v3(&["3.10.4-3"])
        .v5(&["3.10.4-3"]),
    case("a kept session's delivery that began before UNSUBSCRIBE is finished later", started_delivery_kept)
        .v3(&["3.10.4-3"])
        .v5(&["3.10.4-3"]),
    case("what a client publishes in one breath with its SUBSCRIBE comes back to it", in_one_breath)
        .v3(&[])
        .v5(&[]),
    case("SUBACK means that a message published elsewhere afterwards arrives", suback_is_a_promise)
        .v3(&["4.5.0-1"])
        .v5(&["4.5.0-1"]),
];

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;
const BOTH: &[u8] = &[MALFORMED, PROTOCOL_ERROR];

/// A packet of this first byte; 5.0 has a property length after the packet id.
fn packet(at: &Site, first: u8, id: u16, rest: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if at.is_v5() { &[0] } else { &[] };
    frame(first, &[&id.to_be_bytes(), properties, rest])
}

fn flags(at: &Site) -> Outcome {
    let subscribes = (0..16).filter(|f| *f != 2).map(|f| packet(at, 0x80 | f, 1, b"\0\x01a\0"));
    each_packet_ends(at, subscribes, &[MALFORMED])?;
    let unsubscribes = (0..16).filter(|f| *f != 2).map(|f| packet(at, 0xa0 | f, 1, b"\0\x01a"));
    each_packet_ends(at, unsubscribes, &[MALFORMED])
}

fn malformed(at: &Site) -> Outcome {
    let subscribe: &[&[u8]] = &[
        b"",
        b"\0\x01\xff\0",
        b"\0\x03\xed\xa0\x80\0",
        b"\0\x02a\0\0",
        // No options, and a filter that ends with the packet.
        b"\0\x01a",
        b"\0\x05a\0",
        b"\0",
    ];
    each_packet_ends(at, subscribe.iter().map(|rest| packet(at, 0x82, 1, rest)), BOTH)?;
    let unsubscribe: &[&[u8]] = &[b"", b"\0\x01\xff", b"\0\x03\xed\xa0\x80", b"\0\x02a\0", b"\0\x05a", b"\0"];
    each_packet_ends(at, unsubscribe.iter().map(|rest| packet(at, 0xa2, 1, rest)), BOTH)
}

fn packet_id_0(at: &Site) -> Outcome {
    let packets = [packet(at, 0x82, 0, b"\0\x01a\0"), packet(at, 0xa2, 0, b"\0\x01a")];
    each_packet_ends(at, packets, BOTH)
}

fn reserved_options(at: &Site) -> Outcome {
    let reserved: &[u8] =
        if at.is_v5() { &[0x03, 0x40, 0x80, 0xc0, 0x30] } else { &[0x03, 0x04, 0x08, 0x10, 0x80] };
    let packets = reserved.iter().map(|options| packet(at, 0x82, 1, &[0, 1, b'a', *options]));
    each_packet_ends(at, packets, BOTH)
}

fn one_suback(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut client = at.far_client()?;
    let filters = [(&*format!("{topic}/a"), 2), (&format!("{topic}/+"), 0), (&format!("{topic}/#"), 1)];
    for id in [1, 255, 256, 65535] {
        client.send(&subscribe(at.version, id, &filters, &Props::default()))?;
        let answer = client.packet(SOON)?;
        let Packet::SubAck { id: of, codes, .. } = answer else { panic!("{answer:?}") };
        assert_eq!((of, codes.as_slice()), (id, &[2, 0, 1][..]));
    }
    // Nothing more was said.
    client.send(&[0xc0, 0])?;
    assert_eq!(client.packet(SOON)?, Packet::PingResp);
    // All three took effect.
    let mut publisher = at.client()?;
    for level in ["a", "b", "b/c"] {
        publisher.publish(&format!("{topic}/{level}"), level, 2)?;
        assert_eq!(at.recv(&mut client)?.text(), level);
        assert_eq!(at.received(&mut publisher, &mut client)?.len(), 0, "one copy");
    }
    Ok(())
}

fn bad_filter(at: &Site) -> Outcome {
    for bad in ["a/#/b", "a#", "a/b#", "+a", "a+/b", "a/+b", "##", "#/a", "", "a/++"] {
        let mut client = at.far_client()?;
        client.send(&subscribe(at.version, 1, &[("good", 1), (bad, 1)], &Props::default()))?;
        at.assert_ends(client, &[0x8f, MALFORMED, PROTOCOL_ERROR])?;
    }
    Ok(())
}

/// Well formed, and deeper than the nodes here allow.
fn too_deep() -> String {
    "deep/".repeat(500)
}

fn refused_alone(at: &Site) -> Outcome {
    let (topic, deep) = (at.topic(), too_deep());
    let (first, last) = (format!("{topic}/1"), format!("{topic}/2"));
    let refused = if at.is_v5() { 0x8f } else { 0x80 };
    let mut client = at.far_client()?;
    assert_eq!(client.subscribe(&[(&first, 1), (&deep, 1), (&last, 2)])?, [1, refused, 2]);
    let mut publisher = at.client()?;
    for name in [&first, &last] {
        publisher.publish(name, "x", 2)?;
        assert_eq!(at.recv(&mut client)?.topic, *name);
    }
    Ok(())
}

fn lower_qos(at: &Site) -> Outcome {
    for granted in 0..=2 {
        let topic = at.topic();
        let mut subscriber = at.subscriber(&topic, granted)?;
        let mut publisher = at.client()?;
        for published in 0..=2 {
            publisher.publish(&topic, "x", published)?;
            assert_eq!(at.recv(&mut subscriber)?.qos, published.min(granted));
        }
    }
    Ok(())
}

fn replaced(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut publisher = at.client()?;
    publisher.retain(&topic, "kept", 1)?;
    let mut subscriber = at.far_client()?;
    for qos in [0, 2, 1] {
        subscriber.subscribe(&[(&topic, qos)])?;
        let kept = at.recv(&mut subscriber)?;
        assert_eq!((kept.text(), kept.retain, kept.qos), ("kept".into(), true, qos.min(1)));
        publisher.publish(&topic, "live", 2)?;
        let live: Vec<_> = at.received(&mut publisher, &mut subscriber)?;
        let live: Vec<_> = live.iter().map(|m| (m.text(), m.qos)).collect();
        assert_eq!(live, [("live".to_owned(), qos)], "one copy, at the new QoS");
    }
    publisher.retain(&topic, "", 1)?;
    Ok(())
}

fn replaced_without_loss(at: &Site) -> Outcome {
    const COUNT: usize = 120;
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut publisher = at.client()?;
    let publishing = {
        let topic = topic.clone();
        std::thread::spawn(move || {
            (0..COUNT).try_for_each(|i| publisher.publish(&topic, i.to_string(), 1).map(drop))
        })
    };
    for _ in 0..20 {
        subscriber.subscribe(&[(&topic, 1)])?;
    }
    publishing.join().expect("the publisher")?;
    let expected: Vec<_> = (0..COUNT).map(|i| i.to_string()).collect();
    assert_eq!(subscriber.texts(COUNT, SOON)?, expected);
    Ok(())
}

const NO_LOCAL: u8 = 0x04;

fn no_local(at: &Site) -> Outcome {
    for qos in 0..=2 {
        let topic = at.topic();
        let mut own = at.client()?;
        own.subscribe(&[(&topic, qos | NO_LOCAL)])?;
        let mut other = at.far_client()?;
        other.subscribe(&[(&topic, qos | NO_LOCAL)])?;
        own.publish(&topic, "of own", qos)?;
        assert_eq!(at.recv(&mut other)?.text(), "of own");
        other.publish(&topic, "of other", qos)?;
        assert_eq!(at.recv(&mut own)?.text(), "of other");
        assert!(own.quiet()?);
        // Without the option it comes back.
        own.subscribe(&[(&topic, qos)])?;
        own.publish(&topic, "again", qos)?;
        assert_eq!(at.recv(&mut own)?.text(), "again");
    }
    Ok(())
}

fn no_local_by_id(at: &Site) -> Outcome {
    let (options, topic) = (at.persistent(), at.topic());
    let mut client = Client::connect(at.near(), &options)?;
    client.subscribe(&[(&topic, 1 | NO_LOCAL)])?;
    client.disconnect()?;
    let mut client = Client::connect(at.far(), &options)?;
    client.publish(&topic, "of own", 1)?;
    let mut other = at.client()?;
    other.publish(&topic, "of other", 1)?;
    assert_eq!(at.recv(&mut client)?.text(), "of other");
    assert_eq!(at.received(&mut other, &mut client)?, []);
    client.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn bad_identifier(at: &Site) -> Outcome {
    let zero = Props::default().with(prop::SUBSCRIPTION_ID, Prop::Varint(0));
    let two = Props::default()
        .with(prop::SUBSCRIPTION_ID, Prop::Varint(1))
        .with(prop::SUBSCRIPTION_ID, Prop::Varint(2));
    for props in [zero, two] {
        let mut client = at.client()?;
        client.send(&subscribe(Version::V5, 1, &[("a", 0)], &props))?;
        at.assert_ends(client, &[PROTOCOL_ERROR])?;
    }
    Ok(())
}

fn large_identifier(at: &Site) -> Outcome {
    for id in [1, 127, 128, 268_435_455] {
        let topic = at.topic();
        let mut subscriber = at.far_client()?;
        let props = Props::default().with(prop::SUBSCRIPTION_ID, Prop::Varint(id));
        subscriber.subscribe_with(&[(&topic, 1)], &props)?;
        at.client()?.publish(&topic, "x", 1)?;
        assert_eq!(at.recv(&mut subscriber)?.props.numbers(prop::SUBSCRIPTION_ID), [id]);
    }
    Ok(())
}

fn answers_fit(at: &Site) -> Outcome {
    let options = at.options().prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(40));
    let mut client = Client::connect(at.near(), &options)?;
    assert_eq!(client.subscribe(&[(&too_deep(), 0), ("conformance", 0)])?, [0x8f, 0]);
    assert_eq!(client.unsubscribe(&["never", "conformance"])?, [0x11, 0]);
    assert!(client.largest_packet() <= 40);
    Ok(())
}

fn one_unsuback(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut client = at.client()?;
    let (first, second) = (format!("{topic}/1"), format!("{topic}/+"));
    client.subscribe(&[(&first, 1), (&second, 1)])?;
    for (id, expected) in [(7, [0, 0x11, 0]), (65535, [0x11, 0x11, 0x11])] {
        client.send(&unsubscribe(at.version, id, &[&first, "conformance/never", &second]))?;
        let answer = client.packet(SOON)?;
        let Packet::UnsubAck { id: of, codes, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(of, id);
        // 3.x has no codes.
        assert_eq!(codes, if at.is_v5() { expected.to_vec() } else { vec![] });
    }
    client.send(&[0xc0, 0])?;
    assert_eq!(client.packet(SOON)?, Packet::PingResp);
    Ok(())
}

fn exact_unsubscribe(at: &Site) -> Outcome {
    let topic = at.topic();
    let exact = format!("{topic}/level");
    let mut subscriber = at.subscriber(&exact, 1)?;
    let near_misses = [
        format!("{topic}/+"),
        format!("{topic}/#"),
        format!("{exact}/"),
        exact.to_uppercase(),
        format!("/{exact}"),
    ];
    for other in &near_misses {
        subscriber.unsubscribe(&[other])?;
    }
    let mut publisher = at.client()?;
    publisher.publish(&exact, "still", 1)?;
    assert_eq!(at.recv(&mut subscriber)?.text(), "still");
    subscriber.unsubscribe(&[&exact])?;
    for qos in 0..=2 {
        publisher.publish(&exact, "no more", qos)?;
    }
    assert_eq!(at.received(&mut publisher, &mut subscriber)?, []);
    // A wildcard's end is not the end of what it covers.
    subscriber.subscribe(&[(&format!("{topic}/#"), 1), (&exact, 1)])?;
    subscriber.unsubscribe(&[&format!("{topic}/#")])?;
    publisher.publish(&exact, "one", 1)?;
    publisher.publish(&format!("{topic}/other"), "none", 1)?;
    let left: Vec<_> = at.received(&mut publisher, &mut subscriber)?.iter().map(|m| m.text()).collect();
    assert_eq!(left, ["one"]);
    Ok(())
}

fn started_delivery(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 2)?;
    subscriber.auto_ack = false;
    at.client()?.publish(&topic, "x", 2)?;
    let message = at.recv(&mut subscriber)?;
    subscriber.unsubscribe(&[&topic])?;
    subscriber.send_ack(AckKind::PubRec, message.id)?;
    subscriber.await_ack(AckKind::PubRel, message.id)?;
    subscriber.send_ack(AckKind::PubComp, message.id)?;
    subscriber.ping()?;
    Ok(())
}

fn started_delivery_kept(at: &Site) -> Outcome {
    let (options, topic) = (at.persistent(), at.topic());
    let mut subscriber = Client::connect(at.far(), &options)?;
    subscriber.subscribe(&[(&topic, 1)])?;
    subscriber.auto_ack = false;
    at.client()?.publish(&topic, "x", 1)?;
    let first = at.recv(&mut subscriber)?;
    subscriber.unsubscribe(&[&topic])?;
    subscriber.crash();
    let mut subscriber = Client::connect(at.near(), &options)?;
    let again = at.recv(&mut subscriber)?;
    assert_eq!((again.text(), again.id, again.dup), (first.text(), first.id, true));
    subscriber.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn in_one_breath(at: &Site) -> Outcome {
    for options in [at.options(), at.persistent()] {
        for qos in 0..=2 {
            let mut client = Client::connect(at.near(), &options)?;
            let topic = at.topic();
            let mut bytes = subscribe(at.version, 1, &[(&topic, 2)], &Props::default());
            let message = message(&topic, "own", qos, if qos > 0 { 2 } else { 0 });
            bytes.extend_from_slice(&publish(at.version, &message));
            client.send(&bytes)?;
            let own = loop {
                if let Packet::Publish(own) = client.packet(SOON)? {
                    break own;
                }
            };
            assert_eq!((own.text(), own.qos), ("own".into(), qos));
            // The handshake of the own QoS 2 is of no interest here.
            client.crash();
            at.forget(&options)?;
        }
    }
    Ok(())
}

fn suback_is_a_promise(at: &Site) -> Outcome {
    let mut publisher = at.client()?;
    let mut subscriber = at.far_client()?;
    for i in 0..30 {
        let topic = at.topic();
        subscriber.subscribe(&[(&topic, i % 3)])?;
        publisher.publish(&topic, "x", i % 3)?;
        assert_eq!(at.recv(&mut subscriber)?.topic, topic);
    }
    Ok(())
}
