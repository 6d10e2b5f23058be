//! The order of messages.

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{AckKind, Client, Publish, publish};

use crate::messages::{both_sessions, expect_ack, message, next_ack, next_publish, texts};

pub const CASES: &[Case] = &[
    case("per publisher, topic and QoS the order is kept", order_is_kept)
        .v3(&["4.6.0-5", "4.6.0-6", "4.2.0-1", "7.1.1-1"])
        .v5(&["4.6.0-5", "4.6.0-6", "4.2-1", "7.1.1-1"]),
    case("retained and other messages of a topic stay in order, to every kind of session", mixed_ways)
        .v3(&["4.6.0-5", "4.6.0-6"])
        .v5(&["4.6.0-5", "4.6.0-6"]),
    case("acknowledgements come in the order of what they acknowledge", acknowledgements)
        .v3(&["4.6.0-2", "4.6.0-3"])
        .v5(&["4.6.0-2", "4.6.0-3"]),
    case("PUBRELs come in the order of the PUBRECs", releases).v3(&["4.6.0-4"]).v5(&["4.6.0-4"]),
    case("publishing without waiting for acknowledgements keeps order and number", pipelined)
        .v3(&["4.6.0-5", "4.6.0-6", "4.3.3-2"])
        .v5(&["4.6.0-5", "4.6.0-6", "4.3.3-11"]),
];

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

fn order_is_kept(at: &Site) -> Outcome {
    const COUNT: usize = 100;
    for qos in 0..=2 {
        let topic = at.topic();
        let mut subscriber = at.subscriber(&topic, qos)?;
        let mut publisher = at.client()?;
        for i in 0..COUNT {
            publisher.publish(&topic, i.to_string(), qos)?;
        }
        for i in 0..COUNT {
            let message = at.recv(&mut subscriber)?;
            assert_eq!((message.text(), message.qos), (i.to_string(), qos));
        }
    }
    Ok(())
}

fn mixed_ways(at: &Site) -> Outcome {
    const COUNT: usize = 60;
    for qos in 0..=2 {
        let kept = at.persistent();
        let topic = at.topic();
        let mut clean = at.subscriber(&topic, 2)?;
        let mut near = at.client()?;
        near.subscribe(&[(&topic, 2)])?;
        let mut publisher = at.client()?;
        for i in 0..COUNT {
            // Retained ones are for all nodes, the others for those with subscribers.
            let text = i.to_string();
            if i % 3 == 0 {
                publisher.retain(&topic, text, qos)?
            } else {
                publisher.publish(&topic, text, qos)?
            };
        }
        for subscriber in [&mut clean, &mut near] {
            for expected in numbers(COUNT) {
                assert_eq!(at.recv(subscriber)?.text(), expected, "QoS {qos}");
            }
        }
        let mut persistent = Client::connect(at.far(), &kept)?;
        persistent.subscribe(&[(&topic, 2)])?;
        assert_eq!(at.recv(&mut persistent)?.text(), (COUNT - 3).to_string(), "the retained one");
        for i in 0..COUNT {
            let text = i.to_string();
            if i % 3 == 1 {
                publisher.retain(&topic, text, qos)?
            } else {
                publisher.publish(&topic, text, qos)?
            };
        }
        for subscriber in [&mut clean, &mut near, &mut persistent] {
            for expected in numbers(COUNT) {
                assert_eq!(at.recv(subscriber)?.text(), expected, "QoS {qos}, second round");
            }
        }
        publisher.retain(&topic, "", 1)?;
        at.forget(&kept)?;
    }
    Ok(())
}

/// One write of many publishes, every third retained, at this QoS.
fn burst(at: &Site, topic: &str, qos: u8, ids: std::ops::RangeInclusive<u16>) -> Vec<u8> {
    let one =
        |id: u16| Publish { retain: id.is_multiple_of(3), ..message(topic, &(id - 1).to_string(), qos, id) };
    ids.flat_map(|id| publish(at.version, &one(id))).collect()
}

fn acknowledgements(at: &Site) -> Outcome {
    const COUNT: u16 = 60;
    let topic = at.topic();
    let _subscriber = at.subscriber(&topic, 2)?;
    for options in both_sessions(at) {
        let mut publisher = Client::connect(at.near(), &options)?;
        publisher.send(&burst(at, &topic, 1, 1..=COUNT))?;
        for id in 1..=COUNT {
            expect_ack(&mut publisher, AckKind::PubAck, id)?;
        }
        publisher.send(&burst(at, &topic, 2, 1..=COUNT))?;
        for id in 1..=COUNT {
            expect_ack(&mut publisher, AckKind::PubRec, id)?;
        }
        for id in 1..=COUNT {
            publisher.send_ack(AckKind::PubRel, id)?;
        }
        for id in 1..=COUNT {
            assert_eq!(expect_ack(&mut publisher, AckKind::PubComp, id)?, 0);
        }
        at.forget(&options)?;
    }
    at.client()?.retain(&topic, "", 1)?;
    Ok(())
}

fn releases(at: &Site) -> Outcome {
    const COUNT: usize = 40;
    for options in both_sessions(at) {
        let topic = at.topic();
        let mut subscriber = Client::connect(at.far(), &options)?;
        subscriber.auto_ack = false;
        subscriber.subscribe(&[(&topic, 2)])?;
        let mut publisher = at.client()?;
        for text in numbers(COUNT) {
            publisher.publish(&topic, text, 2)?;
        }
        let mut ids = Vec::new();
        for _ in 0..COUNT {
            ids.push(next_publish(&mut subscriber)?.id);
        }
        // Not that of the deliveries.
        ids.rotate_left(COUNT / 3);
        for id in &ids {
            subscriber.send_ack(AckKind::PubRec, *id)?;
        }
        for id in &ids {
            let release = next_ack(&mut subscriber)?;
            assert_eq!((release.kind, release.id), (AckKind::PubRel, *id));
        }
        at.forget(&options)?;
    }
    Ok(())
}

fn pipelined(at: &Site) -> Outcome {
    const COUNT: u16 = 200;
    for qos in 0..=2 {
        let kept = at.persistent();
        let topic = at.topic();
        let mut clean = at.subscriber(&topic, 2)?;
        let mut persistent = Client::connect(at.far(), &kept)?;
        persistent.subscribe(&[(&topic, 2)])?;
        let mut publisher = at.client()?;
        publisher.send(&burst(at, &topic, qos, 1..=COUNT))?;
        let answers = if qos == 0 { 0 } else { COUNT };
        let first = if qos == 1 { AckKind::PubAck } else { AckKind::PubRec };
        for id in 1..=answers {
            expect_ack(&mut publisher, first, id)?;
        }
        if qos == 2 {
            for id in 1..=COUNT {
                publisher.send_ack(AckKind::PubRel, id)?;
            }
            for id in 1..=COUNT {
                expect_ack(&mut publisher, AckKind::PubComp, id)?;
            }
        }
        for subscriber in [&mut clean, &mut persistent] {
            let got = at.received(&mut publisher, subscriber)?;
            assert_eq!(texts(&got), numbers(usize::from(COUNT)), "QoS {qos}");
        }
        publisher.retain(&topic, "", 1)?;
        at.forget(&kept)?;
    }
    Ok(())
}
