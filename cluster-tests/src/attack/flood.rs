//! Clients that send more, or take less, than anybody should.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::crowd::{has_ended, push};
use super::{Crowd, Plan};
use crate::mqtt::{AckKind, Packet};
use crate::mqtt::{Client, Error, Options, Props, Publish, Version, ack, connect, publish, subscribe};
use crate::wait;

const ANSWERS: Duration = Duration::from_secs(20);
const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;

fn message(topic: &str, payload: Vec<u8>, qos: u8, id: u16) -> Publish {
    Publish { topic: topic.into(), payload, qos, retain: false, dup: false, id, props: Props::default() }
}

/// Retained messages on distinct topics, cleared again.
///
/// # Panics
/// When one is not acknowledged, or one is left.
pub fn retained(plan: &Plan) {
    let count = plan.size(4_000, 100_000);
    let left = plan.metric("rookery_retained_messages");
    let mut client = Client::connect(plan.mqtt, &Options::v5(&crate::fresh("attack-ret"))).expect("connects");
    for payload in [vec![b'r'; 200], vec![]] {
        let topics: Vec<usize> = (0..count).collect();
        for some in topics.chunks(500) {
            for i in some {
                let id = (i % 60_000 + 1) as u16;
                let retained =
                    Publish { retain: true, ..message(&format!("attack/r/{i}"), payload.clone(), 1, id) };
                client.send_publish(&retained).expect("sent");
            }
            for _ in some {
                client.next_puback(ANSWERS).expect("acknowledged");
            }
        }
        // Somebody asks for all of them in the middle of it.
        let mut curious =
            Client::connect(plan.mqtt, &Options::v5(&crate::fresh("attack-cur"))).expect("connects");
        curious.subscribe(&[("attack/+/nothing/#", 0), ("+/+/+/+", 0)]).expect("an answer");
    }
    wait::eventually("retained messages are cleared", ANSWERS, || {
        (plan.metric("rookery_retained_messages") <= left).then_some(())
    });
}

