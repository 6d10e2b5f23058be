//! The handshakes of QoS 1 and 2, in both directions and across connections.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{
    Ack, AckKind, Client, Error, Options, Packet, Prop, Props, Publish, prop, subscribe,
};

use crate::messages::{SOON, ack_with, both_sessions, expect_ack, message, next_publish, sent_so_far, texts};

pub const CASES: &[Case] = &[
    case("a message arrives at the lower of the published and the granted QoS", lower_qos)
        .v3(&["3.8.4-6", "4.3.1-1", "3.3.1-2", "2.3.1-5"])
        .v5(&["3.8.4-8", "4.3.1-1", "3.3.1-2", "2.2.1-2"]),
    case("overlapping subscriptions get one copy at the highest of their QoS", overlapping)
        .v3(&["3.3.5-1"])
        .v5(&["3.3.4-2", "3.3.4-3", "3.3.4-4"]),
    case("each delivery has a packet id that no open one has", packet_ids)
        .v3(&["2.3.1-4", "4.3.2-1", "4.3.3-1"])
        .v5(&["2.2.1-4", "4.3.2-1", "4.3.2-2", "4.3.3-1", "4.3.3-2"]),
    case("as sender of QoS 2 the broker releases what was received and does not send it again", releases)
        .v3(&["4.3.3-1", "2.3.1-6"])
        .v5(&["4.3.3-4", "4.3.3-6", "2.2.1-5", "3.6.2-1"]),
    case("as receiver of QoS 2 the broker passes a message on once until it is released", receives_once)
        .v3(&["4.3.3-2"])
        .v5(&["4.3.3-8", "4.3.3-10", "4.3.3-11", "4.3.3-12"]),
    case("a kept session's QoS 2 publish is finished on another connection", publisher_resumes)
        .v3(&["4.3.3-2", "4.4.0-1", "3.1.2-4"])
        .v5(&["4.3.3-10", "4.3.3-11", "4.3.3-12", "4.1.0-1", "3.1.2-5"]),
    case("with a clean start an unfinished QoS 2 publish is forgotten", clean_start_forgets)
        .v3(&["3.1.2-6"])
        .v5(&["3.1.2-4"]),
    case("a kept session's open deliveries are sent again when it is resumed", subscriber_resumes)
        .v3(&["4.4.0-1", "4.6.0-1", "3.3.1-1", "4.3.2-1", "4.3.3-1"])
        .v5(&["4.4.0-1", "4.6.0-1", "3.3.1-1", "4.3.2-3", "4.3.3-3", "4.3.3-5", "4.3.3-6", "4.1.0-1"]),
    case("nothing is sent again as long as the connection lasts", not_before_resuming)
        .v3(&["4.4.0-1"])
        .v5(&["4.4.0-1"]),
    case("with a clean start open deliveries are gone", clean_start_drops).v3(&["3.1.2-6"]).v5(&["3.1.2-4"]),
    case("an error code in PUBACK or PUBREC ends a delivery", refused_deliveries).v5(&["4.4.0-2"]),
    case("a bridge may say that nobody is subscribed behind it", nobody_behind).v5(&["4.3.3-4"]),
    case("a QoS 2 handshake is finished although the message has expired", expired_handshake)
        .v5(&["4.3.3-7", "4.3.3-13"]),
];

fn lower_qos(at: &Site) -> Outcome {
    for granted in 0..=2 {
        let topic = at.topic();
        let kept = at.persistent();
        let mut clean = at.subscriber(&topic, granted)?;
        let mut persistent = Client::connect(at.far(), &kept)?;
        persistent.subscribe(&[(&topic, granted)])?;
        for options in both_sessions(at) {
            let mut publisher = Client::connect(at.near(), &options)?;
            for published in 0..=2 {
                let text = format!("{published} to {granted}");
                publisher.publish(&topic, &text, published)?;
                for subscriber in [&mut clean, &mut persistent] {
                    let got = at.recv(subscriber)?;
                    assert_eq!((got.text(), got.qos, got.dup), (text.clone(), published.min(granted), false));
                }
            }
            at.forget(&options)?;
        }
        at.forget(&kept)?;
    }
    Ok(())
}

