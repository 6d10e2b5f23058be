//! How much is under way at once, and how large a packet may be.

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{AckKind, Client, Options, Packet, Prop, Props, Publish, Result, prop, publish};

use crate::messages::{
    SOON, ack_with, both_sessions, ends, expect_ack, frame, message, next_publish, sent_so_far, string, texts,
};

pub const CASES: &[Case] = &[
    case("no more is in flight than the client takes, and everything else goes on", within_window)
        .v5(&["3.3.4-9", "3.3.4-10", "4.9.0-1", "4.9.0-2", "4.9.0-3"]),
    case("PUBCOMP makes room, PUBREC does not", pubcomp_makes_room).v5(&["3.3.4-9", "4.9.0-2"]),
    case("an error code in PUBREC makes room", error_makes_room).v5(&["4.9.0-2", "4.4.0-2"]),
    case("a resumed session gets no more at once than its new connection takes", within_window_resumed)
        .v5(&["3.3.4-9", "4.9.0-1", "4.9.0-2", "4.4.0-1"]),
    case("PUBRELs of a resumed session do not wait for the window", releases_resumed)
        .v5(&["4.9.0-3", "4.4.0-1"]),
    case("as much as the broker's receive maximum may be open, and no more", receive_maximum)
        .v5(&["3.3.4-7", "4.13.1-1"]),
    case("a message larger than the client takes is passed over", too_large).v5(&["3.1.2-24", "3.1.2-25"]),
    case("a message too large for a kept session's new connection is passed over", too_large_resumed)
        .v5(&["3.1.2-24", "3.1.2-25"]),
    case("an answer larger than the client takes is not sent", too_large_answer).v5(&["3.1.2-24"]),
    case("a packet above the broker's maximum ends the connection", above_maximum)
        .v5(&["3.2.2-15", "4.13.1-1"]),
];

/// Connects with a Receive Maximum, acknowledging nothing by itself.
fn narrow(at: &Site, options: &Options, receive_maximum: u16) -> Result<Client> {
    let options = options.clone().prop(prop::RECEIVE_MAXIMUM, Prop::U16(receive_maximum));
    let mut client = Client::connect(at.far(), &options)?;
    client.auto_ack = false;
    Ok(client)
}

/// All messages up to a last one at QoS 0, which nothing holds up.
fn until_last(client: &mut Client) -> Result<Vec<Publish>> {
    let mut got = Vec::new();
    loop {
        let message = next_publish(client)?;
        if message.qos == 0 {
            return Ok(got);
        }
        got.push(message);
    }
}

fn finish(client: &mut Client, got: &Publish) -> Outcome {
    if got.qos == 1 {
        client.send_ack(AckKind::PubAck, got.id)?;
        return Ok(());
    }
    client.send_ack(AckKind::PubRec, got.id)?;
    expect_ack(client, AckKind::PubRel, got.id)?;
    client.send_ack(AckKind::PubComp, got.id)?;
    Ok(())
}

fn within_window(at: &Site) -> Outcome {
    const COUNT: usize = 12;
    for options in both_sessions(at) {
        for (maximum, qos) in [(1, 1), (3, 1), (1, 2), (3, 2)] {
            let topic = at.topic();
            let mut client = narrow(at, &options, maximum)?;
            client.subscribe(&[(&topic, qos)])?;
            let mut publisher = at.client()?;
            for i in 0..COUNT {
                publisher.publish(&topic, i.to_string(), qos)?;
            }
            publisher.publish(&topic, "last", 0)?;
            let mut open = until_last(&mut client)?;
            assert_eq!(open.len(), usize::from(maximum), "QoS {qos}");
            // The other packets, in both directions.
            client.ping()?;
            client.subscribe(&[(&at.topic(), 2)])?;
            client.publish(&at.topic(), "x", 1)?;
            client.publish(&at.topic(), "x", 2)?;
            client.unsubscribe(&[&at.topic()])?;
            assert_eq!(sent_so_far(&mut client)?, []);
            let mut got = Vec::new();
            while got.len() < COUNT {
                let first = open.remove(0);
                assert!(!first.dup);
                finish(&mut client, &first)?;
                got.push(first.text());
                if got.len() + open.len() < COUNT {
                    open.push(next_publish(&mut client)?);
                }
                // One for one.
                assert_eq!(sent_so_far(&mut client)?, []);
            }
            assert_eq!(got, (0..COUNT).map(|i| i.to_string()).collect::<Vec<_>>());
            drop(client);
            at.forget(&options)?;
        }
    }
    Ok(())
}

