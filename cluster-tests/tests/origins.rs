//! From which web pages a WebSocket may be opened, plain and encrypted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::tls::trusting;
use cluster_tests::wait::eventually;
use rustls::{ClientConnection, StreamOwned};

const SOON: Duration = Duration::from_secs(20);
const REFUSED: &str = "rookery_origins_refused_total";

/// Status and text of the answer to a request with these header fields.
fn answer(address: SocketAddr, encrypted: bool, host: &str, origin: Option<&str>) -> (u16, String) {
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {host}\r\n{origin}Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    let tcp = TcpStream::connect(address).expect("listens");
    tcp.set_read_timeout(Some(SOON)).expect("an option");
    if !encrypted {
        return exchange(tcp, &request);
    }
    let tls = ClientConnection::new(trusting(), address.ip().into()).expect("a client");
    exchange(StreamOwned::new(tls, tcp), &request)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a response");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut text = String::new();
    if status != 101 {
        stream.read_to_string(&mut text).expect("a clean end");
    }
    (status, text)
}

/// Which of the requests, of host and origin, get which status.
fn check(cluster: &Cluster, table: &[(u16, &str, Option<&str>)]) {
    for (address, encrypted, key) in [
        (cluster.ws(1), false, "listeners.ws.allowed_origins"),
        (cluster.wss(1), true, "listeners.wss.allowed_origins"),
    ] {
        let before = cluster.metric(1, REFUSED);
        for (expected, host, origin) in table {
            let (status, text) = answer(address, encrypted, host, *origin);
            assert_eq!(status, *expected, "{origin:?} at {host}, encrypted: {encrypted}");
            assert_eq!(status == 403, text.contains(key), "{text}");
        }
        let refused = table.iter().filter(|(status, ..)| *status == 403).count();
        assert_eq!(cluster.metric(1, REFUSED) - before, refused as f64);
    }
}

fn allowing(cluster: &mut Cluster, origins: &str) {
    cluster.node(1).stop();
    for listener in ["WS", "WSS"] {
        cluster.node(1).set_variable(&format!("ROOKERY__LISTENERS__{listener}__ALLOWED_ORIGINS"), origins);
    }
    cluster.restart(1);
}

#[test]
fn a_page_may_talk_to_its_own_host_or_is_listed() {
    let mut cluster = Cluster::start(1);
    check(
        &cluster,
        &[
            (101, "broker.example", None),
            (101, "broker.example", Some("https://broker.example")),
            (101, "broker.example:8083", Some("http://BROKER.example:3000")),
            (101, "localhost:8083", Some("http://127.0.0.1:3000")),
            (101, "127.0.0.1:8083", Some("http://localhost")),
            (101, "[::1]:8083", Some("https://localhost")),
            (403, "broker.example", Some("https://evil.example")),
            (403, "broker.example", Some("https://broker.example.evil.example")),
            (403, "broker.example", Some("http://localhost")),
            (403, "127.0.0.1:8083", Some("https://evil.example")),
            (403, "localhost", Some("null")),
            (403, "localhost", Some("")),
        ],
    );
    eventually("a line of the audit log", SOON, || {
        let log = cluster.node(1).log();
        let mut lines = log.lines().filter(|line| line.contains("audit") && line.contains("origin_refused"));
        lines.any(|line| line.contains("https://evil.example") && line.contains("127.0.0.1")).then_some(())
    });

    allowing(&mut cluster, "https://chat.example.org, http://localhost:3000");
    check(
        &cluster,
        &[
            (101, "broker.example", None),
            (101, "broker.example", Some("https://chat.example.org")),
            (101, "broker.example", Some("HTTPS://Chat.Example.org:443")),
            (101, "localhost", Some("http://localhost:3000")),
            (403, "broker.example", Some("http://chat.example.org")),
            (403, "broker.example", Some("https://chat.example.org:8443")),
            (403, "broker.example", Some("https://broker.example")),
            (403, "localhost", Some("http://localhost")),
            (403, "broker.example", Some("null")),
        ],
    );

    allowing(&mut cluster, "*");
    check(&cluster, &[(101, "broker.example", Some("https://evil.example")), (101, "x", Some("null"))]);
}
