//! The properties of a message: forwarded, counted down, refused; and topic aliases.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Ack, AckKind, Client, Options, Packet, Prop, Props, Publish, Version, Will, prop};
use cluster_tests::wait;

use crate::messages::{
    Bad, SOON, bad, both_sessions, each_ends, ends, frame, message, next_publish, string, texts,
};

pub const CASES: &[Case] = &[
    case("what a publisher says of a message arrives unaltered and in its order", forwarded)
        .v5(&["3.3.2-4", "3.3.2-15", "3.3.2-16", "3.3.2-17", "3.3.2-18", "3.3.2-20", "1.5.7-1", "2.2.2-1"]),
    case("a will's properties arrive unaltered and in their order", of_wills)
        .v5(&["3.1.3-10", "3.3.2-17", "3.3.2-18"]),
    case("messages cross between versions of the protocol without properties", between_versions)
        .v3(&["4.5.0-1"])
        .v5(&["4.5.0-1", "2.2.2-1"]),
    case("a property that is wrong ends the connection", wrong)
        .v5(&["3.3.2-13", "3.3.2-14", "3.3.2-19", "1.5.7-1", "4.13.1-1"]),
    case("whether a payload is text is the subscribers' business", payload_format).v5(&["3.3.2-4"]),
    case("the time a message has left is counted down, and what has none left is dropped", expiry)
        .v5(&["3.3.2-5", "3.3.2-6"]),
    case("a connected subscriber is told the time that is left", expiry_at_once).v5(&["3.3.2-6"]),
    case("all announced topic aliases can be used, and redefined", client_aliases)
        .v5(&["3.3.2-12", "3.2.2-17"]),
    case("a topic alias that is 0, too high or undefined ends the connection", wrong_aliases)
        .v5(&["3.3.2-8", "3.3.2-9", "3.2.2-17", "4.13.1-1"]),
    case("a client's topic aliases end with its connection", aliases_end).v5(&["3.3.2-7"]),
    case("the broker uses topic aliases up to the client's maximum", server_aliases)
        .v5(&["3.1.2-26", "3.3.2-11", "3.3.2-8", "3.3.2-10"]),
    case("the broker uses no topic aliases unless it is allowed to", no_server_aliases).v5(&["3.1.2-27"]),
    case("the broker's topic aliases end with the connection", server_aliases_end).v5(&["3.3.2-7"]),
    case("without a wish for problem information no acknowledgement carries any", no_problem_information).v5(
        &["3.1.2-29", "3.4.2-2", "3.4.2-3", "3.5.2-2", "3.5.2-3", "3.6.2-2", "3.6.2-3", "3.7.2-2", "3.7.2-3"],
    ),
    case("without a wish for response information CONNACK carries none", no_response_information)
        .v5(&["3.1.2-28"]),
];

/// Everything a message can carry, user properties between the others and one of them twice.
fn everything() -> Props {
    let user = |name: &str, value: &str| Prop::Pair(name.into(), value.into());
    Props::default()
        .with(prop::USER_PROPERTY, user("b", "1"))
        .with(prop::PAYLOAD_FORMAT, Prop::Byte(1))
        .with(prop::USER_PROPERTY, user("a", "2"))
        .with(prop::CONTENT_TYPE, Prop::Str("text/plain; \u{feff}é".into()))
        .with(prop::RESPONSE_TOPIC, Prop::Str("answers/to here".into()))
        .with(prop::USER_PROPERTY, user("b", "1"))
        .with(prop::CORRELATION_DATA, Prop::Bytes(vec![0, 255, 0, 1]))
        .with(prop::USER_PROPERTY, user("b", "0"))
        .with(prop::USER_PROPERTY, user("", ""))
        .with(prop::USER_PROPERTY, user("日本", &"long ".repeat(200)))
}