/// Three publishers at full speed, for so long, into subscribers that read nothing (`#`) or little.
///
/// # Panics
/// When the publishers are cut off.
pub fn into_the_deaf(plan: &Plan, lasting: Duration) {
    let filters = plan.metric("rookery_local_filters");
    let mut deaf = Crowd::default();
    for (i, qos) in [0, 1, 2].into_iter().enumerate() {
        let stream = deaf.open(plan.mqtt).expect("a connection");
        let options = Options::v311(&format!("attack-deaf-{i}")).keep_alive_s(0);
        let hello = [connect(&options), subscribe(Version::V311, 1, &[("#", qos)], &Props::default())];
        assert!(push(stream, &hello.concat()), "sent");
    }
    wait::eventually("the deaf are subscribed", ANSWERS, || {
        (plan.metric("rookery_local_filters") > filters).then_some(())
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for publisher in 0..3 {
            let stop = &stop;
            scope.spawn(move || shout(plan, publisher, stop));
        }
        let mut slow =
            Client::connect(plan.mqtt, &Options::v5(&crate::fresh("attack-slow"))).expect("connects");
        slow.subscribe(&[("attack/flood/#", 1)]).expect("an answer");
        let end = Instant::now() + lasting;
        while Instant::now() < end {
            // One message every 10 ms of the thousands that come.
            slow.recv(ANSWERS).expect("a slow subscriber gets some");
            wait::pause();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Publishes as fast as the socket takes it, alternating QoS 0 and 1.
fn shout(plan: &Plan, publisher: usize, stop: &AtomicBool) {
    let topic = format!("attack/flood/{publisher}");
    let mut client =
        Client::connect(plan.mqtt, &Options::v311(&crate::fresh("attack-pub"))).expect("connects");
    let (small, large) = (vec![b's'; 20], vec![b'l'; 1_000]);
    let mut burst = Vec::new();
    for i in 0..200_u16 {
        let payload = if i % 4 == 0 { &large } else { &small };
        let qos = u8::from(i % 10 == 0);
        burst.extend(publish(Version::V311, &message(&topic, payload.clone(), qos, i + 1)));
    }
    while !stop.load(Ordering::Relaxed) {
        client.send(&burst).expect("a publisher is not cut off");
        for _ in 0..20 {
            client.next_puback(ANSWERS).expect("a publisher is acknowledged");
        }
    }
}

/// QoS 2 publishes that are never released, beyond the Receive Maximum.
///
/// # Panics
/// When the broker puts up with it.
pub fn never_released(plan: &Plan) {
    for _ in 0..plan.size(5, 200) {
        let mut client =
            Client::connect(plan.mqtt, &Options::v5(&crate::fresh("attack-rel"))).expect("connects");
        let mut burst = Vec::new();
        for id in 1..=5_000 {
            burst.extend(publish(Version::V5, &message("attack/q2", vec![b'x'; 10], 2, id)));
        }
        // It may be ended before all is sent.
        let _ = client.send(&burst);
        let ended = client.ending(ANSWERS);
        assert!(
            matches!(ended, Ok(Error::Disconnected(RECEIVE_MAXIMUM_EXCEEDED) | Error::Closed)),
            "{ended:?}"
        );
    }
    // 3.1.1 has no Receive Maximum: all 65,535 ids may be open.
    let mut client =
        Client::connect(plan.mqtt, &Options::v311(&crate::fresh("attack-rel"))).expect("connects");
    for id in 1..=u16::MAX {
        client.send_publish(&message("attack/q2", vec![b'x'], 2, id)).expect("sent");
        client.await_ack(AckKind::PubRec, id).expect("an answer");
        if usize::from(id) > plan.size(3_000, 65_535) {
            break;
        }
    }
}

/// Acknowledgements of deliveries and publishes that nobody knows of.
///
/// # Panics
/// When the client is not served afterwards, or told why it is not.
pub fn unknown_acks(plan: &Plan) {
    for persistent in [false, true] {
        let options = Options::v311(&crate::fresh("attack-ack"));
        let options = if persistent { options.persistent() } else { options };
        for kind in [AckKind::PubRel, AckKind::PubAck, AckKind::PubRec, AckKind::PubComp] {
            let mut client = Client::connect(plan.mqtt, &options).expect("connects");
            client.auto_ack = false;
            let burst: Vec<u8> = (1..=1_000).flat_map(|id| ack(kind, id)).collect();
            for _ in 0..plan.size(5, 100) {
                if client.send(&burst).is_err() {
                    break;
                }
                let answered = matches!(kind, AckKind::PubRel | AckKind::PubRec);
                for _ in 0..if answered { 1_000 } else { 0 } {
                    match client.packet(ANSWERS) {
                        Ok(Packet::Ack(_)) => {}
                        Err(Error::Closed) => break,
                        other => panic!("{kind:?} of an unknown id: {other:?}"),
                    }
                }
            }
        }
        let last = Client::connect(plan.mqtt, &Options { clean_start: true, ..options }).expect("let in");
        last.disconnect().expect("leaves");
    }
}

/// A million PINGREQs, answers not read before the end.
///
/// # Panics
/// When the client is cut off although it reads in the end.
pub fn pings(plan: &Plan) {
    let pings = plan.size(200_000, 1_000_000);
    let mut crowd = Crowd::default();
    let stream = crowd.open(plan.mqtt).expect("a connection");
    assert!(push(stream, &connect(&Options::v311(&crate::fresh("attack-ping")))), "sent");
    let burst = [0xc0, 0].repeat(2_000);
    let (mut sent, mut offset, deadline) = (0, 0, Instant::now() + Duration::from_secs(120));
    while sent < 2 * pings {
        assert!(Instant::now() < deadline, "{sent} bytes of PINGREQ in two minutes");
        match std::io::Write::write(stream, &burst[offset..]) {
            Ok(written) => {
                sent += written;
                offset = (offset + written) % burst.len();
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(!has_ended(stream), "cut off after {sent} bytes of PINGREQ");
                wait::pause();
            }
            Err(e) => panic!("cut off after {sent} bytes of PINGREQ: {e}"),
        }
    }
}
