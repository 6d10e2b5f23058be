//! Wills: when they are published, when they are not.

use std::time::{Duration, Instant};

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Client, Error, Options, Prop, Props, Will, connect, disconnect, prop};

pub const CASES: &[Case] = &[
    case("a connection that breaks publishes its will, once", on_loss)
        .v3(&["3.1.2-8", "3.1.2-10"])
        .v5(&["3.1.2-7", "3.1.2-8", "3.1.2-10"]),
    case("a protocol error publishes the will", on_protocol_error).v3(&["3.1.2-8"]).v5(&["3.1.2-8"]),
    case("a takeover publishes the older connection's will", on_takeover).v3(&["3.1.2-8"]).v5(&["3.1.2-8"]),
    case("DISCONNECT discards the will", on_disconnect)
        .v3(&["3.1.2-10", "3.14.4-3"])
        .v5(&["3.1.2-10", "3.14.4-3"]),
    case("no will, none published, not even that of the connection before", no_will)
        .v3(&["3.1.2-12"])
        .v5(&["3.1.2-10"]),
    case("a will is retained if it says so, and only then", retain)
        .v3(&["3.1.2-16", "3.1.2-17"])
        .v5(&["3.1.2-14", "3.1.2-15"]),
    case("a will has its QoS and its payload, the empty one too", content).v3(&["3.1.2-8"]).v5(&["3.1.2-8"]),
    case("a will has its properties, user properties in their order", properties).v5(&["3.1.3-10"]),
    case("DISCONNECT 0x04 publishes the will", on_disconnect_with_will).v5(&["3.14.4-3", "3.1.2-8"]),
    case("a delayed will waits, to the second", delayed).v5(&["3.1.2-8"]),
    case("a delayed will does not outwait its session", delay_cut_by_expiry).v5(&["3.1.2-8"]),
    case("a delayed will is not sent to a client that is back in time", back_in_time).v5(&["3.1.3-9"]),
    case("a takeover within the delay is back in time", taken_over_in_time).v5(&["3.1.3-9"]),
    case("a clean start ends the session, and so sends the delayed will at once", clean_start_sends)
        .v5(&["3.1.2-8"]),
    case("DISCONNECT that ends the session sends the delayed will at once", expiry_zero_sends)
        .v5(&["3.1.2-8"]),
    case("the message of a will expires like any other", expires).v5(&["3.3.2-5", "3.3.2-6"]),
    case("a will may not have a wildcard in its topic", wildcard)
        .v3(&["4.7.1-1", "3.3.2-2"])
        .v5(&["4.7.0-1"]),
    case("a will for one of the server's own topics is refused with its CONNECT", servers_topic)
        .v3(&["3.2.2-4", "3.2.2-5"])
        .v5(&["3.1.4-2", "3.2.2-7"]),
    case("DISCONNECT in the same bytes as CONNECT discards the will", pipelined_disconnect)
        .v3(&["3.14.4-3"])
        .v5(&["3.14.4-3"]),
];

/// How late a busy machine may be.
const LATE: Duration = Duration::from_millis(2_000);

fn with_will(at: &Site, topic: &str) -> Options {
    at.options().will(Will::new(topic, "gone", 1))
}

/// A session of an hour with a will that waits.
fn delayed_by(at: &Site, topic: &str, delay_s: u32, expiry_s: u32) -> Options {
    at.expiring(expiry_s).will(Will { delay_s, ..Will::new(topic, "gone", 1) })
}

fn on_loss(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    Client::connect(at.near(), &with_will(at, &topic))?.crash();
    assert_eq!(at.recv(&mut subscriber)?.text(), "gone");
    assert_eq!(at.received(&mut at.client()?, &mut subscriber)?, []);
    Ok(())
}

fn on_protocol_error(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut client = Client::connect(at.near(), &with_will(at, &topic))?;
    client.send(&[0xff, 0])?;
    at.assert_ends(client, &[0x81, 0x82])?;
    assert_eq!(at.recv(&mut subscriber)?.text(), "gone");
    Ok(())
}

fn on_takeover(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let options = with_will(at, &topic);
    let older = Client::connect(at.near(), &options)?;
    let _newer = Client::connect(at.far(), &Options { will: None, ..options })?;
    assert_eq!(at.recv(&mut subscriber)?.text(), "gone");
    at.assert_ends(older, &[0x8e])?;
    Ok(())
}

fn on_disconnect(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    Client::connect(at.near(), &with_will(at, &topic))?.disconnect()?;
    assert_eq!(at.received(&mut at.client()?, &mut subscriber)?, []);
    Ok(())
}