fn overlapping(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut subscriber = Client::connect(at.far(), &options)?;
        let filters = [(format!("{topic}/a"), 0), (format!("{topic}/+"), 2), (format!("{topic}/#"), 1)];
        for (number, (filter, qos)) in filters.iter().enumerate() {
            let id = subscriber.take_id();
            let props = match number {
                // The third has no identifier.
                0 | 1 if at.is_v5() => {
                    Props::default().with(prop::SUBSCRIPTION_ID, Prop::Varint(number as u32 + 200))
                }
                _ => Props::default(),
            };
            subscriber.send(&subscribe(at.version, id, &[(filter, *qos)], &props))?;
            assert_eq!(subscriber.await_suback(id)?, [*qos]);
        }
        let mut publisher = at.client()?;
        for qos in 0..=2 {
            publisher.publish(&filters[0].0, "x", qos)?;
            let got = at.received(&mut publisher, &mut subscriber)?;
            assert_eq!(got.len(), 1, "copies at QoS {qos}");
            assert_eq!(got[0].qos, qos);
            let mut ids = got[0].props.numbers(prop::SUBSCRIPTION_ID);
            ids.sort_unstable();
            assert_eq!(ids, if at.is_v5() { vec![200, 201] } else { vec![] });
        }
        at.forget(&options)?;
    }
    Ok(())
}

fn packet_ids(at: &Site) -> Outcome {
    const COUNT: usize = 20;
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut subscriber = Client::connect(at.far(), &options)?;
        subscriber.auto_ack = false;
        subscriber.subscribe(&[(&topic, 2)])?;
        let mut publisher = at.client()?;
        let mut open = BTreeSet::new();
        for round in 0..3 {
            for i in 0..COUNT {
                publisher.publish(&topic, i.to_string(), 1 + (i % 2) as u8)?;
            }
            let mut fresh = Vec::new();
            for _ in 0..COUNT {
                let got = next_publish(&mut subscriber)?;
                assert!(!got.dup, "a first PUBLISH, round {round}");
                assert!(open.insert(got.id), "id {} is in use", got.id);
                fresh.push(got);
            }
            // Every other one stays open.
            for got in fresh.iter().step_by(4) {
                assert_eq!(got.qos, fresh[0].qos);
                let (kind, last) = match got.qos {
                    1 => (AckKind::PubAck, None),
                    _ => (AckKind::PubRec, Some(AckKind::PubComp)),
                };
                subscriber.send_ack(kind, got.id)?;
                if let Some(last) = last {
                    expect_ack(&mut subscriber, AckKind::PubRel, got.id)?;
                    subscriber.send_ack(last, got.id)?;
                }
                open.remove(&got.id);
            }
        }
        at.forget(&options)?;
    }
    Ok(())
}

fn releases(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut subscriber = Client::connect(at.far(), &options)?;
        subscriber.auto_ack = false;
        subscriber.subscribe(&[(&topic, 2)])?;
        at.client()?.publish(&topic, "x", 2)?;
        let got = next_publish(&mut subscriber)?;
        assert_eq!((got.qos, got.dup), (2, false));
        for _ in 0..2 {
            subscriber.send_ack(AckKind::PubRec, got.id)?;
            assert_eq!(expect_ack(&mut subscriber, AckKind::PubRel, got.id)?, 0);
        }
        subscriber.send_ack(AckKind::PubComp, got.id)?;
        assert_eq!(sent_so_far(&mut subscriber)?, []);
        // It is over: the id means nothing now.
        subscriber.send_ack(AckKind::PubRec, got.id)?;
        let code = expect_ack(&mut subscriber, AckKind::PubRel, got.id)?;
        assert_eq!(code, if at.is_v5() { 0x92 } else { 0 });
        at.forget(&options)?;
    }
    Ok(())
}

