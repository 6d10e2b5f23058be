use std::cell::OnceCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use super::{Running, start};
use crate::mqtt::{Connect, QoS, Version, encode};
use crate::net::Kind;
use crate::session::testing::{encoded, packets, publication, publish_bytes};
use crate::session::{Delivered, Delivery, Limits, Metric};

type Client = WebSocket<TcpStream>;

fn dial(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address).expect("listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream
}

fn upgrade(running: &Running, path: &str, subprotocols: &[&str]) -> Result<(Client, String), u16> {
    let mut request = format!("ws://{}{path}", running.address).into_client_request().expect("a request");
    for subprotocol in subprotocols {
        request.headers_mut().append("Sec-WebSocket-Protocol", subprotocol.parse().expect("a value"));
    }
    match client(request, dial(running)) {
        Ok((websocket, response)) => {
            let chosen: Vec<_> = response.headers().get_all("Sec-WebSocket-Protocol").iter().collect();
            assert_eq!(chosen.len(), 1);
            Ok((websocket, chosen[0].to_str().expect("text").into()))
        }
        Err(tokio_tungstenite::tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(e) => panic!("{e}"),
    }
}

fn connect_bytes() -> Vec<u8> {
    encoded(|buf| {
        encode::connect(buf, &Connect { client_id: "ws", ..Connect::new(Version::V311) }).expect("fits");
    })
}

fn connected(running: &Running) -> Client {
    let (mut websocket, chosen) = upgrade(running, "/mqtt", &["mqtt"]).expect("an upgrade");
    assert_eq!(chosen, "mqtt");
    websocket.send(Message::binary(connect_bytes())).expect("reads");
    assert_eq!(read(&mut websocket), ["CONNACK 00"]);
    websocket
}

fn read(websocket: &mut Client) -> Vec<String> {
    match websocket.read().expect("a message") {
        Message::Binary(bytes) => packets(&bytes, Version::V311),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_upgrade() {
    let running = start(Kind::WebSocket, Limits::default(), 1);
    let chosen = |subprotocols: &[&str]| upgrade(&running, "/mqtt", subprotocols).map(|(_, chosen)| chosen);
    assert_eq!(chosen(&["mqtt"]).as_deref(), Ok("mqtt"));
    assert_eq!(chosen(&["mqttv3.1"]).as_deref(), Ok("mqttv3.1"));
    assert_eq!(chosen(&["chat, mqttv3.1,  mqtt"]).as_deref(), Ok("mqtt"));
    assert_eq!(chosen(&["chat"]), Err(400));
    assert_eq!(upgrade(&running, "/other", &["mqtt"]).map(|_| ()), Err(404));
    for (request, expected) in [
        ("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426 "),
        ("POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 "),
        ("\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0", "HTTP/1.1 400 "),
    ] {
        let mut stream = dial(&running);
        stream.write_all(request.as_bytes()).expect("reads");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("text");
        assert!(response.starts_with(expected), "{response}");
    }
    running.until("all are gone", |r| r.context.counters.get(Metric::Sockets) == 0);
    assert!(running.service.take_calls().is_empty());
}

#[test]
fn an_upgrade_in_pieces() {
    let running = start(Kind::WebSocket, Limits::default(), 1);
    let mut stream = dial(&running);
    stream.set_nodelay(true).expect("an option");
    let request = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    for piece in request.as_bytes().chunks(50) {
        stream.write_all(piece).expect("reads");
    }
    let mut response = [0; 12];
    stream.read_exact(&mut response).expect("an answer");
    assert_eq!(&response, b"HTTP/1.1 101");
}

#[test]
fn packets_and_frames_need_not_align() {
    let running = start(Kind::WebSocket, Limits::default(), 1);
    let mut websocket = connected(&running);
    let publish = publish_bytes(Version::V311, "t", &[b'x'; 300], QoS::AtLeastOnce, 7);
    let mut bytes = publish.repeat(3);
    bytes.extend([0xC0, 0]);
    for piece in bytes.chunks(publish.len() * 2 / 3) {
        websocket.send(Message::binary(piece.to_vec())).expect("reads");
    }
    let mut got = Vec::new();
    while got.len() < 4 {
        got.extend(read(&mut websocket));
    }
    assert_eq!(got, ["PUBACK 7 00", "PUBACK 7 00", "PUBACK 7 00", "PINGRESP"]);
}

#[test]
fn pings_are_answered_and_large_messages_come_whole() {
    let running = start(Kind::WebSocket, Limits::default(), 1);
    let mut websocket = connected(&running);
    websocket.send(Message::Ping(vec![1, 2, 3].into())).expect("reads");
    assert_eq!(websocket.read().expect("a message"), Message::Pong(vec![1, 2, 3].into()));
    let subscriber = running.service.conn();
    running.service.subscribers.lock().push((subscriber, QoS::AtMostOnce));
    for size in [50, 110, 200, 60_000, 70_000, 900_000] {
        let publish = publish_bytes(Version::V311, "t", &vec![b'x'; size], QoS::AtMostOnce, 0);
        websocket.send(Message::binary(publish.clone())).expect("reads");
        assert_eq!(websocket.read().expect("a message"), Message::binary(publish));
    }
}

#[test]
fn text_is_refused_and_close_is_answered() {
    let running = start(Kind::WebSocket, Limits::default(), 1);
    let mut websocket = connected(&running);
    websocket.send(Message::text("hello")).expect("reads");
    let Ok(Message::Close(Some(frame))) = websocket.read() else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Unsupported);

    let mut websocket = connected(&running);
    websocket.close(None).expect("reads");
    assert!(matches!(websocket.read(), Ok(Message::Close(_)) | Err(Error::ConnectionClosed)));
    running.until("both have ended", |r| {
        r.service.calls.lock().iter().filter(|call| **call == "ended Lost").count() == 2
    });
}

#[test]
fn a_disconnect_closes_the_websocket_too() {
    let running = start(Kind::WebSocket, Limits::default(), 1);
    let mut websocket = connected(&running);
    websocket.send(Message::binary(vec![0xE0, 0])).expect("reads");
    let Ok(Message::Close(Some(frame))) = websocket.read() else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Normal);
}

#[test]
fn unmasked_and_oversized_frames() {
    let running = start(Kind::WebSocket, Limits { packet_max_bytes: 1000, ..Limits::default() }, 1);
    let mut websocket = connected(&running);
    websocket.get_mut().write_all(&[0x82, 1, 0xC0]).expect("reads");
    let Ok(Message::Close(Some(frame))) = websocket.read() else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Protocol);

    let mut websocket = connected(&running);
    websocket.get_mut().write_all(&[0x82, 0xFF, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).expect("reads");
    let Ok(Message::Close(Some(frame))) = websocket.read() else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Size);
}

