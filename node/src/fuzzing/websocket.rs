//! MQTT in WebSocket: any bytes, and well-formed frames that must amount to the MQTT in them.

use std::sync::Arc;

use super::client::{Fed, Layer, connect_bytes};
use super::packets;
use super::source::{Source, chops};
use crate::mqtt::{Version, frame_len};
use crate::net::websocket::WebSocket;
use crate::session::{Conn, Flow, Inbound, Limits};

const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// Input: how the rest is meant, and the rest: everything that the client sends, or what it sends
/// after the upgrade, or instructions for frames.
pub fn websocket(input: &[u8]) {
    let mut source = Source::new(input);
    let (meaning, seed) = (source.u8() % 4, u64::from(source.u8()));
    match meaning {
        0 => drop(over_websocket(source.rest(), seed)),
        1 => drop(over_websocket(&[UPGRADE, source.rest()].concat(), seed)),
        _ => frames(&mut source, seed),
    }
}

/// In pieces, which make no difference.
fn over_websocket(stream: &[u8], seed: u64) -> Fed {
    let layer = || WebSocket::new(&Limits::default(), Arc::default());
    let whole = Fed::through([stream], layer());
    assert_eq!(Fed::through(chops(stream, seed), layer()), whole, "in pieces of up to {}", seed % 16 + 1);
    whole
}

impl Layer for WebSocket {
    fn feed(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound, piece: &mut [u8]) -> Flow {
        self.feed(conn, inbound, piece, 0)
    }

    fn attend(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound) -> Flow {
        let flow = inbound.attend(conn, 0);
        self.attended(conn, inbound, flow, 0)
    }

    fn linger(&mut self, conn: &Arc<Conn>, piece: &mut [u8]) {
        self.linger(conn, piece);
    }
}

/// The client's frames carry a CONNECT and whatever MQTT the input holds.
fn frames(source: &mut Source<'_>, seed: u64) {
    let version = [Version::V311, Version::V5][usize::from(source.bool())];
    let mut mqtt = connect_bytes(version);
    let mut stream = UPGRADE.to_vec();
    frame(&mut stream, FIN | BINARY, &mqtt, 0);
    while !source.is_empty() {
        let (shape, payload) = (source.u8(), source.slice());
        let key = u32::from(shape >> 4).wrapping_mul(0x1357_9BDF);
        match shape % 8 {
            0 => frame(&mut stream, FIN | PING, &payload[..payload.len().min(125)], key),
            1 => frame(&mut stream, FIN | PONG, &payload[..payload.len().min(125)], key),
            2..=4 => {
                mqtt.extend_from_slice(payload);
                frame(&mut stream, FIN | BINARY, payload, key);
            }
            7 if payload.is_empty() => {
                frame(&mut stream, FIN | CLOSE, &1000_u16.to_be_bytes(), key);
                break;
            }
            // One message in three frames, with a control frame between [RFC 6455, 5.4].
            _ => {
                mqtt.extend_from_slice(payload);
                let (first, rest) = payload.split_at(payload.len() / 3);
                let (second, last) = rest.split_at(rest.len() / 2);
                frame(&mut stream, BINARY, first, key);
                frame(&mut stream, CONTINUATION, second, !key);
                frame(&mut stream, FIN | PING, b"?", key);
                frame(&mut stream, FIN | CONTINUATION, last, 0);
            }
        }
    }
    let framed = over_websocket(&stream, seed);
    let plain = Fed::by([mqtt.as_slice()]);
    assert_eq!(framed.seen, plain.seen);
    assert_eq!(framed.fault, plain.fault);
    let sent = unframed(&framed.sent);
    packets::from_server(&sent, version);
    assert_eq!(sent, plain.sent);
}

/// Appends a client's frame, masked as it must be.
fn frame(out: &mut Vec<u8>, first: u8, payload: &[u8], key: u32) {
    let key = key.to_be_bytes();
    out.push(first);
    match u8::try_from(payload.len()) {
        Ok(len @ ..=125) => out.push(0x80 | len),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// What the server's binary frames carry. They are unmasked and whole; the upgrade's answer goes
/// before them.
fn unframed(sent: &[u8]) -> Vec<u8> {
    let end = sent.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer to the upgrade");
    assert!(sent.starts_with(b"HTTP/1.1 101 "));
    let mut rest = &sent[end + 4..];
    let mut mqtt = Vec::new();
    while let [first, len, after @ ..] = rest {
        let (len, after) = match len {
            0..=125 => (usize::from(*len), after),
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            127 => {
                let len = after.first_chunk().expect("eight bytes of length");
                (u64::from_be_bytes(*len) as usize, &after[8..])
            }
            _ => panic!("a server's frame is masked"),
        };
        assert_eq!(first & 0xF0, FIN, "a server's frame is in pieces");
        if first & 0x0F == BINARY {
            let packet = &after[..len];
            assert_eq!(frame_len(packet, u32::MAX), Ok(Some(len)), "a frame of other than one packet");
            mqtt.extend_from_slice(packet);
        }
        rest = &after[len..];
    }
    assert!(rest.is_empty());
    mqtt
}