/// Asserts that what arrived is all that was said, and nothing else but these.
#[track_caller]
fn assert_forwarded(got: &Props, said: &Props, besides: &[u8], how: &str) {
    assert_eq!(got.user(), said.user(), "user properties {how}");
    for id in [prop::PAYLOAD_FORMAT, prop::CONTENT_TYPE, prop::RESPONSE_TOPIC, prop::CORRELATION_DATA] {
        assert_eq!(got.get(id), said.get(id), "property {id:#04x} {how}");
    }
    let others = |props: &Props| props.0.iter().filter(|(id, _)| !besides.contains(id)).count();
    assert_eq!(others(got), others(said), "properties {how}: {got:?}");
}

fn forwarded(at: &Site) -> Outcome {
    let (topic, said) = (at.topic(), everything());
    let [kept, away] = [at.persistent(), at.persistent()];
    let mut offline = Client::connect(at.far(), &away)?;
    offline.subscribe(&[(&topic, 2)])?;
    offline.disconnect()?;
    let mut clean = at.subscriber(&topic, 2)?;
    let mut persistent = Client::connect(at.far(), &kept)?;
    persistent.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    for qos in 0..=2 {
        publisher.publish_with(&topic, "x", qos, false, said.clone())?;
        // With what is not forwarded in the middle, and the topic by its alias.
        let mut mixed = said.clone();
        mixed.0.insert(3, (prop::TOPIC_ALIAS, Prop::U16(5)));
        mixed.0.insert(5, (prop::MESSAGE_EXPIRY_S, Prop::U32(600)));
        publisher.publish_with(&topic, "x", qos, false, mixed.clone())?;
        publisher.publish_with("", "x", qos, false, mixed)?;
        for subscriber in [&mut clean, &mut persistent] {
            for _ in 0..3 {
                let got = at.recv(subscriber)?;
                assert_eq!((got.topic.as_str(), got.qos), (topic.as_str(), qos));
                assert_forwarded(&got.props, &said, &[prop::MESSAGE_EXPIRY_S], &format!("at QoS {qos}"));
            }
        }
    }
    let mut back = Client::connect(at.near(), &away)?;
    for _ in 0..6 {
        assert_forwarded(&at.recv(&mut back)?.props, &said, &[prop::MESSAGE_EXPIRY_S], "of a kept session");
    }
    publisher.publish_with(&topic, "x", 1, true, said.clone())?;
    let mut later = at.subscriber(&topic, 1)?;
    assert_forwarded(&at.recv(&mut later)?.props, &said, &[], "of a retained message");
    // None is none.
    publisher.publish(&topic, "x", 1)?;
    assert_eq!(at.recv(&mut later)?.props, Props::default());
    publisher.retain(&topic, "", 1)?;
    at.forget(&kept)?;
    at.forget(&away)?;
    Ok(())
}

fn of_wills(at: &Site) -> Outcome {
    let (topic, said) = (at.topic(), everything());
    let mut subscriber = at.subscriber(&topic, 2)?;
    for options in both_sessions(at) {
        let will = Will { props: said.clone(), ..Will::new(&topic, "gone", 1) };
        Client::connect(at.near(), &options.clone().will(will))?.crash();
        let got = at.recv(&mut subscriber)?;
        assert_eq!(got.text(), "gone");
        assert_forwarded(&got.props, &said, &[], "of a will");
        at.forget(&options)?;
    }
    Ok(())
}

fn between_versions(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut publisher = at.client()?;
    let of = |version| Options { version, ..at.options() };
    let mut subscribers = Vec::new();
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut subscriber = Client::connect(at.far(), &of(version))?;
        subscriber.subscribe(&[(&topic, 2)])?;
        subscribers.push((version, subscriber));
    }
    let said = if at.is_v5() { everything() } else { Props::default() };
    for qos in 0..=2 {
        publisher.publish_with(&topic, "x", qos, false, said.clone())?;
        for (version, subscriber) in &mut subscribers {
            let got = at.recv(subscriber)?;
            assert_eq!((got.text().as_str(), got.qos), ("x", qos));
            let expected = if *version == Version::V5 { &said } else { &Props::default() };
            assert_forwarded(&got.props, expected, &[], &format!("to {version:?}"));
        }
    }
    Ok(())
}