fn pubcomp_makes_room(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut client = narrow(at, &options, 1)?;
        client.subscribe(&[(&topic, 2)])?;
        let mut publisher = at.client()?;
        publisher.publish(&topic, "first", 2)?;
        publisher.publish(&topic, "second", 2)?;
        publisher.publish(&topic, "last", 0)?;
        let open = until_last(&mut client)?;
        assert_eq!(texts(&open), ["first"]);
        client.send_ack(AckKind::PubRec, open[0].id)?;
        expect_ack(&mut client, AckKind::PubRel, open[0].id)?;
        publisher.publish(&topic, "last", 0)?;
        assert_eq!(until_last(&mut client)?, []);
        client.send_ack(AckKind::PubComp, open[0].id)?;
        assert_eq!(next_publish(&mut client)?.text(), "second");
        at.forget(&options)?;
    }
    Ok(())
}

fn error_makes_room(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut client = narrow(at, &options, 1)?;
        client.subscribe(&[(&topic, 2)])?;
        let mut publisher = at.client()?;
        for (payload, qos) in [("a", 2), ("b", 1), ("c", 2)] {
            publisher.publish(&topic, payload, qos)?;
        }
        let first = next_publish(&mut client)?;
        client.send(&ack_with(AckKind::PubRec, first.id, 0x80))?;
        let second = next_publish(&mut client)?;
        client.send(&ack_with(AckKind::PubAck, second.id, 0x83))?;
        let third = next_publish(&mut client)?;
        assert_eq!(texts(&[first, second, third]), ["a", "b", "c"]);
        at.forget(&options)?;
    }
    Ok(())
}

fn within_window_resumed(at: &Site) -> Outcome {
    const COUNT: usize = 9;
    let options = at.persistent();
    let topic = at.topic();
    let mut client = narrow(at, &options, 5)?;
    client.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    for i in 0..COUNT {
        publisher.publish(&topic, i.to_string(), 1 + (i % 2) as u8)?;
    }
    let sent: Vec<Publish> = (0..5).map(|_| next_publish(&mut client)).collect::<Result<_>>()?;
    client.disconnect()?;
    // Some of them for the second time, the rest for the first.
    let mut client = narrow(at, &options, 2)?;
    let mut open: Vec<Publish> = vec![next_publish(&mut client)?, next_publish(&mut client)?];
    let mut got = Vec::new();
    while got.len() < COUNT {
        assert_eq!(sent_so_far(&mut client)?, [], "no more than two at once");
        let first = open.remove(0);
        if let Some(before) = sent.get(got.len()) {
            assert_eq!(first, Publish { dup: true, ..before.clone() });
        }
        finish(&mut client, &first)?;
        got.push(first.text());
        if got.len() + open.len() < COUNT {
            open.push(next_publish(&mut client)?);
        }
    }
    assert_eq!(got, (0..COUNT).map(|i| i.to_string()).collect::<Vec<_>>());
    at.forget(&options)?;
    Ok(())
}

fn releases_resumed(at: &Site) -> Outcome {
    let options = at.persistent();
    let topic = at.topic();
    let mut client = narrow(at, &options, 5)?;
    client.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    for i in 0..4 {
        publisher.publish(&topic, i.to_string(), 2)?;
    }
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(next_publish(&mut client)?.id);
    }
    for id in &ids[1..] {
        client.send_ack(AckKind::PubRec, *id)?;
        expect_ack(&mut client, AckKind::PubRel, *id)?;
    }
    client.crash();
    let mut client = narrow(at, &options, 1)?;
    let first = next_publish(&mut client)?;
    assert_eq!((first.id, first.dup), (ids[0], true));
    for id in &ids[1..] {
        expect_ack(&mut client, AckKind::PubRel, *id)?;
    }
    at.forget(&options)?;
    Ok(())
}

fn receive_maximum(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut client = Client::connect(at.near(), &options)?;
        let maximum = client.granted.number(prop::RECEIVE_MAXIMUM).map_or(Ok(u16::MAX), u16::try_from)?;
        let open = |ids: std::ops::RangeInclusive<u16>| -> Vec<u8> {
            ids.flat_map(|id| publish(at.version, &message(&topic, "x", 2, id))).collect()
        };
        for round in 0..2 {
            client.send(&open(1..=maximum))?;
            for id in 1..=maximum {
                assert!(expect_ack(&mut client, AckKind::PubRec, id)? < 0x80, "round {round}");
            }
            // A repeat is none more.
            client.send_publish(&Publish { dup: true, ..message(&topic, "x", 2, maximum) })?;
            expect_ack(&mut client, AckKind::PubRec, maximum)?;
            for id in 1..=maximum {
                client.send_ack(AckKind::PubRel, id)?;
            }
            for id in 1..=maximum {
                expect_ack(&mut client, AckKind::PubComp, id)?;
            }
        }
        client.send(&open(1..=maximum + 1))?;
        ends(at, client, "one more than the receive maximum", &[0x93])?;
        at.forget(&options)?;
    }
    Ok(())
}

