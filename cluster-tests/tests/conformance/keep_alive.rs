//! Keep-alive and PING.

use std::time::{Duration, Instant};

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Client, Error, Packet, Will, prop};
use cluster_tests::wait::eventually;

use crate::messages::SOON;

pub const CASES: &[Case] = &[
    case("silence for one and a half keep-alives ends the connection, as a break does", silence)
        .v3(&["3.1.2-24"])
        .v5(&["3.1.2-22", "3.2.2-22"]),
    case("any packet counts as a sign of life", any_packet).v3(&["3.1.2-24"]).v5(&["3.1.2-22"]),
    case("messages to the client are no sign of its life", deliveries_do_not_count)
        .v3(&["3.1.2-24"])
        .v5(&["3.1.2-22"]),
    case("a keep-alive of 0 is none in 3.x", none).v3(&["3.1.2-24"]),
    case("Server Keep Alive is announced when it is not the client's, and only then", server_keep_alive)
        .v5(&["3.2.2-22", "3.2.2-8"]),
    case("PINGREQ gets PINGRESP", ping).v3(&["3.12.4-1"]).v5(&["3.12.4-1"]),
];

fn silence(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 1)?;
    let options = at.options().keep_alive_s(1).will(Will::new(&topic, "gone", 1));
    let mut client = Client::connect(at.near(), &options)?;
    let since = Instant::now();
    match client.ending(SOON)? {
        Error::Disconnected(0x8d) if at.is_v5() => {}
        Error::Closed if !at.is_v5() => {}
        other => panic!("ended otherwise: {other}"),
    }
    let took = since.elapsed();
    // The last packet was a moment before the CONNACK came.
    let (least, most) = (Duration::from_millis(1_300), Duration::from_millis(2_500));
    assert!(took > least && took < most, "closed after {took:?}");
    assert_eq!(at.recv(&mut subscriber)?.text(), "gone");
    Ok(())
}

fn any_packet(at: &Site) -> Outcome {
    let mut client = Client::connect(at.near(), &at.options().keep_alive_s(1))?;
    let topic = at.topic();
    let begin = Instant::now();
    let mut last = begin;
    let mut turn = 0;
    eventually("three keep-alives go by", SOON, || {
        if last.elapsed() > Duration::from_millis(700) {
            last = Instant::now();
            turn += 1;
            let sent = match turn % 3 {
                0 => client.ping().map(drop),
                1 => client.publish(&topic, "x", 0).map(drop),
                _ => client.subscribe(&[(&topic, 0)]).map(drop),
            };
            sent.expect("the connection is alive");
        }
        (begin.elapsed() > Duration::from_secs(3)).then_some(())
    });
    client.ping()?;
    Ok(())
}

fn deliveries_do_not_count(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut client = Client::connect(at.far(), &at.options().keep_alive_s(1))?;
    client.subscribe(&[(&topic, 0)])?;
    let mut publisher = at.client()?;
    let since = Instant::now();
    let ended = loop {
        publisher.publish(&topic, "x", 0)?;
        match client.packet(Duration::from_millis(300)) {
            Ok(Packet::Publish(_)) | Err(Error::Timeout) => {}
            Ok(Packet::Disconnect { code, .. }) => break Error::Disconnected(code),
            Ok(other) => panic!("{other:?}"),
            Err(ended) => break ended,
        }
        assert!(since.elapsed() < SOON, "the silent client stays");
    };
    let as_expected = if at.is_v5() { Error::Disconnected(0x8d) } else { Error::Closed };
    assert_eq!(ended.to_string(), as_expected.to_string());
    Ok(())
}

fn none(at: &Site) -> Outcome {
    let mut client = Client::connect(at.near(), &at.options().keep_alive_s(0))?;
    // Another's end says that time has passed.
    let mut witness = Client::connect(at.near(), &at.options().keep_alive_s(1))?;
    witness.ending(SOON)?;
    client.ping()?;
    Ok(())
}

fn server_keep_alive(at: &Site) -> Outcome {
    // The nodes grant at most 600 s.
    for (asked_s, told_s) in [(0, Some(600)), (601, Some(600)), (600, None), (5, None)] {
        let client = Client::connect(at.near(), &at.options().keep_alive_s(asked_s))?;
        assert_eq!(client.granted.number(prop::SERVER_KEEP_ALIVE_S), told_s, "for {asked_s} s");
    }
    Ok(())
}

fn ping(at: &Site) -> Outcome {
    let mut client = at.client()?;
    client.send(&[0xc0, 0].repeat(100))?;
    for _ in 0..100 {
        assert_eq!(client.packet(SOON)?, Packet::PingResp);
    }
    Ok(())
}