fn no_will(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let options = with_will(at, &topic);
    Client::connect(at.near(), &options)?.disconnect()?;
    let options = Options { will: None, ..options };
    Client::connect(at.near(), &options)?.crash();
    // The same id again: the connection before is over for the cluster too.
    Client::connect(at.near(), &options)?.disconnect()?;
    assert_eq!(at.received(&mut at.client()?, &mut subscriber)?, []);
    Ok(())
}

fn retain(at: &Site) -> Outcome {
    for retain in [false, true] {
        let topic = at.topic();
        let mut subscriber = at.subscriber(&topic, 1)?;
        let will = Will { retain, ..Will::new(&topic, "gone", 1) };
        Client::connect(at.near(), &at.options().will(will))?.crash();
        let live = at.recv(&mut subscriber)?;
        assert_eq!((live.text(), live.retain), ("gone".into(), false));
        let mut later = at.subscriber(&topic, 1)?;
        let stored = at.received(&mut at.client()?, &mut later)?;
        let stored: Vec<_> = stored.iter().map(|m| (m.text(), m.retain)).collect();
        let expected = if retain { vec![("gone".to_owned(), true)] } else { vec![] };
        assert_eq!(stored, expected);
        at.client()?.retain(&topic, "", 1)?;
    }
    Ok(())
}

fn content(at: &Site) -> Outcome {
    for qos in 0..=2 {
        for payload in ["", "\u{feff}é\0"] {
            let topic = at.topic();
            let mut subscriber = at.subscriber(&topic, 2)?;
            Client::connect(at.near(), &at.options().will(Will::new(&topic, payload, qos)))?.crash();
            let message = at.recv(&mut subscriber)?;
            assert_eq!((message.text().as_str(), message.qos, message.dup), (payload, qos, false));
        }
    }
    Ok(())
}

fn properties(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let user = |name: &str, value: &str| Prop::Pair(name.into(), value.into());
    let props = Props::default()
        .with(prop::PAYLOAD_FORMAT, Prop::Byte(1))
        .with(prop::CONTENT_TYPE, Prop::Str("text/plain".into()))
        .with(prop::RESPONSE_TOPIC, Prop::Str("answers/here".into()))
        .with(prop::CORRELATION_DATA, Prop::Bytes(vec![0, 255, 1]))
        .with(prop::USER_PROPERTY, user("z", "1"))
        .with(prop::USER_PROPERTY, user("a", "2"))
        .with(prop::USER_PROPERTY, user("z", "1"));
    let will = Will { props: props.clone(), ..Will::new(&topic, "gone", 1) };
    Client::connect(at.near(), &at.options().will(will))?.crash();
    let message = at.recv(&mut subscriber)?;
    for (id, value) in props.0.iter().filter(|(id, _)| *id != prop::USER_PROPERTY) {
        assert_eq!(message.props.get(*id), Some(value));
    }
    assert_eq!(message.props.user(), [("z", "1"), ("a", "2"), ("z", "1")]);
    Ok(())
}

fn on_disconnect_with_will(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut client = Client::connect(at.near(), &with_will(at, &topic))?;
    client.send(&disconnect(at.version, 0x04))?;
    assert_eq!(at.recv(&mut subscriber)?.text(), "gone");
    Ok(())
}

/// Asserts that the will comes between these two times after `since`.
fn assert_comes(at: &Site, subscriber: &mut Client, since: Instant, earliest_s: u64) -> Outcome {
    assert_eq!(at.recv(subscriber)?.text(), "gone");
    let earliest = Duration::from_secs(earliest_s);
    let took = since.elapsed();
    assert!(took >= earliest && took < earliest + LATE, "the will came after {took:?}, not {earliest:?}");
    Ok(())
}

fn delayed(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let options = delayed_by(at, &topic, 2, 60);
    let client = Client::connect(at.near(), &options)?;
    let since = Instant::now();
    client.crash();
    assert_comes(at, &mut subscriber, since, 2)?;
    at.forget(&options)?;
    Ok(())
}

fn delay_cut_by_expiry(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let client = Client::connect(at.near(), &delayed_by(at, &topic, 30, 1))?;
    let since = Instant::now();
    client.crash();
    assert_comes(at, &mut subscriber, since, 1)?;
    // Without an expiry the session ends with the connection.
    let client = Client::connect(at.near(), &delayed_by(at, &topic, 30, 0))?;
    let since = Instant::now();
    client.crash();
    assert_comes(at, &mut subscriber, since, 0)
}