/// What the client takes in these cases, bytes.
const MAXIMUM: u32 = 200;

fn bounded(options: &Options) -> Options {
    options.clone().prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(MAXIMUM))
}

/// A payload that makes the packet of a delivery so long.
fn filling(at: &Site, topic: &str, qos: u8, bytes: u32) -> String {
    let empty = publish(at.version, &message(topic, "", qos, 1)).len();
    // From 128 bytes on the length takes a byte more.
    "x".repeat(bytes as usize - empty - 1)
}

fn too_large(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        for qos in 0..=2 {
            let topic = at.topic();
            let mut publisher = at.client()?;
            let retained = format!("{topic}/retained");
            publisher.retain(&retained, filling(at, &retained, 1, MAXIMUM + 9), 1)?;
            // With room for one, what is passed over must not take it.
            let one = bounded(&options).prop(prop::RECEIVE_MAXIMUM, Prop::U16(1));
            let mut client = Client::connect(at.far(), &one)?;
            client.subscribe(&[(&format!("{topic}/#"), qos)])?;
            let (fits, too_long) = (filling(at, &topic, qos, MAXIMUM), filling(at, &topic, qos, MAXIMUM + 1));
            for payload in [&too_long, &fits, &too_long, &"x".repeat(100_000), &too_long] {
                publisher.publish(&topic, payload, qos)?;
            }
            // Not the payload alone counts.
            let props = Props::default().with(prop::CONTENT_TYPE, Prop::Str("x".repeat(MAXIMUM as usize)));
            publisher.publish_with(&topic, "x", qos, false, props)?;
            publisher.publish(&topic, "last", qos)?;
            let got = at.received(&mut publisher, &mut client)?;
            assert_eq!(texts(&got), [fits, "last".into()], "QoS {qos}");
            publisher.retain(&retained, "", 1)?;
            drop(client);
            at.forget(&options)?;
        }
    }
    Ok(())
}

fn too_large_resumed(at: &Site) -> Outcome {
    let options = at.persistent();
    let topic = at.topic();
    let mut client = Client::connect(at.far(), &options)?;
    client.subscribe(&[(&topic, 2)])?;
    client.auto_ack = false;
    let mut publisher = at.client()?;
    let long = filling(at, &topic, 1, MAXIMUM + 1);
    publisher.publish(&topic, &long, 1)?;
    assert_eq!(next_publish(&mut client)?.text(), long);
    client.disconnect()?;
    for (payload, qos) in [(long.as_str(), 1), ("first", 1), (&long, 2), ("second", 1)] {
        publisher.publish(&topic, payload, qos)?;
    }
    let mut client = Client::connect(at.near(), &bounded(&options))?;
    assert_eq!(texts(&at.received(&mut publisher, &mut client)?), ["first", "second"]);
    client.disconnect()?;
    // They are over, not put off until somebody takes them.
    let mut client = Client::connect(at.near(), &options)?;
    assert!(at.received(&mut publisher, &mut client)?.is_empty());
    at.forget(&options)?;
    Ok(())
}

fn too_large_answer(at: &Site) -> Outcome {
    let mut client = Client::connect(at.near(), &bounded(&at.options()))?;
    let topic = at.topic();
    let filters: Vec<String> = (0..MAXIMUM).map(|i| format!("{topic}/{i}")).collect();
    let filters: Vec<u8> = filters.iter().flat_map(|f| [&string(f.as_bytes())[..], &[1]].concat()).collect();
    client.send(&frame(0x82, &[&[0, 1, 0], &filters]))?;
    match client.packet(SOON)? {
        Packet::Disconnect { code: 0x95, .. } => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn above_maximum(at: &Site) -> Outcome {
    let mut client = at.client()?;
    let maximum = client.granted.number(prop::MAXIMUM_PACKET_SIZE).ok_or("no maximum")? as usize;
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let empty = publish(at.version, &message(&topic, "", 1, 1)).len();
    // From 2 MiB on the length takes four bytes, three from 16 KiB on.
    let length_bytes = if maximum > 1 << 21 { 3 } else { 2 };
    let payload = vec![b'x'; maximum - empty - length_bytes];
    let fits = Publish { payload, ..message(&topic, "", 1, 1) };
    assert_eq!(publish(at.version, &fits).len(), maximum);
    client.send_publish(&fits)?;
    assert_eq!(expect_ack(&mut client, AckKind::PubAck, 1)?, 0);
    assert!(at.recv(&mut subscriber)?.payload == fits.payload);
    let payload = [fits.payload.as_slice(), b"x"].concat();
    // The broker need not wait for the rest once the length is known.
    let above = publish(at.version, &Publish { payload, ..message(&topic, "", 1, 2) });
    client.send(&above[..16])?;
    ends(at, client, "a packet above the maximum", &[0x95])
}
