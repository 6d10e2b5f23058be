use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Running, start_with};
use crate::mqtt::{Connect, QoS, ReasonCode, SubOptions, SubscribeFilter, Version, encode};
use crate::net::{Acceptor, Kind, TlsFiles};
use crate::session::testing::{encoded, packets, publish_bytes};
use crate::session::{Limits, Metric};

type Client = StreamOwned<ClientConnection, TcpStream>;

/// A server with a certificate of its own, and what makes a client believe it.
struct Encrypted {
    running: Running,
    trust: Arc<ClientConfig>,
}

fn start(limits: Limits, loops: usize) -> Encrypted {
    let dir = tempfile::tempdir().expect("a directory");
    let (acceptor, certificate) = acceptor(dir.path());
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let trust = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Encrypted { running: start_with(Kind::Tcp, limits, loops, Some(acceptor)), trust: Arc::new(trust) }
}

fn acceptor(dir: &Path) -> (Arc<Acceptor>, CertificateDer<'static>) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        Some(path)
    };
    let files = TlsFiles {
        section: "listeners.tls",
        cert_file: write("cert", own.cert.pem()),
        key_file: write("key", own.signing_key.serialize_pem()),
        ca_file: None,
        crl_file: None,
        require_client_cert: false,
    };
    (Acceptor::load(files, Kind::Tcp).expect("good files"), own.cert.der().clone())
}

impl Encrypted {
    fn connect(&self, connect: &Connect<'_>) -> Client {
        let stream = TcpStream::connect(self.running.address).expect("listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        stream.set_nodelay(true).expect("an option");
        let address = self.running.address.ip().into();
        let tls = ClientConnection::new(self.trust.clone(), address).expect("a client");
        let mut client = StreamOwned::new(tls, stream);
        send(&mut client, &encoded(|buf| encode::connect(buf, connect).expect("fits")));
        assert_eq!(read_packets(&mut client, 1, connect.version), ["CONNACK 00"]);
        client
    }

    fn subscriber(&self, qos: QoS) -> Client {
        let mut client = self.connect(&v5("subscriber"));
        let filter = SubscribeFilter { filter: "#", options: SubOptions { qos, ..SubOptions::default() } };
        send(
            &mut client,
            &encoded(|buf| encode::subscribe(buf, Version::V5, 1, 0, &[filter]).expect("fits")),
        );
        assert_eq!(read_packets(&mut client, 1, Version::V5), ["SUBACK 1"]);
        client
    }
}

fn v5(client_id: &str) -> Connect<'_> {
    Connect { client_id, ..Connect::new(Version::V5) }
}

fn send(client: &mut Client, bytes: &[u8]) {
    client.write_all(bytes).expect("reads");
    client.flush().expect("reads");
}

/// Reads exactly so many packets.
fn read_packets(client: &mut Client, n: usize, version: Version) -> Vec<String> {
    let mut bytes = Vec::new();
    for _ in 0..n {
        let start = bytes.len();
        loop {
            let mut one = [0];
            client.read_exact(&mut one).expect("a packet");
            bytes.push(one[0]);
            if let Some(len) = crate::mqtt::frame_len(&bytes[start..], u32::MAX).expect("valid") {
                let have = bytes.len();
                bytes.resize(start + len, 0);
                client.read_exact(&mut bytes[have..]).expect("the rest");
                break;
            }
        }
    }
    packets(&bytes, version)
}

#[test]
fn publishers_of_other_loops_leave_the_writing_to_the_owner() {
    const PUBLISHERS: u8 = 6;
    const COUNT: usize = 40;
    const SIZE: usize = 50_000;
    let limits = Limits { outbox_max_bytes: 64 << 20, ..Limits::default() };
    let encrypted = start(limits, 3);
    encrypted.running.service.quiet.store(true, Ordering::Relaxed);
    let mut subscriber = encrypted.subscriber(QoS::AtMostOnce);
    let encrypted = &encrypted;
    std::thread::scope(|scope| {
        for p in 0..PUBLISHERS {
            scope.spawn(move || {
                let mut client = encrypted.connect(&v5(&format!("p{p}")));
                for i in 0..COUNT {
                    let mut payload = vec![p; SIZE];
                    payload[0] = i as u8;
                    send(&mut client, &publish_bytes(Version::V5, "t", &payload, QoS::AtMostOnce, 0));
                }
                send(&mut client, &[0xC0, 0]);
                assert_eq!(read_packets(&mut client, 1, Version::V5), ["PINGRESP"]);
            });
        }
    });
    // All of it waits, far more than the socket and the records take.
    let mut next = [0; PUBLISHERS as usize];
    let frame = publish_bytes(Version::V5, "t", &[0; SIZE], QoS::AtMostOnce, 0).len();
    let mut bytes = vec![0; frame];
    for _ in 0..COUNT * usize::from(PUBLISHERS) {
        subscriber.read_exact(&mut bytes).expect("a message");
        let payload = &bytes[frame - SIZE..];
        let publisher = usize::from(payload[1]);
        assert_eq!(payload[0], next[publisher], "in order, none lost, none twice");
        assert!(payload[1..].iter().all(|byte| *byte == payload[1]));
        next[publisher] += 1;
    }
    assert_eq!(next, [COUNT as u8; PUBLISHERS as usize]);
}

