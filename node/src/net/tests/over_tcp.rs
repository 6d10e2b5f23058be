use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Running, start};
use crate::auth::Outcome;
use crate::env;
use crate::mqtt::{Connect, QoS, ReasonCode, SubOptions, SubscribeFilter, Version, encode};
use crate::net::{Bound, Kind, ListenerOptions};
use crate::session::testing::{FakeExchange, auth_bytes, encoded, packets, publish_bytes};
use crate::session::{Ended, Limits, Metric, Turn};

pub(super) fn dial(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address).expect("listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream.set_nodelay(true).expect("an option");
    stream
}

pub(super) fn connect(running: &Running, connect: &Connect<'_>) -> TcpStream {
    let mut stream = dial(running);
    write_connect(&mut stream, connect);
    assert_eq!(read_packets(&mut stream, 1, connect.version), ["CONNACK 00"]);
    stream
}

pub(super) fn write_connect(stream: &mut TcpStream, connect: &Connect<'_>) {
    stream.write_all(&encoded(|buf| encode::connect(buf, connect).expect("fits"))).expect("reads");
}

pub(super) fn v311(client_id: &str) -> Connect<'_> {
    Connect { client_id, ..Connect::new(Version::V311) }
}

pub(super) fn v5(client_id: &str) -> Connect<'_> {
    Connect { client_id, ..Connect::new(Version::V5) }
}

/// Reads exactly so many packets.
pub(super) fn read_packets(stream: &mut TcpStream, n: usize, version: Version) -> Vec<String> {
    let mut bytes = Vec::new();
    for _ in 0..n {
        let start = bytes.len();
        loop {
            let mut one = [0];
            stream.read_exact(&mut one).expect("a packet");
            bytes.push(one[0]);
            if let Some(len) = crate::mqtt::frame_len(&bytes[start..], u32::MAX).expect("valid") {
                let have = bytes.len();
                bytes.resize(start + len, 0);
                stream.read_exact(&mut bytes[have..]).expect("the rest");
                break;
            }
        }
    }
    packets(&bytes, version)
}

pub(super) fn read_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("a clean end");
    bytes
}

fn subscribe(stream: &mut TcpStream, version: Version, qos: QoS) {
    let filter = SubscribeFilter { filter: "#", options: SubOptions { qos, ..SubOptions::default() } };
    let bytes = encoded(|buf| encode::subscribe(buf, version, 1, 0, &[filter]).expect("fits"));
    stream.write_all(&bytes).expect("reads");
    assert_eq!(read_packets(stream, 1, version), ["SUBACK 1"]);
}

#[test]
fn from_publisher_to_subscriber_across_loops() {
    let running = start(Kind::Tcp, Limits::default(), 3);
    let mut subscriber = connect(&running, &v5("subscriber"));
    subscribe(&mut subscriber, Version::V5, QoS::ExactlyOnce);
    let mut publishers: Vec<_> = (0..6).map(|i| connect(&running, &v311(&format!("p{i}")))).collect();
    for (i, publisher) in publishers.iter_mut().enumerate() {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][i % 3];
        publisher.write_all(&publish_bytes(Version::V311, "t", b"x", qos, 9)).expect("reads");
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => assert_eq!(read_packets(publisher, 1, Version::V311), ["PUBACK 9 00"]),
            QoS::ExactlyOnce => assert_eq!(read_packets(publisher, 1, Version::V311), ["PUBREC 9 00"]),
        }
    }
    let mut got = read_packets(&mut subscriber, 6, Version::V5);
    got.sort();
    assert_eq!(got.iter().filter(|p| p.contains(" q0 ")).count(), 2);
    assert_eq!(got.iter().filter(|p| p.contains(" q1 ")).count(), 2);
    assert_eq!(got.iter().filter(|p| p.contains(" q2 ")).count(), 2);
    drop(publishers);
    running.until("all publishers end", |r| r.context.counters.get(Metric::Connections) == 1);
}