/// QoS 0 with these properties in wire form.
fn with_props(what: &'static str, props: &[u8], codes: &'static [u8]) -> Bad {
    let length = u8::try_from(props.len()).expect("a short block");
    bad(what, frame(0x30, &[&string(b"t"), &[length], props, b"x"]), codes)
}

fn wrong(at: &Site) -> Outcome {
    const BROKEN: &[u8] = &[0x81, 0x82];
    const TOPIC: &[u8] = &[0x81, 0x82, 0x90];
    let text = |id: u8, bytes: &[u8]| [&[id], &string(bytes)[..]].concat();
    let twice = |once: &[u8]| [once, once].concat();
    let pair = |name: &[u8], value: &[u8]| [&[0x26], &string(name)[..], &string(value)[..]].concat();
    each_ends(
        at,
        &[
            with_props("payload format 2", &[1, 2], BROKEN),
            with_props("payload format twice", &twice(&[1, 1]), BROKEN),
            with_props("expiry twice", &twice(&[2, 0, 0, 0, 9]), BROKEN),
            with_props("content type twice", &twice(&text(3, b"a")), BROKEN),
            with_props("content type that is no UTF-8", &text(3, b"\xff"), BROKEN),
            with_props("content type with U+0000", &text(3, b"a\0"), BROKEN),
            with_props("response topic twice", &twice(&text(8, b"a")), BROKEN),
            with_props("response topic that is no UTF-8", &text(8, b"\xc0\x80"), BROKEN),
            with_props("response topic with +", &text(8, b"a/+"), TOPIC),
            with_props("response topic with #", &text(8, b"a/#"), TOPIC),
            with_props("response topic without a character", &text(8, b""), TOPIC),
            with_props("correlation data twice", &twice(&text(9, b"a")), BROKEN),
            with_props("topic alias twice", &twice(&[0x23, 0, 1]), BROKEN),
            with_props("user property whose name is no UTF-8", &pair(b"\xff", b"a"), BROKEN),
            with_props("user property whose value is no UTF-8", &pair(b"a", b"\xed\xa0\x80"), BROKEN),
            with_props("user property with U+0000", &pair(b"a\0", b"b"), BROKEN),
            with_props("session expiry", &[0x11, 0, 0, 0, 9], BROKEN),
            with_props("will delay", &[0x18, 0, 0, 0, 9], BROKEN),
            with_props("receive maximum", &[0x21, 0, 9], BROKEN),
            with_props("reason string", &text(0x1f, b"a"), BROKEN),
            with_props("maximum packet size", &[0x27, 0, 0, 9, 0], BROKEN),
            with_props("an id that does not exist", &[0x04, 0], BROKEN),
            with_props("an id beyond all", &[0x7f, 0], BROKEN),
            with_props("an id of two bytes", &[0x81, 0x01, 0], BROKEN),
        ],
    )
}

fn payload_format(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut publisher = at.client()?;
    for (indicator, payload) in [(0, &b"\xff\xfe"[..]), (1, b"text"), (1, b"\xff\xfe")] {
        let props = Props::default().with(prop::PAYLOAD_FORMAT, Prop::Byte(indicator));
        assert_eq!(publisher.publish_with(&topic, payload, 1, false, props.clone())?, 0);
        let got = at.recv(&mut subscriber)?;
        assert_eq!((got.payload.as_slice(), got.props), (payload, props));
    }
    Ok(())
}

fn expiring(expiry_s: u32) -> Props {
    Props::default().with(prop::MESSAGE_EXPIRY_S, Prop::U32(expiry_s))
}

