//! The form of packets: types, flags, lengths and strings.

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Packet, Prop, Props, prop, publish};

use crate::messages::{SOON, each_packet_ends, frame, message, string};

pub const CASES: &[Case] = &[
    case("packets that only servers send, and types that are none, are errors", of_servers)
        .v3(&["4.8.0-1"])
        .v5(&["4.13.1-1", "4.13.2-1"]),
    case("flags of the fixed header have their fixed values", flags)
        .v3(&["2.2.2-1", "2.2.2-2", "3.6.1-1"])
        .v5(&["2.1.3-1", "3.6.1-1", "3.15.1-1"])
        .not_in_v31(),
    case("a length that is no length is an error", bad_length).v3(&["4.8.0-1"]).v5(&["1.5.5-1", "4.13.1-1"]),
    case("variable byte integers have to use the fewest bytes", shortest_integers).v5(&["1.5.5-1"]),
    case("a packet has to have the length it says", exact_length).v3(&["4.8.0-1"]).v5(&["4.13.1-1"]),
    case("a packet without properties says so", no_properties).v5(&["2.2.2-1"]),
    case("both halves of a user property are UTF-8 without U+0000", pairs)
        .v5(&["1.5.7-1", "1.5.4-1", "1.5.4-2"]),
    case("U+FEFF is a character like any other", byte_order_mark).v5(&["1.5.4-3", "1.5.7-1"]),
    case("a connection that breaks the protocol ends alone", alone).v3(&["4.8.0-1"]).v5(&["4.13.1-1"]),
    case("any number of packets may come at once", many_at_once).v3(&["7.0.0-2"]).v5(&["7.0.0-2"]),
];

const BOTH: &[u8] = &[0x81, 0x82];

fn of_servers(at: &Site) -> Outcome {
    let mut packets: Vec<&[u8]> = vec![
        &[0x00, 0],
        &[0xd0, 0],
        &[0xd1, 0],
        &[0xd0, 1, 0],
        &[0x20, 2, 0, 0],
        &[0x20, 3, 0, 0, 0],
        &[0x90, 3, 0, 1, 0],
        &[0x90, 4, 0, 1, 0, 0],
        &[0x91, 3, 0, 1, 0],
        &[0xb0, 2, 0, 1],
        &[0xb0, 4, 0, 1, 0, 0],
        &[0xb2, 2, 0, 1],
    ];
    if !at.is_v5() {
        packets.push(&[0xf0, 0]);
    }
    each_packet_ends(at, packets, BOTH)
}

fn flags(at: &Site) -> Outcome {
    let mut packets = Vec::new();
    for flags in 0..16_u8 {
        for (kind, body) in
            [(4, &[2, 0, 1][..]), (5, &[2, 0, 1]), (6, &[2, 0, 1]), (7, &[2, 0, 1]), (12, &[0])]
        {
            if flags != if kind == 6 { 2 } else { 0 } {
                packets.push([&[kind << 4 | flags][..], body].concat());
            }
        }
        if flags != 0 && at.is_v5() {
            packets.push(vec![0xf0 | flags, 0]);
        }
    }
    each_packet_ends(at, packets, &[0x81])
}

fn bad_length(at: &Site) -> Outcome {
    // The fifth byte of a length; more than the broker takes is another matter.
    each_packet_ends(
        at,
        [&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01][..], &[0xc0, 0xff, 0xff, 0xff, 0xff]],
        &[0x81],
    )?;
    each_packet_ends(at, [[0x30, 0xff, 0xff, 0xff, 0x7f]], &[0x95])
}

fn shortest_integers(at: &Site) -> Outcome {
    each_packet_ends(
        at,
        [
            // Remaining Length, property length, subscription identifier.
            &[0xc0, 0x80, 0x00][..],
            &[0xc0, 0x80, 0x80, 0x80, 0x00],
            &[0x30, 5, 0, 1, b'a', 0x80, 0x00],
            &[0x82, 10, 0, 1, 3, 0x0b, 0x81, 0x00, 0, 1, b'a', 0],
        ],
        &[0x81],
    )
}