#[test]
fn forty_megabytes_to_a_reader_that_sleeps_first() {
    const COUNT: usize = 400;
    const SIZE: usize = 100_000;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let limits = Limits { outbox_max_bytes: 64 << 20, ..Limits::default() };
        let running = start(Kind::Tcp, limits, 2);
        running.service.quiet.store(true, Ordering::Relaxed);
        let mut subscriber = connect(&running, &v311("slow"));
        subscribe(&mut subscriber, Version::V311, qos);
        let publishers: Vec<_> = (0..2u8)
            .map(|p| {
                let mut stream = connect(&running, &v311(&format!("p{p}")));
                std::thread::spawn(move || {
                    for i in 0..COUNT / 2 {
                        let mut payload = vec![p; SIZE];
                        payload[..8].copy_from_slice(&(i as u64).to_be_bytes());
                        stream
                            .write_all(&publish_bytes(Version::V311, "t", &payload, qos, (i + 1) as u16))
                            .expect("reads");
                        if qos == QoS::AtLeastOnce {
                            assert_eq!(read_packets(&mut stream, 1, Version::V311).len(), 1);
                        }
                    }
                    stream
                })
            })
            .collect();
        running.until("everything is published", |r| r.service.published.load(Ordering::Relaxed) == COUNT);
        let mut next = [0u64; 2];
        let mut frame = Vec::new();
        for _ in 0..COUNT {
            let header = if qos == QoS::AtMostOnce { 7 } else { 9 };
            frame.resize(header + SIZE, 0);
            subscriber.read_exact(&mut frame).expect("a message");
            let publisher = usize::from(frame[header + 8]);
            let i = u64::from_be_bytes(frame[header..header + 8].try_into().expect("8 bytes"));
            assert_eq!(i, next[publisher], "in order, none lost, none twice");
            next[publisher] += 1;
            assert!(frame[header + 8..].iter().all(|b| usize::from(*b) == publisher));
        }
        for publisher in publishers {
            publisher.join().expect("published");
        }
    }
}

#[test]
fn taken_over_from_another_thread() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    let mut stream = connect(&running, &v5("c"));
    // Bytes that are not read any more must not turn the goodbye into a reset.
    running.service.conn().close(Ended::TakenOver, ReasonCode::SessionTakenOver);
    stream.write_all(&[0xC0, 0].repeat(100)).expect("not reset");
    assert_eq!(packets(&read_end(&mut stream), Version::V5), ["DISCONNECT 8e"]);
    running.until("the broker is told", |r| {
        r.service.calls.lock().last().is_some_and(|call| call == "ended TakenOver")
    });
    drop(stream);
    running.until("the socket is gone", |r| r.context.counters.get(Metric::Sockets) == 0);
}

#[test]
fn an_answer_from_another_thread() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    running.service.hold_connect.store(true, Ordering::Relaxed);
    let mut stream = dial(&running);
    let mut bytes = encoded(|buf| encode::connect(buf, &v311("c")).expect("fits"));
    bytes.extend([0xC0, 0]);
    stream.write_all(&bytes).expect("reads");
    running.until("the broker is asked", |r| !r.service.conns.lock().is_empty());
    // Sent while the connection is not read.
    stream.write_all(&[0xC0, 0]).expect("buffered");
    running.service.conn().accept(running.service.grant("c"));
    assert_eq!(read_packets(&mut stream, 3, Version::V311), ["CONNACK 00", "PINGRESP", "PINGRESP"]);
}

#[test]
fn an_answer_is_written_although_the_client_has_said_its_last_word() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    running.service.hold_connect.store(true, Ordering::Relaxed);
    let mut stream = dial(&running);
    let mut bytes = encoded(|buf| encode::connect(buf, &v311("c")).expect("fits"));
    bytes.extend([0xE0, 0]);
    stream.write_all(&bytes).expect("reads");
    stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
    running.until("the broker is asked", |r| !r.service.conns.lock().is_empty());
    // The thread that answers is slow to write; the loop has seen the end before.
    let turn = Turn::begin();
    running.service.conn().accept(running.service.grant("c"));
    running.until("the connection is over", |r| r.context.counters.get(Metric::Sockets) == 0);
    drop(turn);
    assert_eq!(packets(&read_end(&mut stream), Version::V311), ["CONNACK 00"]);
}

#[test]
fn authentications_answered_from_another_thread() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    let auth = |reason| auth_bytes(FakeExchange::METHOD, reason, "late");
    let asked = || {
        running.until("the broker is asked", |r| !r.service.verifying.lock().is_empty());
        running.service.verifying.lock().pop().expect("asked")
    };
    let mut stream = dial(&running);
    let method = Some(FakeExchange::METHOD);
    let first = Connect { auth_method: method, auth_data: Some(b"late"), ..v5("c") };
    stream.write_all(&encoded(|buf| encode::connect(buf, &first).expect("fits"))).expect("reads");
    let conn = asked();
    // Sent while the connection is not read.
    stream.write_all(&auth(ReasonCode::ContinueAuthentication)).expect("buffered");
    conn.authenticated(Outcome::Continue { data: b"now".to_vec(), exchange: Box::new(FakeExchange) });
    assert_eq!(read_packets(&mut stream, 1, Version::V5), ["AUTH 18 fake now"]);
    asked().authenticated(FakeExchange::success("ann"));
    assert_eq!(read_packets(&mut stream, 1, Version::V5), ["CONNACK 00 fake welcome"]);
    stream.write_all(&auth(ReasonCode::ReAuthenticate)).expect("reads");
    let conn = asked();
    stream.write_all(&[0xC0, 0]).expect("reads");
    assert_eq!(read_packets(&mut stream, 1, Version::V5), ["PINGRESP"]);
    conn.authenticated(FakeExchange::success("ann"));
    assert_eq!(read_packets(&mut stream, 1, Version::V5), ["AUTH 00 fake welcome"]);
    stream.write_all(&auth(ReasonCode::ReAuthenticate)).expect("reads");
    asked().authenticated(Outcome::Failure(FakeExchange::REFUSED));
    assert_eq!(packets(&read_end(&mut stream), Version::V5), ["DISCONNECT 87"]);
}

