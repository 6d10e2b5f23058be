//! Sessions: what outlives a connection and what does not, and whose it is.

use std::time::{Duration, Instant};

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Client, Error, Options, Prop, Props, Version, connect, prop};
use cluster_tests::wait::eventually;

use crate::messages::{SOON, texts};

pub const CASES: &[Case] = &[
    case("a kept session is resumed with its subscriptions, on any node", resumed)
        .v3(&["3.1.2-4", "3.2.2-2", "3.2.2-3", "4.1.0-1", "3.1.3-2", "3.1.4-3"])
        .v5(&["3.1.2-5", "3.1.2-6", "3.1.2-23", "3.2.2-3", "4.1.0-1", "3.1.3-2", "3.1.4-4"]),
    case("QoS 1 and 2 wait for a session whose client is away", queued)
        .v3(&["3.1.2-5", "4.5.0-1"])
        .v5(&["4.5.0-1", "3.1.2-23"]),
    case("a clean start throws the session away", clean_start)
        .v3(&["3.1.2-6", "3.2.2-1", "3.1.4-3"])
        .v5(&["3.1.2-4", "3.2.2-2", "3.1.4-4"]),
    case("a clean session ends with its connection", clean_session_ends)
        .v3(&["3.1.2-6", "4.1.0-2"])
        .v5(&["4.1.0-2", "3.1.2-6"]),
    case("a session lasts as long as its connection", lasts).v3(&["4.1.0-2", "4.1.0-1"]).v5(&["4.1.0-1"]),
    case("retained messages survive the session that sent them", retained_survive)
        .v3(&["3.1.2-7"])
        .v5(&["3.3.1-5"]),
    case("the same id again ends the older connection", takeover)
        .v3(&["3.1.4-2"])
        .v5(&["3.1.4-3", "3.14.2-1", "3.14.2-2", "3.14.4-1", "3.14.4-2", "4.13.2-1"]),
    case("takeover hands the kept session over", takeover_keeps)
        .v3(&["3.1.4-2", "3.1.2-4"])
        .v5(&["3.1.4-3", "3.1.2-5"]),
    case("a session expires when its interval is over, not before", expires).v5(&["4.1.0-2", "3.1.2-23"]),
    case("being connected stops the expiry", connection_stops_expiry).v5(&["4.1.0-1"]),
    case("DISCONNECT may shorten the expiry", shortened).v5(&["4.1.0-2"]),
    case("DISCONNECT may lengthen the expiry", lengthened).v5(&["3.1.2-23"]),
    case("DISCONNECT may not give a session of none an expiry", no_expiry_from_none).v5(&["4.13.1-1"]),
    case("a session resumed without an expiry is whole until its connection ends", resumed_to_end)
        .v5(&["3.1.2-5", "4.1.0-1", "4.5.0-1", "3.8.4-3", "3.10.4-1"]),
    case("an id is compared byte by byte", ids_are_exact).v3(&["3.1.3-2"]).v5(&["3.1.3-2"]),
];

/// Whether 3.1 could tell: it has no session present.
fn tells(at: &Site) -> bool {
    at.version != Version::V31
}

#[track_caller]
fn assert_present(at: &Site, client: &Client, expected: bool) {
    if tells(at) {
        assert_eq!(client.session_present, expected, "session present");
    }
}

