//! The opening request: who gets a WebSocket and who a readable refusal.

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{Options, Packet, Version, connect};
use cluster_tests::websocket::{Frame, RawSocket};

use super::alone;

const MQTT: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

fn status(cluster: &Cluster, request: &str) -> u16 {
    let mut socket = RawSocket::dial(cluster.ws(1));
    socket.write(request);
    let response = socket.response();
    if response.status != 101 {
        let length = response.field("content-length").and_then(|length| length.parse().ok());
        let text = socket.text_to_end();
        assert_eq!(length, Some(text.len()), "{response:?}");
        assert!(text.len() > 20 && text.ends_with(".\n"), "{text:?}");
        assert_eq!(response.field("content-type"), Some("text/plain"));
        assert!(response.field("connection").is_some_and(|value| value.ends_with("close")));
        let version = response.field("sec-websocket-version");
        assert!(version.is_none_or(|version| version == "13" && response.status == 426), "{response:?}");
    }
    response.status
}

#[test]
fn what_is_refused_and_how() {
    let cluster = alone();
    let good = RawSocket::request(MQTT);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (expected, part, other) in [
        (101, "GET", "GET"),
        (405, "GET", "POST"),
        (405, "GET", "PUT"),
        (404, "/mqtt", "/"),
        (404, "/mqtt", "/mqtt/more"),
        (400, "HTTP/1.1", "HTTP/1.0"),
        (400, "Host: localhost\r\n", ""),
        (426, "Upgrade: websocket\r\n", ""),
        (426, "Connection: Upgrade\r\n", ""),
        (426, "Connection: Upgrade", "Connection: close"),
        (426, "Sec-WebSocket-Version: 13\r\n", ""),
        (426, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 7"),
        (400, key, ""),
        (400, "dGhlIHNhbXBsZSBub25jZQ==", "short"),
        (400, MQTT, ""),
        (400, MQTT, "Sec-WebSocket-Protocol: chat, superchat\r\n"),
        (101, "Upgrade: websocket", "uPGRADE: h2c, WebSocket"),
        (101, "Connection: Upgrade", "Connection: keep-alive, upgrade"),
        (101, "Connection: Upgrade", "Connection: keep-alive\r\nConnection: UPGRADE"),
        (101, "Host", "Origin: http://localhost:3000\r\nHost"),
        (403, "Host", "Origin: https://app.example\r\nHost"),
        (101, "/mqtt", "/mqtt?token=1"),
    ] {
        assert!(good.contains(part), "{part}");
        assert_eq!(status(&cluster, &good.replace(part, other)), expected, "{part} -> {other}");
    }
    assert_eq!(status(&cluster, "GET /mqtt HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"), 426);
    assert_eq!(status(&cluster, "no HTTP at all\r\n\r\n"), 400);
    // Whoever speaks another protocol here is told before its time is up.
    assert_eq!(status(&cluster, "\x16\x03\x01\x02\0\x01\0\x01\x7f\x03\x03"), 400);
    let options = Options::v311("x");
    assert_eq!(status(&cluster, &String::from_utf8(connect(&options)).expect("ASCII")), 400);
}

#[test]
fn a_subprotocol_is_chosen_and_extensions_are_not() {
    let cluster = alone();
    for (offered, chosen) in [
        ("mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("chat, mqttv3.1, mqtt", "mqtt"),
        ("chat\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
    ] {
        let mut socket = RawSocket::dial(cluster.ws(1));
        let extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
        socket.write(RawSocket::request(&format!("Sec-WebSocket-Protocol: {offered}\r\n{extensions}")));
        let response = socket.response();
        assert_eq!(response.status, 101);
        assert_eq!(response.field("sec-websocket-protocol"), Some(chosen), "{offered}");
        assert_eq!(response.field("sec-websocket-accept"), Some("s3pplmbitxaq9kygzzhzrbk+xoo="));
        assert_eq!(response.field("sec-websocket-extensions"), None);
        // What the extension would mark.
        socket.send(&Frame::binary("x").reserved(4));
        assert_eq!(socket.ending().status(), Some(1002));
    }
    let mut old = RawSocket::dial(cluster.ws(1));
    old.write(RawSocket::request("Sec-WebSocket-Protocol: mqttv3.1\r\n"));
    assert_eq!(old.response().status, 101);
    old.speak(Version::V31);
    old.send(&Frame::binary(connect(&Options::new(Version::V31, &fresh("old")))));
    assert!(matches!(old.packet(), Packet::ConnAck { code: 0, .. }));
}

#[test]
fn a_request_in_any_pieces_and_what_follows_at_once() {
    let cluster = alone();
    let connect = || connect(&Options::v5(&fresh("eager")));
    let eager = || [RawSocket::request(MQTT).as_bytes(), &Frame::binary(connect()).bytes()].concat();
    for piece in [usize::MAX, 1, 7, 100] {
        let mut socket = RawSocket::dial(cluster.ws(1));
        socket.write_in(&eager(), piece);
        assert_eq!(socket.response().status, 101, "in pieces of {piece}");
        assert!(matches!(socket.packet(), Packet::ConnAck { code: 0, .. }), "in pieces of {piece}");
    }
    // The first frame may be cut by the end of the segment anywhere.
    let whole = eager();
    for cut in [1, 2, 5, 9] {
        let (first, second) = whole.split_at(whole.len() - cut);
        let mut socket = RawSocket::dial(cluster.ws(1));
        socket.write(first);
        assert_eq!(socket.response().status, 101);
        socket.write(second);
        assert!(matches!(socket.packet(), Packet::ConnAck { code: 0, .. }), "cut {cut} before the end");
    }
}

#[test]
fn requests_are_bounded_in_size_and_time() {
    let cluster = Cluster::start_with(1, "[limits]\nconnect_timeout_ms = 500");
    let cookie = |length: usize| format!("{MQTT}Cookie: {}\r\n", "x".repeat(length));
    assert_eq!(status(&cluster, &RawSocket::request(&cookie(7_000))), 101);
    assert_eq!(status(&cluster, &RawSocket::request(&cookie(9_000))), 431);
    assert_eq!(status(&cluster, &format!("GET /{} HTTP/1.1\r\n", "x".repeat(100_000))), 431);
    assert_eq!(status(&cluster, &RawSocket::request(&format!("{MQTT}{}", "a: b\r\n".repeat(200)))), 431);
    // Half a request, and a WebSocket without a CONNECT that pings.
    let mut slow = RawSocket::dial(cluster.ws(1));
    slow.write("GET /mqtt HTTP/1.1\r\nHost: ");
    assert_eq!(slow.text_to_end(), "");
    let mut mute = RawSocket::open(cluster.ws(1));
    mute.send(&Frame::ping("x"));
    assert_eq!(mute.pong(), b"x");
    assert_eq!(mute.ending().status(), Some(1008));
}
