use proptest::prelude::*;

use crate::net::websocket::upgrade::{end_of, shown_origin};
use crate::net::websocket::{OriginPolicy, Refusal};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker.example:8083\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

fn answer(request: &[u8]) -> Result<String, Refusal> {
    crate::net::websocket::answer(request, &OriginPolicy::default())
}

fn status(request: &str) -> String {
    match answer(request.as_bytes()) {
        Ok(response) => response[9..12].into(),
        Err(refusal) => refusal.status[..3].into(),
    }
}

/// The status when a part of the good request is another.
fn with(part: &str, other: &str) -> String {
    assert!(REQUEST.contains(part), "{part}");
    status(&REQUEST.replace(part, other))
}

#[test]
fn the_response_of_the_standard() {
    let response = answer(REQUEST.as_bytes()).expect("accepted");
    assert!(response.starts_with("HTTP/1.1 101 "));
    assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(response.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
    assert!(response.ends_with("\r\n\r\n"));
}

#[test]
fn what_is_accepted() {
    for (part, other) in [
        ("/mqtt", "/mqtt?token=x"),
        ("Upgrade: websocket", "upgrade: h2c, WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUPGRADE: websocket"),
        ("Connection: Upgrade", "connection: keep-alive,UPGRADE"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
        ("Host", "Origin: https://broker.example\r\nhOsT"),
        ("Host", "Content-Length: 0\r\nHost"),
        ("Host", "Content-Length: 0\r\nContent-Length: 0\r\nHost"),
        ("broker.example:8083", "[::1]:8083"),
        ("broker.example:8083", ""),
        ("GET", "\r\nGET"),
    ] {
        assert_eq!(with(part, other), "101", "{other}");
    }
}

#[test]
fn extensions_are_not_accepted() {
    let offers = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nHost";
    let response = answer(REQUEST.replace("Host", offers).as_bytes()).expect("accepted");
    assert!(!response.to_ascii_lowercase().contains("extensions"), "{response}");
}

#[test]
fn what_is_refused() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (expected, part, other) in [
        ("403", "Host", "Origin: https://app.example\r\nHost"),
        ("403", "Host", "Origin: null\r\nHost"),
        ("403", "Host", "Origin:\r\nHost"),
        ("403", "Host", "Origin: https://broker.example\r\nOrigin: https://broker.example\r\nHost"),
        ("403", "Host", "Origin: https://br\u{f6}ker.example\r\nHost"),
        ("405", "GET", "POST"),
        ("405", "GET", "HEAD"),
        ("404", "/mqtt", "/"),
        ("404", "/mqtt", "/mqtt/"),
        ("404", "/mqtt", "/MQTT"),
        ("400", "HTTP/1.1", "HTTP/1.0"),
        ("400", "HTTP/1.1", "HTTP/2.0"),
        ("400", "HTTP/1.1", ""),
        ("400", "Host: broker.example:8083\r\n", ""),
        ("400", "Host", "Host: other\r\nHost"),
        ("400", "broker.example", "broker example"),
        ("400", "broker.example", "broker/example"),
        ("400", "broker.example", "broker@example"),
        ("400", "broker.example", "bröker.example"),
        ("400", ":8083", ":8083:8084"),
        ("400", "Host", "Content-Length: 3\r\nHost"),
        ("400", "Host", "Content-Length: 0\r\nContent-Length: 3\r\nHost"),
        ("431", "Host", &format!("{}Host", "X: y\r\n".repeat(150))),
        ("400", "Host", "Transfer-Encoding: chunked\r\nHost"),
        ("400", "Host: ", "Host : "),
        ("400", "Host: ", "Ho\0st: "),
        ("426", "Upgrade: websocket\r\n", ""),
        ("426", "Upgrade: websocket", "Upgrade: websockets"),
        ("426", "Connection: Upgrade\r\n", ""),
        ("426", "Connection: Upgrade", "Connection: keep-alive"),
        ("426", "Sec-WebSocket-Version: 13\r\n", ""),
        ("426", "Version: 13", "Version: 8"),
        ("426", "Version: 13", "Version: 13, 8"),
        ("400", key, ""),
        ("400", "Host", &format!("{key}Host")),
        ("400", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
        ("400", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSE="),
        ("400", "dGhlIHNhbXBsZSBub25jZQ==", ""),
        ("400", "Sec-WebSocket-Protocol: mqtt\r\n", ""),
        ("400", "Protocol: mqtt", "Protocol: chat, MQTT, mqttv5"),
    ] {
        assert_eq!(with(part, other), expected, "{part} -> {other}");
    }
    assert_eq!(status("\r\n\r\n"), "400");
    assert_eq!(status(&format!("GET /mqtt HTTP/1.1\nHost: x\n\n{REQUEST}")), "400");
}

#[test]
fn the_subprotocol_is_one_of_those_offered() {
    for (offered, chosen) in [
        ("mqtt", "mqtt"),
        ("mqttv3.1", "mqttv3.1"),
        ("mqttv3.1, mqtt", "mqtt"),
        ("chat,mqttv3.1 , other", "mqttv3.1"),
        ("chat\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
    ] {
        let request = REQUEST.replace("Protocol: mqtt", &format!("Protocol: {offered}"));
        let response = answer(request.as_bytes()).expect(offered);
        assert_eq!(response.matches("Sec-WebSocket-Protocol").count(), 1);
        assert!(response.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")), "{response}");
    }
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let refusal = answer(REQUEST.replace("13", "8").as_bytes()).expect_err("refused");
    let response = refusal.response(b"");
    assert!(response.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{response}");
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
    assert!(response.contains("\r\nConnection: Upgrade, close\r\n"), "{response}");
    let (_, body) = response.split_once("\r\n\r\n").expect("a body");
    assert_eq!(body, format!("{}\n", refusal.text));
    assert!(response.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{response}");
}

#[test]
fn a_refused_page_learns_what_to_change_and_the_log_its_origin() {
    let request = REQUEST.replace("Host", "Origin: https://evil.example\u{e9}\r\nHost");
    let refusal = answer(request.as_bytes()).expect_err("refused");
    assert!(refusal.text.contains("listeners.ws.allowed_origins"), "{}", refusal.text);
    assert_eq!(shown_origin(request.as_bytes()), "https://evil.example\\xc3\\xa9");
    let long = REQUEST.replace("Host", &format!("Origin: {}\r\nHost", "x".repeat(5_000)));
    assert_eq!(shown_origin(long.as_bytes()).len(), 256);
}

proptest! {
    /// The end is found wherever the pieces break.
    #[test]
    fn the_end_of_a_request_in_pieces(extra in "[\r\n]{0,3}", at in 0usize..400) {
        let bytes = format!("{REQUEST}{extra}");
        let at = at.min(REQUEST.len() - 1);
        prop_assert_eq!(end_of(&bytes.as_bytes()[..at], 0), None);
        prop_assert_eq!(end_of(bytes.as_bytes(), at), Some(REQUEST.len()));
    }

    #[test]
    fn any_request_is_answered(request in "\\PC{0,40}(\r\n\\PC{0,20}: \\PC{0,20}){0,5}") {
        let _ = answer(format!("{request}\r\n\r\n").as_bytes()).map_err(|refusal| refusal.response(b""));
    }
}
