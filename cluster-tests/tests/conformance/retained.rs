//! Retained messages.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{AckKind, Client, Options, Packet, Props, Publish, Result, publish, subscribe};
use cluster_tests::wait::eventually;

use crate::messages::{SOON, both_sessions, message, sent_so_far, texts};

pub const CASES: &[Case] = &[
    case("a retained message is kept with its QoS and goes to new subscriptions", kept_with_qos)
        .v3(&["3.3.1-5", "3.3.1-6", "3.3.1-8", "3.8.4-6"])
        .v5(&["3.3.1-5", "3.3.1-9", "3.8.4-8"]),
    case("a topic's last retained message is the one that counts", last_counts)
        .v3(&["3.3.1-5", "3.3.1-6", "3.3.1-7"])
        .v5(&["3.3.1-5"]),
    case("an empty retained message clears the topic and is delivered once", cleared)
        .v3(&["3.3.1-10", "3.3.1-11"])
        .v5(&["3.3.1-6", "3.3.1-7"]),
    case("what is not published as retained leaves the retained message alone", left_alone)
        .v3(&["3.3.1-12"])
        .v5(&["3.3.1-8"]),
    case("to those subscribed already a message is not marked as retained", not_marked)
        .v3(&["3.3.1-9"])
        .v5(&["3.3.1-12"]),
    case("retain as published keeps the mark as it was", as_published).v5(&["3.3.1-13"]),
    case("retain handling says which subscriptions get retained messages", handling)
        .v5(&["3.3.1-9", "3.3.1-10", "3.3.1-11"]),
    case("subscribing again sends retained messages again", again)
        .v3(&["3.8.4-3"])
        .v5(&["3.8.4-4", "3.3.1-9"]),
    case("a wildcard subscription gets the retained message of each matching topic", wildcards)
        .v3(&["3.3.1-6", "4.7.2-1"])
        .v5(&["3.3.1-9", "4.7.2-1"]),
    case("retained messages outlive the session that published them", outlive)
        .v3(&["3.1.2-7"])
        .v5(&["3.3.1-5", "4.1.0-2"]),
    case("the retained message comes before anything newer, which comes without a gap", before_newer)
        .v3(&["3.3.1-6", "3.3.1-9", "4.6.0-6"])
        .v5(&["3.3.1-9", "3.3.1-12", "4.6.0-5"]),
    case("SUBACK comes before the retained messages", after_suback)
        .v3(&["3.3.1-6", "3.8.4-1"])
        .v5(&["3.3.1-9", "3.8.4-1"]),
    case("what a client retains before it subscribes comes to it as retained", own_before)
        .v3(&["3.3.1-8"])
        .v5(&["3.3.1-9"]),
];

/// What a message says and how.
fn said(messages: &[Publish]) -> Vec<(String, u8, bool)> {
    messages.iter().map(|m| (m.text(), m.qos, m.retain)).collect()
}

/// Publishes a retained message that everybody sees who subscribes afterwards, whatever its QoS.
fn retain(at: &Site, publisher: &mut Client, topic: &str, payload: &str, qos: u8) -> Result<()> {
    publisher.retain(topic, payload, qos)?;
    if qos == 0 {
        // QoS 0 is not acknowledged, but what follows it is.
        publisher.retain(&at.topic(), "", 1)?;
    }
    Ok(())
}

/// What a new subscription gets, from a clean session at the far end.
fn seen(at: &Site, publisher: &mut Client, topic: &str) -> Result<Vec<Publish>> {
    let mut subscriber = at.subscriber(topic, 2)?;
    at.received(publisher, &mut subscriber)
}

fn kept_with_qos(at: &Site) -> Outcome {
    let mut publisher = at.client()?;
    for published in 0..=2 {
        let topic = at.topic();
        let text = published.to_string();
        retain(at, &mut publisher, &topic, &text, published)?;
        for granted in 0..=2 {
            for options in both_sessions(at) {
                let mut subscriber = Client::connect(at.far(), &options)?;
                assert_eq!(subscriber.subscribe(&[(&topic, granted)])?, [granted]);
                let got = at.received(&mut publisher, &mut subscriber)?;
                assert_eq!(said(&got), [(text.clone(), published.min(granted), true)]);
                at.forget(&options)?;
            }
        }
        retain(at, &mut publisher, &topic, "", 1)?;
    }
    Ok(())
}