fn expiry(at: &Site) -> Outcome {
    const LIFE_S: u32 = 60;
    const PASSED: Duration = Duration::from_millis(3500);
    let (queue, retained) = (at.topic(), at.topic());
    // One session is away, the others are connected and have one message open, which is all they take.
    let away = at.persistent();
    let mut subscriber = Client::connect(at.far(), &away)?;
    subscriber.subscribe(&[(&queue, 2)])?;
    subscriber.disconnect()?;
    let mut busy = Vec::new();
    let narrow = both_sessions(at).map(|o| o.prop(prop::RECEIVE_MAXIMUM, Prop::U16(1)));
    for options in &narrow {
        let mut client = Client::connect(at.far(), options)?;
        client.auto_ack = false;
        client.subscribe(&[(&queue, 1)])?;
        busy.push(client);
    }
    let mut publisher = at.client()?;
    let published = Instant::now();
    publisher.publish(&queue, "open", 1)?;
    for qos in [1, 2] {
        publisher.publish_with(&queue, "short", qos, false, expiring(1))?;
        publisher.publish_with(&queue, "long", qos, false, expiring(LIFE_S))?;
    }
    publisher.publish_with(&format!("{retained}/short"), "short", 1, true, expiring(1))?;
    publisher.publish_with(&format!("{retained}/long"), "long", 1, true, expiring(LIFE_S))?;
    wait::pass(PASSED);
    let assert_left = |got: &Publish| {
        let left = got.props.number(prop::MESSAGE_EXPIRY_S).expect("the time left");
        // Whole seconds, and clocks of two nodes.
        let least = LIFE_S.saturating_sub(published.elapsed().as_secs() as u32 + 2);
        assert_eq!(got.text(), "long");
        assert!((least..=LIFE_S - 2).contains(&left), "{left} s left of {LIFE_S} s, at least {least}");
    };

    let mut back = Client::connect(at.near(), &away)?;
    let mut got = at.received(&mut publisher, &mut back)?;
    let open = got.iter().position(|m| m.text() == "open").ok_or("without expiry it is kept")?;
    assert_eq!(got.remove(open).props, Props::default());
    assert_eq!(texts(&got), ["long", "long"], "of the queue");
    got.iter().for_each(assert_left);

    for client in &mut busy {
        let open = next_publish(client)?;
        assert_eq!(open.text(), "open");
        client.send_ack(AckKind::PubAck, open.id)?;
        for _ in 0..2 {
            let got = next_publish(client)?;
            assert_left(&got);
            client.send_ack(AckKind::PubAck, got.id)?;
        }
    }

    let mut later = at.subscriber(&format!("{retained}/#"), 1)?;
    let got = at.received(&mut publisher, &mut later)?;
    assert_eq!(texts(&got), ["long"], "retained");
    got.iter().for_each(assert_left);
    publisher.retain(&format!("{retained}/long"), "", 1)?;
    for options in narrow.iter().chain([&away]) {
        at.forget(options)?;
    }
    Ok(())
}

fn expiry_at_once(at: &Site) -> Outcome {
    let topic = at.topic();
    let kept = at.persistent();
    let mut clean = at.subscriber(&topic, 2)?;
    let mut persistent = Client::connect(at.far(), &kept)?;
    persistent.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    for qos in 0..=2 {
        for life_s in [100, u32::MAX] {
            publisher.publish_with(&topic, "x", qos, false, expiring(life_s))?;
            for subscriber in [&mut clean, &mut persistent] {
                let left = at.recv(subscriber)?.props.number(prop::MESSAGE_EXPIRY_S).ok_or("no time left")?;
                assert!((life_s - 22..=life_s).contains(&left), "{left} s left of {life_s} s");
            }
        }
    }
    at.forget(&kept)?;
    Ok(())
}

fn alias(number: u16) -> Props {
    Props::default().with(prop::TOPIC_ALIAS, Prop::U16(number))
}