#[test]
fn a_client_that_vanishes_while_the_broker_thinks() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    running.service.hold_connect.store(true, Ordering::Relaxed);
    let mut stream = dial(&running);
    stream.write_all(&encoded(|buf| encode::connect(buf, &v311("c")).expect("fits"))).expect("reads");
    running.until("the broker is asked", |r| !r.service.conns.lock().is_empty());
    let conn = running.service.conn();
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).expect("an option");
    drop(stream); // A reset.
    running.until("the broker is told", |r| {
        r.service.calls.lock().last().is_some_and(|call| call == "ended Lost")
    });
    assert!(!conn.accept(running.service.grant("c")));
    running.until("nothing is left", |r| r.context.counters.get(Metric::Handshakes) == 0);
}

#[test]
fn real_time_outs() {
    let limits = Limits { connect_timeout_ms: 300, ..Limits::default() };
    let running = start(Kind::Tcp, limits, 1);
    let began = env::now();
    let mut silent = dial(&running);
    let mut pinger = connect(&running, &Connect { keep_alive_s: 1, ..v5("c") });
    assert!(read_end(&mut silent).is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
    let began = env::now();
    pinger.write_all(&[0xC0, 0]).expect("reads");
    assert_eq!(packets(&read_end(&mut pinger), Version::V5), ["PINGRESP", "DISCONNECT 8d"]);
    let elapsed = began.elapsed();
    assert!(elapsed >= Duration::from_millis(1495) && elapsed < Duration::from_secs(4), "{elapsed:?}");
}

/// A connection without keep-alive is looked at once a minute.
#[test]
fn a_reauthentication_that_does_not_go_on_ends_in_time() {
    let limits = Limits { connect_timeout_ms: 300, ..Limits::default() };
    let running = start(Kind::Tcp, limits, 1);
    let method = Some(FakeExchange::METHOD);
    let mut stream = dial(&running);
    let first = Connect { auth_method: method, auth_data: Some(b"i am ann"), ..v5("c") };
    stream.write_all(&encoded(|buf| encode::connect(buf, &first).expect("fits"))).expect("reads");
    assert_eq!(read_packets(&mut stream, 1, Version::V5), ["CONNACK 00 fake welcome"]);
    // Beyond the look that the CONNECT would have been due by.
    stream.set_read_timeout(Some(Duration::from_millis(400))).expect("a time-out");
    stream.read(&mut [0]).expect_err("nothing comes");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    let again = auth_bytes(FakeExchange::METHOD, ReasonCode::ReAuthenticate, "more");
    stream.write_all(&again).expect("reads");
    assert_eq!(packets(&read_end(&mut stream), Version::V5), ["AUTH 18 fake prove it", "DISCONNECT 87"]);
}

/// While a connection is not read, it has the time of one that does not take its answers.
#[test]
fn the_keep_alive_counts_again_when_the_connection_is_read_again() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    running.service.persistent.store(true, Ordering::Relaxed);
    let mut stream = connect(&running, &Connect { keep_alive_s: 1, ..v5("c") });
    running.service.hold_answers.store(true, Ordering::Relaxed);
    let filter = SubscribeFilter { filter: "f", options: SubOptions::default() };
    let mut bytes = encoded(|buf| encode::subscribe(buf, Version::V5, 1, 0, &[filter]).expect("fits"));
    bytes.extend(publish_bytes(Version::V5, "t", b"x", QoS::AtMostOnce, 0));
    stream.write_all(&bytes).expect("reads");
    running.until("the broker is asked", |r| {
        r.service.calls.lock().last().is_some_and(|call| call.starts_with("subscribe"))
    });
    running.service.conn().subscribed(1, &[ReasonCode::Success]);
    running.until("the publish follows", |r| r.service.published.load(Ordering::Relaxed) == 1);
    assert_eq!(packets(&read_end(&mut stream), Version::V5), ["SUBACK 1", "DISCONNECT 8d"]);
}