fn last_counts(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut publisher = at.client()?;
    for (text, qos) in [("a", 0), ("b", 1), ("c", 2), ("d", 1), ("e", 0)] {
        retain(at, &mut publisher, &topic, text, qos)?;
        assert_eq!(said(&seen(at, &mut publisher, &topic)?), [(text.into(), qos, true)]);
    }
    // From the other end, too.
    at.far_client()?.retain(&topic, "f", 1)?;
    assert_eq!(said(&seen(at, &mut publisher, &topic)?), [("f".into(), 1, true)]);
    retain(at, &mut publisher, &topic, "", 1)?;
    Ok(())
}

fn cleared(at: &Site) -> Outcome {
    for qos in 0..=2 {
        let kept = at.persistent();
        let topic = at.topic();
        let mut publisher = at.client()?;
        retain(at, &mut publisher, &topic, "x", 1)?;
        let mut clean = at.subscriber(&topic, 2)?;
        let mut persistent = Client::connect(at.far(), &kept)?;
        persistent.subscribe(&[(&topic, 2)])?;
        retain(at, &mut publisher, &topic, "", qos)?;
        for subscriber in [&mut clean, &mut persistent] {
            let got = at.received(&mut publisher, subscriber)?;
            assert_eq!(said(&got), [("x".into(), 1, true), (String::new(), qos, false)]);
        }
        assert!(seen(at, &mut publisher, &topic)?.is_empty());
        // There is nothing to clear, and nothing changes.
        retain(at, &mut publisher, &topic, "", qos)?;
        assert!(seen(at, &mut publisher, &topic)?.is_empty());
        at.forget(&kept)?;
    }
    Ok(())
}

fn left_alone(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut publisher = at.client()?;
    for qos in 0..=2 {
        publisher.publish(&topic, "not kept", qos)?;
    }
    assert!(seen(at, &mut publisher, &topic)?.is_empty());
    retain(at, &mut publisher, &topic, "kept", 1)?;
    for qos in 0..=2 {
        publisher.publish(&topic, "not kept", qos)?;
        publisher.publish(&topic, "", qos)?;
    }
    assert_eq!(texts(&seen(at, &mut publisher, &topic)?), ["kept"]);
    retain(at, &mut publisher, &topic, "", 1)?;
    Ok(())
}

fn not_marked(at: &Site) -> Outcome {
    let topic = at.topic();
    let kept = at.persistent();
    let mut publisher = at.client()?;
    let mut clean = at.subscriber(&topic, 2)?;
    let mut persistent = Client::connect(at.far(), &kept)?;
    persistent.subscribe(&[(&topic, 2)])?;
    for qos in 0..=2 {
        publisher.retain(&topic, "x", qos)?;
        for subscriber in [&mut clean, &mut persistent] {
            assert_eq!(said(&[at.recv(subscriber)?]), [("x".into(), qos, false)]);
        }
    }
    retain(at, &mut publisher, &topic, "", 1)?;
    at.forget(&kept)?;
    Ok(())
}

/// Options of a subscription in 5.0.
const AS_PUBLISHED: u8 = 0x08;
const ONLY_IF_NEW: u8 = 0x10;
const NOT_AT_ALL: u8 = 0x20;

fn as_published(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut publisher = at.client()?;
        let mut subscriber = Client::connect(at.far(), &options)?;
        subscriber.subscribe(&[(&topic, 2 | AS_PUBLISHED)])?;
        for qos in 0..=2 {
            publisher.retain(&topic, "marked", qos)?;
            assert_eq!(said(&[at.recv(&mut subscriber)?]), [("marked".into(), qos, true)]);
            publisher.publish(&topic, "not marked", qos)?;
            assert_eq!(said(&[at.recv(&mut subscriber)?]), [("not marked".into(), qos, false)]);
        }
        retain(at, &mut publisher, &topic, "", 1)?;
        assert_eq!(said(&[at.recv(&mut subscriber)?]), [(String::new(), 1, true)]);
        at.forget(&options)?;
    }
    Ok(())
}