fn client_aliases(at: &Site) -> Outcome {
    let root = at.topic();
    let mut subscriber = at.subscriber(&format!("{root}/#"), 1)?;
    let mut publisher = at.client()?;
    let maximum = publisher.granted.number(prop::TOPIC_ALIAS_MAXIMUM).ok_or("no aliases granted")?;
    let aliases: Vec<u16> = (1..=u16::try_from(maximum)?).collect();
    for qos in 0..=1 {
        for round in ["first", "second"] {
            for number in &aliases {
                let topic = format!("{root}/{round}/{number}");
                publisher.publish_with(&topic, "defined", qos, false, alias(*number))?;
            }
            for number in aliases.iter().rev() {
                publisher.publish_with("", "used", qos, false, alias(*number))?;
            }
            for (number, text) in
                aliases.iter().map(|n| (n, "defined")).chain(aliases.iter().rev().map(|n| (n, "used")))
            {
                let got = at.recv(&mut subscriber)?;
                assert_eq!((got.topic, got.payload), (format!("{root}/{round}/{number}"), text.into()));
                assert_eq!(got.props, Props::default(), "an alias is the connection's own");
            }
        }
    }
    // One that was defined in a retained publish, and the plain topic without any.
    publisher.publish_with(&format!("{root}/r"), "", 1, true, alias(1))?;
    publisher.publish_with("", "by alias", 1, false, alias(1))?;
    publisher.publish(&format!("{root}/r"), "by name", 1)?;
    for text in ["", "by alias", "by name"] {
        let got = at.recv(&mut subscriber)?;
        assert_eq!((got.topic, got.payload), (format!("{root}/r"), text.into()));
    }
    Ok(())
}

fn wrong_aliases(at: &Site) -> Outcome {
    let maximum = at.client()?.granted.number(prop::TOPIC_ALIAS_MAXIMUM).unwrap_or(0);
    let above = u16::try_from(maximum + 1)?;
    let rows: [(&str, &str, u16, &[u8]); 6] = [
        ("alias 0", "t", 0, &[0x94]),
        ("alias 0 without topic", "", 0, &[0x94]),
        ("above the maximum", "t", above, &[0x94]),
        ("above the maximum, without topic", "", above, &[0x94]),
        ("the highest of all", "t", u16::MAX, &[0x94]),
        ("never defined", "", 1, &[0x82]),
    ];
    for (what, topic, number, codes) in rows {
        for qos in 0..=2 {
            let mut client = at.client()?;
            client.send_publish(&Publish { props: alias(number), ..message(topic, "x", qos, 1) })?;
            ends(at, client, what, codes)?;
        }
    }
    // Another's alias is not ours.
    let mut definer = at.client()?;
    definer.publish_with(&at.topic(), "x", 1, false, alias(1))?;
    let mut client = at.client()?;
    client.send_publish(&Publish { props: alias(1), ..message("", "x", 1, 1) })?;
    ends(at, client, "defined on another connection", &[0x82])
}

fn aliases_end(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let mut client = Client::connect(at.near(), &options)?;
        client.publish_with(&at.topic(), "x", 1, false, alias(1))?;
        client.crash();
        let mut client = Client::connect(at.near(), &options)?;
        client.send_publish(&Publish { props: alias(1), ..message("", "x", 1, 1) })?;
        ends(at, client, "defined on the connection before", &[0x82])?;
        at.forget(&options)?;
    }
    Ok(())
}

/// Replaces the alias of a message that arrived by its topic, and learns.
#[track_caller]
fn resolve(known: &mut HashMap<u32, String>, got: &mut Publish, maximum: u32) -> Option<u32> {
    let Some(number) = got.props.number(prop::TOPIC_ALIAS) else {
        assert!(!got.topic.is_empty(), "neither topic nor alias");
        return None;
    };
    assert!((1..=maximum).contains(&number), "alias {number} of {maximum}");
    if got.topic.is_empty() {
        got.topic = known.get(&number).expect("the alias is defined").clone();
    } else {
        known.insert(number, got.topic.clone());
    }
    Some(number)
}

fn server_aliases(at: &Site) -> Outcome {
    const MAXIMUM: u16 = 3;
    for options in both_sessions(at) {
        let options = options.prop(prop::TOPIC_ALIAS_MAXIMUM, Prop::U16(MAXIMUM));
        let root = at.topic();
        let mut subscriber = Client::connect(at.far(), &options)?;
        subscriber.subscribe(&[(&format!("{root}/#"), 2)])?;
        let mut publisher = at.client()?;
        let mut known = HashMap::new();
        for round in 0..3 {
            for number in 0..6 {
                let topic = format!("{root}/{}", (number * (round + 1)) % 6);
                publisher.publish_with(&topic, &topic, number % 3, false, everything())?;
                let mut got = at.recv(&mut subscriber)?;
                resolve(&mut known, &mut got, u32::from(MAXIMUM));
                assert_eq!((&got.topic, got.text()), (&topic, topic.clone()));
                assert_forwarded(&got.props, &everything(), &[prop::TOPIC_ALIAS], "beside an alias");
            }
        }
        at.forget(&options)?;
    }
    Ok(())
}