#[test]
fn the_last_packet_and_close_notify_come_from_any_thread() {
    let encrypted = start(Limits::default(), 2);
    let mut idle: Vec<Client> = (0..4).map(|i| encrypted.connect(&v5(&format!("c{i}")))).collect();
    encrypted.running.server.close_all(ReasonCode::AdministrativeAction);
    for client in &mut idle {
        let mut last = Vec::new();
        // An end without close_notify would be an error.
        client.read_to_end(&mut last).expect("a clean end");
        assert_eq!(packets(&last, Version::V5), ["DISCONNECT 98"]);
    }
    drop(idle);
    encrypted.running.until("all are gone", |r| r.context.counters.get(Metric::Sockets) == 0);

    let mut client = encrypted.connect(&v5("from here"));
    let conn = encrypted.running.service.conn();
    // Not on a thread of the loops.
    conn.close(crate::session::Ended::TakenOver, ReasonCode::SessionTakenOver);
    let mut last = Vec::new();
    client.read_to_end(&mut last).expect("a clean end");
    assert_eq!(packets(&last, Version::V5), ["DISCONNECT 8e"]);
}

#[test]
fn counters_return_to_zero_after_broken_handshakes() {
    let encrypted = start(Limits::default(), 1);
    for bytes in [&b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0"[..], &[0x16, 3, 1, 0, 5, 9, 0, 0, 1, 0]] {
        let mut stream = TcpStream::connect(encrypted.running.address).expect("listens");
        stream.write_all(bytes).expect("reads");
        let mut alert = Vec::new();
        stream.read_to_end(&mut alert).expect("a clean end");
        assert_eq!((alert[0], alert.len()), (0x15, 7), "{alert:x?}");
    }
    let counters = &encrypted.running.context.counters;
    encrypted.running.until("all are gone", |_| counters.get(Metric::Sockets) == 0);
    assert_eq!((counters.get(Metric::Handshakes), counters.get(Metric::TlsFailures)), (0, 2));
}

#[test]
fn the_end_waits_for_a_flood_that_came_before_it() {
    const COUNT: usize = 5_000;
    let encrypted = start(Limits::default(), 1);
    encrypted.running.service.quiet.store(true, Ordering::Relaxed);
    let mut client = encrypted.connect(&v5("flood"));
    let mut flood = publish_bytes(Version::V5, "t", b"x", QoS::AtMostOnce, 0).repeat(COUNT);
    flood.extend([0xC0, 0]);
    // Nothing but what TLS says tells of the end: the socket stays open.
    send(&mut client, &flood);
    client.conn.send_close_notify();
    client.flush().expect("reads");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(packets(&rest, Version::V5), ["PINGRESP"]);
    assert_eq!(encrypted.running.service.published.load(Ordering::Relaxed), COUNT);
}

#[test]
fn who_never_shakes_hands_keeps_nobody_out() {
    let encrypted = start(Limits { handshakes_max: 8, ..Limits::default() }, 1);
    let dial = || TcpStream::connect(encrypted.running.address).expect("listens");
    let mut silent: Vec<TcpStream> = (0..8).map(|_| dial()).collect();
    let counters = &encrypted.running.context.counters;
    encrypted.running.until("all are half-open", |_| counters.get(Metric::Handshakes) == 8);
    let mut client = encrypted.connect(&v5("c"));
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).expect("a clean end");
    assert_eq!(counters.get(Metric::SocketsRefused), 1);
    send(&mut client, &[0xC0, 0]);
    assert_eq!(read_packets(&mut client, 1, Version::V5), ["PINGRESP"]);
}

/// CPU time of the first loop's thread, ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("on Linux").flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let of_loop = stats.filter(|stat| stat.contains("(mqtt-0)"));
    of_loop
        .filter_map(|stat| {
            let (_, rest) = stat.rsplit_once(") ")?;
            Some(rest.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>())
        })
        .sum()
}

#[test]
fn nothing_is_done_for_who_does_not_hear_the_end() {
    let limits = Limits { connect_timeout_ms: 100, linger_ms: 2_000, ..Limits::default() };
    let encrypted = start(limits, 1);
    // They shake hands, or not, say nothing more and do not close either.
    let silent = TcpStream::connect(encrypted.running.address).expect("listens");
    let counters = &encrypted.running.context.counters;
    encrypted.running.until("its time is over", |_| counters.get(Metric::ConnectTimeouts) == 1);
    let (began, before) = (crate::env::now(), cpu_ticks());
    encrypted.running.until("it was let go", |_| counters.get(Metric::Sockets) == 0);
    let (took, used) = (began.elapsed(), cpu_ticks() - before);
    assert!(took.as_millis() > 1_000, "{took:?}");
    assert!(used < 20, "{} ms of CPU time in {took:?}", 10 * used);
    drop(silent);
}