fn handling(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut publisher = at.client()?;
        retain(at, &mut publisher, &topic, "x", 1)?;
        let mut subscriber = Client::connect(at.far(), &options)?;
        let steps = [
            ("not at all", NOT_AT_ALL, 0),
            ("only if new, when it is not", ONLY_IF_NEW, 0),
            ("always, when it is not new", 0, 1),
            ("another QoS, which is not new", ONLY_IF_NEW, 0),
        ];
        for (round, (what, handling, expected)) in steps.into_iter().enumerate() {
            subscriber.subscribe(&[(&topic, handling | (round % 3) as u8)])?;
            let got = at.received(&mut publisher, &mut subscriber)?;
            assert_eq!(got.len(), expected, "{what}");
        }
        for (what, handling, expected) in [("only if new", ONLY_IF_NEW, 1), ("always", 0, 1)] {
            subscriber.unsubscribe(&[&topic])?;
            subscriber.subscribe(&[(&topic, 1 | handling)])?;
            let got = at.received(&mut publisher, &mut subscriber)?;
            assert_eq!(got.len(), expected, "{what}, of a new subscription");
            assert!(got.iter().all(|m| m.retain));
        }
        if !options.clean_start {
            // The session's subscriptions are not new to it.
            subscriber.disconnect()?;
            let mut resumed = Client::connect(at.near(), &options)?;
            assert!(resumed.session_present);
            assert!(at.received(&mut publisher, &mut resumed)?.is_empty(), "resumed");
            resumed.subscribe(&[(&topic, 1 | ONLY_IF_NEW)])?;
            assert!(at.received(&mut publisher, &mut resumed)?.is_empty(), "only if new, when resumed");
        }
        retain(at, &mut publisher, &topic, "", 1)?;
        at.forget(&options)?;
    }
    Ok(())
}

fn again(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut publisher = at.client()?;
        retain(at, &mut publisher, &topic, "x", 2)?;
        let mut subscriber = Client::connect(at.far(), &options)?;
        for qos in [0, 1, 2, 1] {
            subscriber.subscribe(&[(&topic, qos)])?;
            let got = at.received(&mut publisher, &mut subscriber)?;
            assert_eq!(said(&got), [("x".into(), qos, true)]);
        }
        // Twice in one SUBSCRIBE is as in two.
        subscriber.subscribe(&[(&topic, 1), (&topic, 1)])?;
        assert_eq!(texts(&at.received(&mut publisher, &mut subscriber)?), ["x", "x"]);
        retain(at, &mut publisher, &topic, "", 1)?;
        at.forget(&options)?;
    }
    Ok(())
}

fn wildcards(at: &Site) -> Outcome {
    let root = at.topic();
    let mut publisher = at.client()?;
    let below = ["", "/a", "/b", "/a/c", "//c", "/$x"];
    for name in below {
        retain(at, &mut publisher, &format!("{root}{name}"), &format!("at{name}"), 1)?;
    }
    let hidden = format!("$hidden/{root}");
    retain(at, &mut publisher, &hidden, "hidden", 1)?;
    let cases: [(String, &[&str]); 6] = [
        (format!("{root}/#"), &["at", "at/$x", "at//c", "at/a", "at/a/c", "at/b"]),
        (format!("{root}/+"), &["at/$x", "at/a", "at/b"]),
        (format!("{root}/+/c"), &["at//c", "at/a/c"]),
        (format!("{root}/a"), &["at/a"]),
        (format!("+/{root}"), &[]),
        (format!("$hidden/{root}/#"), &["hidden"]),
    ];
    for (filter, expected) in cases {
        for options in both_sessions(at) {
            let mut subscriber = Client::connect(at.far(), &options)?;
            subscriber.subscribe(&[(&filter, 1)])?;
            let mut got = texts(&at.received(&mut publisher, &mut subscriber)?);
            got.sort();
            assert_eq!(got, expected, "{filter}");
            at.forget(&options)?;
        }
    }
    for name in below {
        publisher.retain(&format!("{root}{name}"), "", 1)?;
    }
    retain(at, &mut publisher, &hidden, "", 1)?;
    Ok(())
}