fn exact_length(at: &Site) -> Outcome {
    let mut packets: Vec<&[u8]> = vec![
        &[0xc0, 1, 0],
        &[0x40, 0],
        &[0x40, 1, 0],
        &[0x62, 1, 1],
        &[0x30, 0],
        &[0x30, 1, 0],
        &[0x30, 2, 0, 5],
        &[0x30, 3, 0, 5, b'a'],
        &[0x32, 4, 0, 1, b'a', 0],
        &[0x82, 1, 0],
        &[0xa2, 1, 0],
    ];
    if at.is_v5() {
        packets.extend([&[0x40, 5, 0, 1, 0, 0, 0][..], &[0x30, 3, 0, 1, b'a'], &[0x30, 5, 0, 1, b'a', 2, 1]]);
        packets.extend([&[0x40, 5, 0, 1, 0, 1, 0x1f][..], &[0x30, 4, 0, 1, b'a', 0x26]]);
    } else {
        packets.extend([&[0x40, 3, 0, 1, 0][..], &[0x62, 3, 0, 1, 0], &[0xa2, 3, 0, 1, 0]]);
    }
    each_packet_ends(at, packets, BOTH)
}

fn no_properties(at: &Site) -> Outcome {
    // What a 3.1.1 client would write: where the property length is due, the packet ends.
    each_packet_ends(at, [&[0x82, 2, 0, 1][..], &[0xa2, 2, 0, 1], &[0x30, 3, 0, 1, b'a']], BOTH)?;
    // The broker writes the length 0; the client here reads strictly.
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 2)?;
    let mut publisher = at.client()?;
    for qos in 0..=2 {
        publisher.publish(&topic, "x", qos)?;
        assert_eq!(at.recv(&mut subscriber)?.props, Props::default());
    }
    Ok(())
}

fn user_property(topic: &str, name: &[u8], value: &[u8]) -> Vec<u8> {
    let property = [&[prop::USER_PROPERTY][..], &string(name), &string(value)].concat();
    frame(0x30, &[&string(topic.as_bytes()), &[property.len() as u8], &property])
}

fn pairs(at: &Site) -> Outcome {
    let topic = at.topic();
    for bad in [&b"\xff"[..], b"\0", b"a\0b", b"\xed\xa0\x80", b"\xc3"] {
        each_packet_ends(at, [user_property(&topic, bad, b"v"), user_property(&topic, b"n", bad)], BOTH)?;
    }
    Ok(())
}

fn byte_order_mark(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let bom = || "\u{feff}".to_owned();
    let props = Props::default()
        .with(prop::CONTENT_TYPE, Prop::Str(bom() + "x"))
        .with(prop::USER_PROPERTY, Prop::Pair(bom(), bom()));
    at.client()?.publish_with(&topic, "x", 1, false, props)?;
    let found = at.recv(&mut subscriber)?.props;
    assert_eq!(found.text(prop::CONTENT_TYPE), Some("\u{feff}x"));
    assert_eq!(found.user(), [("\u{feff}", "\u{feff}")]);
    Ok(())
}

fn alone(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut publisher = at.client()?;
    for _ in 0..20 {
        let mut bad = at.client()?;
        bad.send(&[0xff; 64])?;
        publisher.publish(&topic, "x", 1)?;
        assert_eq!(at.recv(&mut subscriber)?.text(), "x");
        at.assert_ends(bad, BOTH)?;
    }
    Ok(())
}

fn many_at_once(at: &Site) -> Outcome {
    let mut client = at.client()?;
    let topic = at.topic();
    let publish = publish(at.version, &message(&topic, "x", 0, 0));
    let bytes = [&publish[..], &[0xc0, 0]].concat().repeat(500);
    // In chunks that end anywhere.
    for chunk in bytes.chunks(997) {
        client.send(chunk)?;
    }
    for _ in 0..500 {
        assert_eq!(client.packet(SOON)?, Packet::PingResp);
    }
    Ok(())
}