fn back_in_time(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let options = delayed_by(at, &topic, 1, 60);
    Client::connect(at.near(), &options)?.crash();
    let back = Client::connect(at.far(), &Options { will: None, ..options.clone() })?;
    assert!(back.session_present);
    // A will with the same delay, made later, says when the first would have come at the latest.
    let witness = delayed_by(at, &topic, 2, 60);
    let witness =
        Options { will: witness.will.map(|w| Will { payload: b"witness".to_vec(), ..w }), ..witness };
    Client::connect(at.near(), &witness)?.crash();
    assert_eq!(at.recv(&mut subscriber)?.text(), "witness");
    back.disconnect()?;
    at.forget(&options)?;
    at.forget(&witness)?;
    Ok(())
}

fn taken_over_in_time(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let options = delayed_by(at, &topic, 1, 60);
    let older = Client::connect(at.near(), &options)?;
    let newer = Client::connect(at.far(), &Options { will: None, ..options.clone() })?;
    at.assert_ends(older, &[0x8e])?;
    let witness = delayed_by(at, &topic, 2, 60);
    let witness =
        Options { will: witness.will.map(|w| Will { payload: b"witness".to_vec(), ..w }), ..witness };
    Client::connect(at.near(), &witness)?.crash();
    assert_eq!(at.recv(&mut subscriber)?.text(), "witness");
    newer.disconnect()?;
    at.forget(&options)?;
    at.forget(&witness)?;
    Ok(())
}

fn clean_start_sends(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let options = delayed_by(at, &topic, 30, 60);
    Client::connect(at.near(), &options)?.crash();
    let since = Instant::now();
    at.forget(&options)?;
    assert_comes(at, &mut subscriber, since, 0)
}

fn expiry_zero_sends(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut client = Client::connect(at.near(), &delayed_by(at, &topic, 30, 60))?;
    let since = Instant::now();
    client.send(&[0xe0, 7, 0x04, 5, prop::SESSION_EXPIRY_S, 0, 0, 0, 0])?;
    assert_comes(at, &mut subscriber, since, 0)
}

fn expires(at: &Site) -> Outcome {
    let topic = at.topic();
    let expiry = Props::default().with(prop::MESSAGE_EXPIRY_S, Prop::U32(100));
    let mut subscriber = at.subscriber(&topic, 1)?;
    let will = Will { props: expiry, ..Will::new(&topic, "gone", 1) };
    Client::connect(at.near(), &at.options().will(will))?.crash();
    let left =
        at.recv(&mut subscriber)?.props.number(prop::MESSAGE_EXPIRY_S).expect("the rest of the expiry");
    assert!((95..=100).contains(&left), "{left} s");
    Ok(())
}

fn wildcard(at: &Site) -> Outcome {
    for topic in ["a/#", "+/b", "#", ""] {
        let mut client = at.open()?;
        client.send(&connect(&at.options().will(Will::new(topic, "x", 0))))?;
        match client.ending(Duration::from_secs(20))? {
            cluster_tests::mqtt::Error::Refused(code) if at.is_v5() => {
                assert!([0x81, 0x82, 0x90].contains(&code), "{topic:?}: {code:#04x}");
            }
            cluster_tests::mqtt::Error::Closed if !at.is_v5() => {}
            other => panic!("{topic:?}: {other}"),
        }
    }
    Ok(())
}

fn pipelined_disconnect(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let mut client = at.open()?;
    let mut bytes = connect(&with_will(at, &topic));
    bytes.extend_from_slice(&disconnect(at.version, 0));
    client.send(&bytes)?;
    client.await_connack()?;
    client.ending(Duration::from_secs(20))?;
    assert_eq!(at.received(&mut at.client()?, &mut subscriber)?, []);
    Ok(())
}

fn servers_topic(at: &Site) -> Outcome {
    for topic in ["$SYS", "$SYS/broker"] {
        let refused = Client::connect(at.near(), &with_will(at, topic));
        let expected = if at.is_v5() { 0x87 } else { 5 };
        assert!(matches!(refused, Err(Error::Refused(code)) if code == expected), "{topic}");
    }
    // Nobody else has a topic that begins with a dollar sign for himself.
    let topic = format!("$SYSTEM/{}", at.topic());
    let mut subscriber = at.subscriber(&topic, 1)?;
    Client::connect(at.near(), &with_will(at, &topic))?.crash();
    assert_eq!(at.recv(&mut subscriber)?.text(), "gone");
    Ok(())
}