/// Sends PUBLISH at QoS 2 and takes the PUBREC, which is no error.
#[track_caller]
fn half(publisher: &mut Client, message: &Publish) -> Outcome {
    publisher.send_publish(message)?;
    assert!(expect_ack(publisher, AckKind::PubRec, message.id)? < 0x80);
    Ok(())
}

/// The other half.
#[track_caller]
fn release(publisher: &mut Client, id: u16) -> Outcome {
    publisher.send_ack(AckKind::PubRel, id)?;
    assert_eq!(expect_ack(publisher, AckKind::PubComp, id)?, 0);
    Ok(())
}

fn receives_once(at: &Site) -> Outcome {
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut subscriber = at.subscriber(&topic, 2)?;
        let mut publisher = Client::connect(at.near(), &options)?;
        let first = message(&topic, "first", 2, 7);
        half(&mut publisher, &first)?;
        half(&mut publisher, &Publish { dup: true, ..first.clone() })?;
        // Not even DUP and the same content: the id is what counts.
        half(&mut publisher, &message(&topic, "not first", 2, 7))?;
        half(&mut publisher, &message(&topic, "other", 2, 8))?;
        release(&mut publisher, 7)?;
        release(&mut publisher, 8)?;
        half(&mut publisher, &first)?;
        release(&mut publisher, 7)?;
        let got = texts(&at.received(&mut publisher, &mut subscriber)?);
        assert_eq!(got, ["first", "other", "first"]);
        at.forget(&options)?;
    }
    Ok(())
}

fn publisher_resumes(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 2)?;
    let options = at.persistent();
    let once = message(&topic, "once", 2, 7);
    let repeat = Publish { dup: true, ..once.clone() };

    let mut publisher = Client::connect(at.near(), &options)?;
    half(&mut publisher, &once)?;
    publisher.crash();

    // As if PUBREC had been lost, on another node.
    let mut publisher = Client::connect(at.far(), &options)?;
    half(&mut publisher, &repeat)?;
    publisher.crash();

    let mut publisher = Client::connect(at.near(), &options)?;
    release(&mut publisher, 7)?;
    publisher.crash();

    // As if PUBCOMP had been lost.
    let mut publisher = Client::connect(at.far(), &options)?;
    publisher.send_ack(AckKind::PubRel, 7)?;
    expect_ack(&mut publisher, AckKind::PubComp, 7)?;
    half(&mut publisher, &message(&topic, "twice", 2, 7))?;
    release(&mut publisher, 7)?;

    // Whether or not the PUBLISH got through before the connection broke.
    publisher.send_publish(&message(&topic, "thrice", 2, 7))?;
    publisher.crash();
    let mut publisher = Client::connect(at.near(), &options)?;
    half(&mut publisher, &Publish { dup: true, ..message(&topic, "thrice", 2, 7) })?;
    release(&mut publisher, 7)?;

    let got = texts(&at.received(&mut publisher, &mut subscriber)?);
    assert_eq!(got, ["once", "twice", "thrice"]);
    at.forget(&options)?;
    Ok(())
}

fn clean_start_forgets(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 2)?;
    for options in both_sessions(at) {
        let clean = Options { clean_start: true, ..options.clone() };
        for payload in ["first", "second"] {
            let mut publisher = Client::connect(at.near(), &clean)?;
            half(&mut publisher, &message(&topic, payload, 2, 7))?;
            publisher.crash();
        }
        at.forget(&options)?;
    }
    let got = texts(&at.received(&mut at.client()?, &mut subscriber)?);
    assert_eq!(got, ["first", "second", "first", "second"]);
    Ok(())
}