/// A masked frame; the mask changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

#[test]
fn the_stream_ends_after_the_clients_close() {
    let running = start(Kind::WebSocket, Limits { linger_ms: 60_000, ..Limits::default() }, 1);
    let mut websocket = connected(&running);
    let stream = websocket.get_mut();
    stream.write_all(&frame(0x82, &[0xE0, 0])).expect("reads");
    let mut close = [0; 4];
    stream.read_exact(&mut close).expect("a Close frame");
    assert_eq!(close, [0x88, 2, 0x03, 0xE8]);
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
    let early = stream.read(&mut close).expect_err("the stream has ended before the answer");
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream.write_all(&[frame(0x82, &[0xC0, 0]), frame(0x88, &[0x03, 0xE8])].concat()).expect("reads");
    assert_eq!(stream.read(&mut close).expect("a clean end"), 0);

    // The client's own Close came with its DISCONNECT.
    let mut websocket = connected(&running);
    let stream = websocket.get_mut();
    stream.write_all(&[frame(0x82, &[0xE0, 0]), frame(0x88, &[])].concat()).expect("reads");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, [0x88, 2, 0x03, 0xE8]);
}

#[test]
fn a_client_that_never_answers_is_left_after_a_while() {
    let running = start(Kind::WebSocket, Limits { linger_ms: 50, ..Limits::default() }, 1);
    let mut websocket = connected(&running);
    let stream = websocket.get_mut();
    stream.write_all(&frame(0x82, &[0xE0, 0])).expect("reads");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, [0x88, 2, 0x03, 0xE8]);
}