fn outlive(at: &Site) -> Outcome {
    let topics = [at.topic(), at.topic()];
    for (options, topic) in both_sessions(at).iter().zip(&topics) {
        let mut publisher = Client::connect(at.near(), options)?;
        retain(at, &mut publisher, topic, "x", 1)?;
        publisher.disconnect()?;
        at.forget(&Options { clean_start: true, ..options.clone() })?;
    }
    let mut publisher = at.client()?;
    for topic in &topics {
        assert_eq!(texts(&seen(at, &mut publisher, topic)?), ["x"]);
        retain(at, &mut publisher, topic, "", 1)?;
    }
    Ok(())
}

fn before_newer(at: &Site) -> Outcome {
    const COUNT: usize = 100;
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut publisher = at.client()?;
        retain(at, &mut publisher, &topic, "0", 1)?;
        let mut subscriber = Client::connect(at.far(), &options)?;
        let published = AtomicUsize::new(0);
        let got = thread::scope(|scope| {
            let publishing = scope.spawn(|| {
                for i in 1..=COUNT {
                    publisher.retain(&topic, i.to_string(), 1)?;
                    published.store(i, Ordering::Relaxed);
                }
                Result::Ok(())
            });
            let some = || (published.load(Ordering::Relaxed) >= COUNT / 4).then_some(());
            eventually("some are published", SOON, some);
            subscriber.subscribe(&[(&topic, 1)])?;
            let mut got = Vec::new();
            while got.last().is_none_or(|m: &Publish| m.text() != COUNT.to_string()) {
                got.push(at.recv(&mut subscriber)?);
            }
            publishing.join().expect("the publisher does not panic")?;
            Result::Ok(got)
        })?;
        assert!(got[0].retain, "the first is the retained one: {:?}", texts(&got));
        let first: usize = got[0].text().parse()?;
        for (expected, got) in (first + 1..).zip(&got[1..]) {
            assert_eq!((got.text(), got.retain), (expected.to_string(), false));
        }
        retain(at, &mut publisher, &topic, "", 1)?;
        at.forget(&options)?;
    }
    Ok(())
}

fn own_before(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        for qos in 0..=2 {
            let topic = at.topic();
            let mut client = Client::connect(at.near(), &options)?;
            // In one breath: QoS 0 is not acknowledged, and the rest need not be waited for.
            let retained = Publish { retain: true, ..message(&topic, "x", qos, 1) };
            let mut bytes = publish(at.version, &retained);
            bytes.extend(subscribe(at.version, 2, &[(&topic, 0)], &Props::default()));
            client.send(&bytes)?;
            let mut got = Vec::new();
            // SUBACK, the acknowledgement if there is one, and the message.
            for _ in 0..2 + qos.min(1) {
                if let Packet::Publish(message) = client.packet(SOON)? {
                    got.push(message);
                }
            }
            assert_eq!(said(&got), [("x".into(), 0, true)], "QoS {qos}");
            assert_eq!(sent_so_far(&mut client)?, [], "once");
            if qos == 2 {
                client.send_ack(AckKind::PubRel, 1)?;
                client.await_ack(AckKind::PubComp, 1)?;
            }
            at.client()?.retain(&topic, "", 1)?;
            client.disconnect()?;
            at.forget(&options)?;
        }
    }
    Ok(())
}

fn after_suback(at: &Site) -> Outcome {
    let mut publisher = at.client()?;
    for qos in 0..=2 {
        let topic = at.topic();
        retain(at, &mut publisher, &topic, "x", 2)?;
        // The filter is new to the cluster, then known to it.
        let mut clients = Vec::new();
        for options in [both_sessions(at), both_sessions(at)].as_flattened() {
            let mut client = Client::connect(at.far(), options)?;
            client.send(&subscribe(at.version, 1, &[(&topic, qos)], &Props::default()))?;
            let first = client.packet(SOON)?;
            assert!(matches!(first, Packet::SubAck { id: 1, .. }), "QoS {qos}: {first:?}");
            assert!(matches!(client.packet(SOON)?, Packet::Publish(message) if message.retain));
            clients.push((client, options.clone()));
        }
        for (client, options) in clients {
            client.disconnect()?;
            at.forget(&options)?;
        }
        retain(at, &mut publisher, &topic, "", 1)?;
    }
    Ok(())
}