fn subscriber_resumes(at: &Site) -> Outcome {
    let options = at.persistent();
    let topic = at.topic();
    let mut subscriber = Client::connect(at.far(), &options)?;
    subscriber.auto_ack = false;
    subscriber.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    let mut open = Vec::new();
    for (payload, qos) in [("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 2), ("f", 1)] {
        publisher.publish(&topic, payload, qos)?;
        let got = next_publish(&mut subscriber)?;
        assert_eq!((got.text().as_str(), got.qos, got.dup), (payload, qos, false));
        open.push(got);
    }
    // c and e are finished, d is received. PUBREL of d says that what came before it is known
    // to the cluster.
    subscriber.send_ack(AckKind::PubAck, open[2].id)?;
    subscriber.send_ack(AckKind::PubRec, open[4].id)?;
    expect_ack(&mut subscriber, AckKind::PubRel, open[4].id)?;
    subscriber.send_ack(AckKind::PubComp, open[4].id)?;
    subscriber.send_ack(AckKind::PubRec, open[3].id)?;
    expect_ack(&mut subscriber, AckKind::PubRel, open[3].id)?;
    subscriber.crash();

    // Twice, since nothing is acknowledged the first time.
    for transport in [at.near(), at.far()] {
        let mut resumed = Client::connect(transport, &options)?;
        resumed.auto_ack = false;
        let (mut publishes, mut releases) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            match resumed.packet(SOON)? {
                Packet::Publish(got) => publishes.push(got),
                Packet::Ack(Ack { kind: AckKind::PubRel, id, .. }) => releases.push(id),
                other => return Err(format!("{other:?}").into()),
            }
        }
        let expected: Vec<Publish> =
            [0, 1, 5].map(|i: usize| Publish { dup: true, ..open[i].clone() }).into();
        assert_eq!(publishes, expected, "in their order, with their ids");
        assert_eq!(releases, [open[3].id]);
        assert_eq!(sent_so_far(&mut resumed)?, [], "and nothing else");
        resumed.crash();
    }

    let mut resumed = Client::connect(at.near(), &options)?;
    resumed.send_ack(AckKind::PubComp, open[3].id)?;
    let got = [at.recv(&mut resumed)?, at.recv(&mut resumed)?, at.recv(&mut resumed)?];
    assert_eq!(texts(&got), ["a", "b", "f"]);
    // Its PUBREL, which follows the record of all acknowledgements before it.
    publisher.publish(&topic, "g", 2)?;
    assert_eq!(at.recv(&mut resumed)?.text(), "g");
    while !resumed.received.is_empty() {
        assert!(resumed.quiet()?);
    }
    resumed.crash();
    let mut resumed = Client::connect(at.far(), &options)?;
    assert!(resumed.quiet()?, "all is delivered");
    at.forget(&options)?;
    Ok(())
}

fn not_before_resuming(at: &Site) -> Outcome {
    let mut subscribers = Vec::new();
    let [clean, kept] = both_sessions(at);
    for options in [&clean, &kept] {
        let topic = at.topic();
        let mut subscriber = Client::connect(at.far(), options)?;
        subscriber.auto_ack = false;
        subscriber.subscribe(&[(&topic, 2)])?;
        let mut publisher = at.client()?;
        for qos in [1, 2, 2] {
            publisher.publish(&topic, "x", qos)?;
        }
        let got = [(); 3].map(|()| next_publish(&mut subscriber));
        for got in got {
            let got = got?;
            if got.qos == 2 && !got.dup {
                subscriber.send_ack(AckKind::PubRec, got.id)?;
                expect_ack(&mut subscriber, AckKind::PubRel, got.id)?;
            }
        }
        subscribers.push(subscriber);
    }
    // Longer than any of the timers that old clients had for this.
    for mut subscriber in subscribers {
        match subscriber.packet(Duration::from_secs(3)) {
            Err(Error::Timeout) => {}
            other => return Err(format!("sent on the same connection: {other:?}").into()),
        }
    }
    at.forget(&kept)?;
    Ok(())
}