#[test]
fn a_close_waits_for_packets_that_wait() {
    let running = start(Kind::WebSocket, Limits::default(), 1);
    running.service.hold_connect.store(true, Ordering::Relaxed);
    let (mut websocket, _) = upgrade(&running, "/mqtt", &["mqtt"]).expect("an upgrade");
    let publish = publish_bytes(Version::V311, "t", b"x", QoS::AtMostOnce, 0);
    let packets = [connect_bytes(), publish, vec![0xC0, 0]].concat();
    let stream = websocket.get_mut();
    stream.write_all(&[frame(0x82, &packets), frame(0x88, &[0x03, 0xE9])].concat()).expect("reads");
    running.until("the broker is asked", |r| !r.service.conns.lock().is_empty());
    running.service.conn().accept(running.service.grant("ws"));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a clean end");
    let (packets, close) = rest.split_at(rest.len() - 4);
    assert_eq!(close, [0x88, 2, 0x03, 0xE9]);
    assert!(packets.ends_with(&[0xD0, 0]), "PINGRESP: {packets:x?}");
    assert_eq!(running.service.published.load(Ordering::Relaxed), 1);
    running.until("it has ended", |r| r.service.calls.lock().iter().any(|call| call == "ended Lost"));
}

#[test]
fn a_close_waits_for_a_flood_that_came_before_it() {
    const FRAMES: usize = 300;
    const PER_FRAME: usize = 20;
    let running = start(Kind::WebSocket, Limits::default(), 1);
    running.service.quiet.store(true, Ordering::Relaxed);
    let mut websocket = connected(&running);
    let few = publish_bytes(Version::V311, "t", b"x", QoS::AtMostOnce, 0).repeat(PER_FRAME);
    let mut bytes = frame(0x82, &few).repeat(FRAMES);
    bytes.extend([frame(0x82, &[0xC0, 0]), frame(0x88, &[0x03, 0xE9])].concat());
    let stream = websocket.get_mut();
    stream.write_all(&bytes).expect("reads");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, [0x82, 2, 0xD0, 0, 0x88, 2, 0x03, 0xE9]);
    assert_eq!(running.service.published.load(Ordering::Relaxed), FRAMES * PER_FRAME);
}

#[test]
fn who_pings_and_does_not_listen_is_not_listened_to() {
    let limits = Limits { outbox_max_bytes: 1000, stall_timeout_ms: 60_000, ..Limits::default() };
    let running = start(Kind::WebSocket, limits, 1);
    let mut websocket = connected(&running);
    let stream = websocket.get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a time-out");
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    let mut sent = 0;
    // The sockets between hold some megabytes.
    let refused = (0..1000).find_map(|_| match stream.write(&pings[sent % 131..]) {
        Ok(written) => {
            sent += written;
            None
        }
        Err(e) => Some(e.kind()),
    });
    assert_eq!(refused, Some(std::io::ErrorKind::WouldBlock), "{sent} bytes of pings were read");
    // Whoever reads on gets all the answers.
    let pongs = sent / 131 * 127;
    let mut answers = vec![0; pongs];
    stream.read_exact(&mut answers).expect("the pongs");
    assert!(answers.chunks(127).all(|pong| pong[..2] == [0x8A, 125]));
}

/// Its socket is full when it says Close, and it reads from then on.
#[test]
fn a_client_that_is_behind_gets_everything_and_a_close_frame() {
    const COUNT: usize = 300;
    let limits = Limits { outbox_max_bytes: 64 << 20, linger_ms: 60_000, ..Limits::default() };
    let running = start(Kind::WebSocket, limits, 1);
    let mut websocket = connected(&running);
    let conn = running.service.conn();
    for _ in 0..COUNT {
        let publication = publication("t", &[b'x'; 100_000], QoS::AtMostOnce, 0);
        let qos = QoS::AtMostOnce;
        let delivery =
            Delivery { publication: &publication, qos, retain: false, subscription_ids: &[], share: None };
        assert_eq!(conn.deliver(&delivery, &OnceCell::new(), 0), Delivered::Sent);
    }
    websocket.send(Message::binary(vec![0xC0, 0])).expect("reads");
    websocket.close(None).expect("reads");
    running.until("it is told", |r| r.service.calls.lock().last().is_some_and(|call| call == "ended Lost"));
    let mut got = Vec::new();
    let close = loop {
        match websocket.read().expect("a message") {
            Message::Binary(bytes) => got.extend(packets(&bytes, Version::V311)),
            other => break other,
        }
    };
    assert_eq!(got.len(), COUNT + 1);
    assert_eq!(got.last().map(String::as_str), Some("PINGRESP"));
    assert_eq!(close, Message::Close(None));
}