fn no_server_aliases(at: &Site) -> Outcome {
    for options in [at.options(), at.options().prop(prop::TOPIC_ALIAS_MAXIMUM, Prop::U16(0))] {
        let topic = at.topic();
        let mut subscriber = Client::connect(at.far(), &options)?;
        subscriber.subscribe(&[(&topic, 1)])?;
        let mut publisher = at.client()?;
        for _ in 0..5 {
            publisher.publish_with(&topic, "x", 1, false, alias(1))?;
            let got = at.recv(&mut subscriber)?;
            assert_eq!((got.topic.as_str(), got.props), (topic.as_str(), Props::default()));
        }
    }
    Ok(())
}

fn server_aliases_end(at: &Site) -> Outcome {
    let options = at.persistent().prop(prop::TOPIC_ALIAS_MAXIMUM, Prop::U16(10));
    let topic = at.topic();
    let mut publisher = at.client()?;
    let mut subscriber = Client::connect(at.far(), &options)?;
    subscriber.auto_ack = false;
    subscriber.subscribe(&[(&topic, 1)])?;
    for transport in [at.near(), at.far()] {
        let mut known = HashMap::new();
        publisher.publish(&topic, "x", 1)?;
        let mut got = at.recv(&mut subscriber)?;
        resolve(&mut known, &mut got, 10);
        assert_eq!(got.topic, topic);
        subscriber.crash();
        // What is open is sent again, whole.
        subscriber = Client::connect(transport, &options)?;
        subscriber.auto_ack = false;
    }
    let mut known = HashMap::new();
    for _ in 0..2 {
        let mut got = at.recv(&mut subscriber)?;
        resolve(&mut known, &mut got, 10);
        assert_eq!((got.topic.as_str(), got.dup), (topic.as_str(), true));
    }
    at.forget(&options)?;
    Ok(())
}

fn no_problem_information(at: &Site) -> Outcome {
    let plain = |ack: &Ack| assert_eq!(ack.props, Props::default(), "{ack:?}");
    for options in both_sessions(at) {
        let options = options
            .prop(prop::REQUEST_PROBLEM_INFORMATION, Prop::Byte(0))
            .prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(100));
        let mut client = Client::connect(at.near(), &options)?;
        let topic = at.topic();
        // Without subscribers, with one, and refused: three codes.
        for round in 0..3 {
            let to = if round == 2 { "$SYS/conformance".to_owned() } else { topic.clone() };
            client.send_publish(&message(&to, "x", 1, 1))?;
            client.send_publish(&message(&to, "x", 2, 2))?;
            client.send_ack(AckKind::PubRel, 2)?;
            client.send_ack(AckKind::PubRel, 99)?;
            client.send_ack(AckKind::PubRec, 99)?;
            let mut kinds = Vec::new();
            while kinds.len() < 5 {
                match client.packet(SOON)? {
                    Packet::Ack(ack) => {
                        plain(&ack);
                        kinds.push(ack.kind);
                    }
                    // Its own messages, left unacknowledged.
                    Packet::Publish(_) => {}
                    other => return Err(format!("{other:?}").into()),
                }
            }
            client.subscribe(&[(&topic, 1)])?;
        }
        at.forget(&options)?;
    }
    Ok(())
}

fn no_response_information(at: &Site) -> Outcome {
    let unasked = at.options();
    let refused = at.options().prop(prop::REQUEST_RESPONSE_INFORMATION, Prop::Byte(0));
    for options in [unasked, refused] {
        let client = Client::connect(at.near(), &options)?;
        assert_eq!(client.granted.get(prop::RESPONSE_INFORMATION), None);
    }
    Ok(())
}