fn resumed(at: &Site) -> Outcome {
    let (options, topic) = (at.persistent(), at.topic());
    let mut client = Client::connect(at.near(), &options)?;
    assert_present(at, &client, false);
    client.subscribe(&[(&topic, 1)])?;
    client.disconnect()?;
    let mut client = Client::connect(at.far(), &options)?;
    assert_present(at, &client, true);
    at.client()?.publish(&topic, "still", 1)?;
    assert_eq!(at.recv(&mut client)?.text(), "still");
    client.crash();
    // A break keeps it as DISCONNECT does.
    let client = Client::connect(at.near(), &options)?;
    assert_present(at, &client, true);
    client.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn queued(at: &Site) -> Outcome {
    let (options, topic) = (at.persistent(), at.topic());
    let mut client = Client::connect(at.far(), &options)?;
    client.subscribe(&[(&topic, 2)])?;
    client.disconnect()?;
    let mut publisher = at.client()?;
    for (i, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        publisher.publish(&topic, i.to_string(), qos)?;
    }
    let mut client = Client::connect(at.near(), &options)?;
    for (i, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        let message = at.recv(&mut client)?;
        assert_eq!((message.text(), message.qos, message.retain), (i.to_string(), qos, false));
    }
    assert_eq!(at.received(&mut publisher, &mut client)?, []);
    client.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn clean_start(at: &Site) -> Outcome {
    let (options, topic) = (at.persistent(), at.topic());
    let mut client = Client::connect(at.near(), &options)?;
    client.subscribe(&[(&topic, 1)])?;
    client.disconnect()?;
    at.client()?.publish(&topic, "for the old session", 1)?;
    let clean = Options { clean_start: true, ..options.clone() };
    let mut client = Client::connect(at.far(), &clean)?;
    assert_present(at, &client, false);
    let mut publisher = at.client()?;
    publisher.publish(&topic, "for no subscription", 1)?;
    assert_eq!(at.received(&mut publisher, &mut client)?, []);
    client.disconnect()?;
    let client = Client::connect(at.near(), &options)?;
    // Clean Start says nothing about the end in 5.0; a clean session of 3.x keeps nothing.
    assert_present(at, &client, at.is_v5());
    client.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn clean_session_ends(at: &Site) -> Outcome {
    let (options, topic) = (at.options(), at.topic());
    let mut client = Client::connect(at.near(), &options)?;
    client.subscribe(&[(&topic, 1)])?;
    client.disconnect()?;
    at.client()?.publish(&topic, "for nobody", 1)?;
    let mut client = Client::connect(at.near(), &Options { clean_start: false, ..options.clone() })?;
    assert_present(at, &client, false);
    assert_eq!(at.received(&mut at.client()?, &mut client)?, []);
    client.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

fn lasts(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut client = Client::connect(at.near(), &at.options())?;
    client.subscribe(&[(&topic, 1)])?;
    let mut publisher = at.far_client()?;
    for i in 0..20 {
        publisher.publish(&topic, i.to_string(), 1)?;
        assert_eq!(at.recv(&mut client)?.text(), i.to_string());
    }
    Ok(())
}

fn retained_survive(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut publisher = at.client()?;
    publisher.retain(&topic, "kept", 1)?;
    publisher.disconnect()?;
    let mut subscriber = at.subscriber(&topic, 1)?;
    assert_eq!(at.recv(&mut subscriber)?.text(), "kept");
    at.client()?.retain(&topic, "", 1)?;
    Ok(())
}

fn takeover(at: &Site) -> Outcome {
    let options = at.options();
    let mut older = Client::connect(at.near(), &options)?;
    let mut newer = Client::connect(at.far(), &options)?;
    assert!(!newer.session_present);
    if at.is_v5() {
        let packet = older.packet(SOON)?;
        let cluster_tests::mqtt::Packet::Disconnect { code: 0x8e, props } = packet else {
            panic!("{packet:?} for a takeover");
        };
        assert_eq!(props.get(prop::SESSION_EXPIRY_S), None);
    }
    assert!(matches!(older.ending(SOON)?, Error::Closed));
    newer.ping()?;
    Ok(())
}

fn takeover_keeps(at: &Site) -> Outcome {
    let (options, topic) = (at.persistent(), at.topic());
    let mut older = Client::connect(at.near(), &options)?;
    older.subscribe(&[(&topic, 1)])?;
    older.auto_ack = false;
    let mut publisher = at.client()?;
    publisher.publish(&topic, "open", 1)?;
    let first = at.recv(&mut older)?;
    let mut newer = Client::connect(at.far(), &options)?;
    assert_present(at, &newer, true);
    let again = at.recv(&mut newer)?;
    assert_eq!((again.text(), again.id, again.dup), (first.text(), first.id, true));
    at.assert_ends(older, &[0x8e])?;
    newer.disconnect()?;
    at.forget(&options)?;
    Ok(())
}

/// Whether a session with this id is there; looking creates none.
fn exists(at: &Site, id: &str) -> Result<bool, Error> {
    let mut look = Options::new(at.version, id);
    look.clean_start = false;
    // Keeps what is there as it is: the connection is given up with a long expiry.
    look.props = Props::default().with(prop::SESSION_EXPIRY_S, Prop::U32(60));
    let client = Client::connect(at.near(), &look)?;
    let present = client.session_present;
    client.disconnect()?;
    at.forget(&look)?;
    Ok(present)
}

fn expires(at: &Site) -> Outcome {
    // Looking at a session would renew it, so each look has a session of its own.
    let (early, late) = (at.expiring(4), at.expiring(1));
    Client::connect(at.near(), &early)?.disconnect()?;
    let mut client = Client::connect(at.near(), &late)?;
    let topic = at.topic();
    client.subscribe(&[(&topic, 1)])?;
    // The interval begins before the end of the connection can be seen.
    let since = Instant::now();
    client.disconnect()?;
    let mut publisher = at.client()?;
    // 0x10 says that nobody's session is subscribed any more.
    eventually("the session expires", SOON, || {
        (publisher.publish(&topic, "x", 1).expect("a publish") == 0x10).then_some(())
    });
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "expired after {took:?}");
    assert!(exists(at, &early.client_id)?, "an hour is not over");
    assert!(!exists(at, &late.client_id)?);
    Ok(())
}

fn connection_stops_expiry(at: &Site) -> Outcome {
    let (options, topic, witness) = (at.expiring(1), at.topic(), at.topic());
    Client::connect(at.near(), &options)?.crash();
    let mut back = Client::connect(at.far(), &options)?;
    assert!(back.session_present);
    back.subscribe(&[(&topic, 1)])?;
    // Another session with the same expiry says when this one's would have been over.
    let mut other = Client::connect(at.near(), &at.expiring(1))?;
    other.subscribe(&[(&witness, 1)])?;
    other.disconnect()?;
    let mut publisher = at.client()?;
    eventually("the other session expires", SOON, || {
        (publisher.publish(&witness, "x", 1).expect("a publish") == 0x10).then_some(())
    });
    assert_eq!(publisher.publish(&topic, "still here", 1)?, 0);
    assert_eq!(at.recv(&mut back)?.text(), "still here");
    Ok(())
}

/// DISCONNECT 0x00 with this Session Expiry Interval.
fn leave_with_expiry(mut client: Client, expiry_s: u32) -> Result<(), Error> {
    let mut bytes = vec![0xe0, 7, 0, 5, prop::SESSION_EXPIRY_S];
    bytes.extend_from_slice(&expiry_s.to_be_bytes());
    client.send(&bytes)?;
    match client.ending(SOON)? {
        Error::Closed => Ok(()),
        other => Err(other),
    }
}

fn shortened(at: &Site) -> Outcome {
    let options = at.expiring(3600);
    leave_with_expiry(Client::connect(at.near(), &options)?, 0)?;
    assert!(!exists(at, &options.client_id)?);
    Ok(())
}

fn lengthened(at: &Site) -> Outcome {
    let (options, witness) = (at.expiring(1), at.topic());
    leave_with_expiry(Client::connect(at.near(), &options)?, 3600)?;
    let mut other = Client::connect(at.near(), &at.expiring(1))?;
    other.subscribe(&[(&witness, 1)])?;
    other.disconnect()?;
    let mut publisher = at.client()?;
    eventually("the other session expires", SOON, || {
        (publisher.publish(&witness, "x", 1).expect("a publish") == 0x10).then_some(())
    });
    assert!(exists(at, &options.client_id)?);
    Ok(())
}

fn no_expiry_from_none(at: &Site) -> Outcome {
    let mut client = at.client()?;
    client.send(&[0xe0, 7, 0, 5, prop::SESSION_EXPIRY_S, 0, 0, 0, 9])?;
    at.assert_ends(client, &[0x82])?;
    // None to none is no change.
    leave_with_expiry(at.client()?, 0)?;
    Ok(())
}

fn ids_are_exact(at: &Site) -> Outcome {
    let options = at.options();
    let mut clients = Vec::new();
    for id in ["", "A", "a", " ", "é", "e\u{301}", "/", "#", "+", "$", "\u{feff}"] {
        let id = format!("{}{id}", options.client_id);
        let mut client = at.open()?;
        client.send(&connect(&Options { client_id: id, ..options.clone() }))?;
        client.await_connack()?;
        clients.push(client);
    }
    for client in &mut clients {
        client.ping()?;
    }
    Ok(())
}

fn resumed_to_end(at: &Site) -> Outcome {
    let (kept, mut publisher) = (at.persistent(), at.client()?);
    let ending = Options { props: Props::default(), ..kept.clone() };
    for qos in 1..=2 {
        let (topic, other) = (at.topic(), at.topic());
        let mut client = Client::connect(at.far(), &kept)?;
        client.subscribe(&[(&topic, qos), (&other, qos)])?;
        client.disconnect()?;
        publisher.publish(&topic, "while away", qos)?;
        let mut client = Client::connect(at.far(), &ending)?;
        assert!(client.session_present);
        publisher.publish(&topic, "now", qos)?;
        assert_eq!(texts(&at.received(&mut publisher, &mut client)?), ["while away", "now"]);
        // What it subscribes to again is the same subscription, and what it gives up is gone.
        assert_eq!(client.subscribe(&[(&topic, 0)])?, [0]);
        assert_eq!(client.unsubscribe(&[&other])?, [0]);
        publisher.publish(&topic, "once", qos)?;
        publisher.publish(&other, "not wanted", qos)?;
        let got = at.received(&mut publisher, &mut client)?;
        assert_eq!(got.iter().map(|m| (m.text(), m.qos)).collect::<Vec<_>>(), [("once".into(), 0)]);
        // Its own publishes at QoS 2 are remembered like those of any other.
        client.publish(&at.topic(), "x", 2)?;
        client.disconnect()?;
        let again = Client::connect(at.near(), &kept)?;
        assert!(!again.session_present, "it has ended");
        again.disconnect()?;
        at.forget(&kept)?;
    }
    Ok(())
}