#[test]
fn too_many_handshakes() {
    let limits = Limits { handshakes_max: 2, ..Limits::default() };
    let running = start(Kind::Tcp, limits, 1);
    let waiting: Vec<_> = (0..2).map(|_| dial(&running)).collect();
    running.until("two are in", |r| r.context.counters.get(Metric::Handshakes) == 2);
    let mut third = dial(&running);
    assert!(!matches!(third.read(&mut [0]), Ok(1..)), "turned away");
    drop(waiting);
    running.until("they are gone", |r| r.context.counters.get(Metric::Handshakes) == 0);
    connect(&running, &v311("c"));
}

#[test]
fn many_connections_share_a_turn_fairly() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    running.service.quiet.store(true, Ordering::Relaxed);
    let mut flood = connect(&running, &v311("flood"));
    let mut modest = connect(&running, &v311("modest"));
    let bytes = publish_bytes(Version::V311, "t", &[0; 100], QoS::AtMostOnce, 0).repeat(10_000);
    let flooder = std::thread::spawn(move || {
        for _ in 0..20 {
            flood.write_all(&bytes).expect("reads");
        }
        flood
    });
    for _ in 0..100 {
        modest.write_all(&[0xC0, 0]).expect("reads");
        assert_eq!(read_packets(&mut modest, 1, Version::V311), ["PINGRESP"]);
    }
    flooder.join().expect("written");
    running.until("all was read", |r| r.service.published.load(Ordering::Relaxed) == 200_000);
}

#[test]
fn closing_all_and_draining() {
    // One loop, so that the first goodbye says that the rest are said.
    let running = start(Kind::Tcp, Limits::default(), 1);
    let mut first = connect(&running, &v5("a"));
    running.server.close_all(ReasonCode::ServerShuttingDown);
    assert_eq!(packets(&read_end(&mut first), Version::V5), ["DISCONNECT 8b"]);
    let mut second = connect(&running, &v5("b"));
    let mut stubborn = connect(&running, &v311("c"));
    let began = env::now();
    let drained = std::thread::scope(|scope| {
        let draining = scope.spawn(|| running.server.drain(Duration::from_secs(5)));
        assert_eq!(packets(&read_end(&mut second), Version::V5), ["DISCONNECT 8b"]);
        assert!(read_end(&mut stubborn).is_empty());
        draining.join()
    });
    drained.expect("drained");
    assert!(began.elapsed() < Duration::from_secs(4), "who does not close is cut off");
    assert_eq!(running.context.counters.get(Metric::Sockets), 0);
    assert_eq!(running.service.calls.lock().iter().filter(|call| **call == "ended Server").count(), 3);
    assert!(std::net::TcpStream::connect(running.address).is_err(), "nobody listens");
}

#[test]
fn a_taken_address_is_named_with_its_key() {
    let running = start(Kind::Tcp, Limits::default(), 2);
    let error = Bound::new(running.address, ListenerOptions::new(Kind::Tcp), "listeners.tcp.bind", 2)
        .expect_err("it is taken");
    let text = error.to_string();
    assert!(text.contains("listeners.tcp.bind") && text.contains(&running.address.to_string()), "{text}");
}

#[test]
fn bad_input_is_counted_by_its_reason() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    let mut stream = connect(&running, &v5("c"));
    stream.write_all(&[0x00, 0x00]).expect("reads");
    assert_eq!(packets(&read_end(&mut stream), Version::V5), ["DISCONNECT 81"]);
    assert_eq!(running.context.counters.protocol_errors().collect::<Vec<_>>(), [(0x81, 1)]);
}

#[test]
fn not_accepting_is_waiting() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    connect(&running, &v311("before"));
    running.server.set_accepting(false);
    running.until("the first is gone", |r| r.context.counters.get(Metric::Sockets) == 0);
    let mut stream = dial(&running);
    stream.write_all(&encoded(|buf| encode::connect(buf, &v311("c")).expect("fits"))).expect("buffered");
    running.server.set_accepting(true);
    assert_eq!(read_packets(&mut stream, 1, Version::V311), ["CONNACK 00"]);
}

#[test]
fn who_never_sends_connect_keeps_nobody_out() {
    let limits = Limits { handshakes_max: 8, ..Limits::default() };
    let running = start(Kind::Tcp, limits, 1);
    let mut first = connect(&running, &v311("first"));
    let mut silent: Vec<TcpStream> = (0..8).map(|_| dial(&running)).collect();
    running.until("all are half-open", |r| r.context.counters.get(Metric::Handshakes) == 8);
    let second = connect(&running, &v311("second"));
    // The oldest made room, and only that one.
    assert_eq!(read_end(&mut silent[0]), b"");
    assert_eq!(running.context.counters.get(Metric::SocketsRefused), 1);
    silent[1].write_all(&[0x10]).expect("still there");
    drop(second);
    first.write_all(&[0xC0, 0]).expect("still there");
    assert_eq!(read_packets(&mut first, 1, Version::V311), ["PINGRESP"]);
}