fn clean_start_drops(at: &Site) -> Outcome {
    let options = at.persistent();
    let topic = at.topic();
    let mut subscriber = Client::connect(at.far(), &options)?;
    subscriber.auto_ack = false;
    subscriber.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    for qos in [1, 2, 2] {
        publisher.publish(&topic, "x", qos)?;
    }
    for qos in [1, 2] {
        let got = next_publish(&mut subscriber)?;
        assert_eq!(got.qos, qos);
        if qos == 2 {
            subscriber.send_ack(AckKind::PubRec, got.id)?;
        }
    }
    subscriber.crash();
    let clean = Options { clean_start: true, ..options.clone() };
    let mut fresh = Client::connect(at.near(), &clean)?;
    assert!(!fresh.session_present);
    assert_eq!(sent_so_far(&mut fresh)?, []);
    assert!(at.received(&mut publisher, &mut fresh)?.is_empty());
    at.forget(&options)?;
    Ok(())
}

fn refused_deliveries(at: &Site) -> Outcome {
    let options = at.persistent();
    let topic = at.topic();
    let mut subscriber = Client::connect(at.far(), &options)?;
    subscriber.auto_ack = false;
    subscriber.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    let mut ids = Vec::new();
    for qos in [1, 2, 2] {
        publisher.publish(&topic, "x", qos)?;
        ids.push(next_publish(&mut subscriber)?.id);
    }
    subscriber.send(&ack_with(AckKind::PubAck, ids[0], 0x80))?;
    subscriber.send(&ack_with(AckKind::PubRec, ids[1], 0x97))?;
    subscriber.send_ack(AckKind::PubRec, ids[2])?;
    // No PUBREL for the second. When the third's comes, the others are known to the cluster.
    expect_ack(&mut subscriber, AckKind::PubRel, ids[2])?;
    subscriber.crash();
    let mut resumed = Client::connect(at.near(), &options)?;
    expect_ack(&mut resumed, AckKind::PubRel, ids[2])?;
    resumed.send_ack(AckKind::PubComp, ids[2])?;
    assert_eq!(sent_so_far(&mut resumed)?, []);
    at.forget(&options)?;
    Ok(())
}

fn nobody_behind(at: &Site) -> Outcome {
    const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    let mut publisher = at.client()?;
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut bridge = Client::connect(at.far(), &options)?;
        bridge.auto_ack = false;
        bridge.subscribe(&[(&topic, 2)])?;
        publisher.publish(&topic, "x", 1)?;
        let id = next_publish(&mut bridge)?.id;
        bridge.send(&ack_with(AckKind::PubAck, id, NO_MATCHING_SUBSCRIBERS))?;
        publisher.publish(&topic, "y", 2)?;
        let id = next_publish(&mut bridge)?.id;
        bridge.send(&ack_with(AckKind::PubRec, id, NO_MATCHING_SUBSCRIBERS))?;
        expect_ack(&mut bridge, AckKind::PubRel, id)?;
        bridge.send_ack(AckKind::PubComp, id)?;
        bridge.ping()?;
        at.forget(&options)?;
    }
    Ok(())
}

fn expired_handshake(at: &Site) -> Outcome {
    const PASSED: Duration = Duration::from_millis(2500);
    let options = at.persistent();
    let topic = at.topic();
    let mut subscriber = Client::connect(at.far(), &options)?;
    subscriber.auto_ack = false;
    subscriber.subscribe(&[(&topic, 2)])?;
    let mut publisher = at.client()?;
    let props = Props::default().with(prop::MESSAGE_EXPIRY_S, Prop::U32(1));
    half(&mut publisher, &Publish { props, ..message(&topic, "x", 2, 7) })?;
    let got = next_publish(&mut subscriber)?;
    cluster_tests::wait::pass(PASSED);
    release(&mut publisher, 7)?;
    subscriber.crash();

    let mut resumed = Client::connect(at.near(), &options)?;
    resumed.auto_ack = false;
    let again = next_publish(&mut resumed)?;
    assert_eq!((again.id, again.dup, again.text()), (got.id, true, "x".into()));
    resumed.send_ack(AckKind::PubRec, got.id)?;
    expect_ack(&mut resumed, AckKind::PubRel, got.id)?;
    resumed.send_ack(AckKind::PubComp, got.id)?;
    assert_eq!(sent_so_far(&mut resumed)?, []);
    at.forget(&options)?;
    Ok(())
}
