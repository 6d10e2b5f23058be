//! Streams that were valid once: flipped, cut, spliced, lied about and repeated.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{Plan, Rng};
use crate::mqtt::{
    AckKind, Options, Prop, Props, Publish, VERSIONS, Version, Will, ack, connect, disconnect, prop, publish,
    subscribe, unsubscribe,
};

/// They wait for answers most of the time.
const WORKERS: usize = 8;
/// For the broker to end a stream that has ended.
const ENDS: Duration = Duration::from_secs(15);
const PINGREQ: [u8; 2] = [0xc0, 0];

/// Sends all streams of the plan, some at a time.
///
/// # Panics
/// When the broker does not end one.
pub fn run(plan: &Plan) {
    let streams = plan.size(5_000, 200_000);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || (worker..streams).step_by(WORKERS).for_each(|stream| one(plan, stream)));
        }
    });
}

fn one(plan: &Plan, stream: usize) {
    let mut rng = plan.rng(stream as u64);
    let version = *rng.pick(&VERSIONS);
    let client = format!("attack-m-{}", rng.below(1_000));
    let packets = conversation(version, &client, &mut rng);
    let (connect, rest) = packets.split_first().expect("a conversation begins with CONNECT");
    let mut bytes = if rng.chance(50) {
        // A valid CONNECT, then what is broken.
        let mut bytes = connect.clone();
        bytes.extend(broken(rest, version, &mut rng));
        bytes
    } else {
        broken(&packets, version, &mut rng)
    };
    let to = if rng.chance(30) {
        bytes = in_websocket(&bytes, &mut rng);
        plan.ws
    } else {
        plan.mqtt
    };
    if let Err(what) = deliver(to, &bytes) {
        panic!("stream {stream} of seed {}: {what}", plan.seed);
    }
}

/// Sends it all, ends the stream and waits for the broker's end of it.
fn deliver(to: SocketAddr, bytes: &[u8]) -> Result<(), String> {
    let mut tcp = TcpStream::connect(to).map_err(|e| format!("not accepted: {e}"))?;
    // The broker may end it at any byte.
    let _ = tcp.write_all(bytes).and_then(|()| tcp.shutdown(Shutdown::Write));
    tcp.set_read_timeout(Some(ENDS)).map_err(|e| e.to_string())?;
    let mut chunk = [0; 4096];
    loop {
        match tcp.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(format!("not ended within {ENDS:?}"));
            }
            Err(_) => return Ok(()),
        }
    }
}

/// The packets of a valid client.
fn conversation(version: Version, client: &str, rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut options = Options::new(version, client);
    if rng.chance(30) {
        options = options.will(Will::new("attack/will", "gone", (rng.below(3)) as u8));
    }
    let v5 = version == Version::V5;
    let mut props = Props::default();
    if v5 {
        options =
            options.prop(prop::RECEIVE_MAXIMUM, Prop::U16(20)).prop(prop::TOPIC_ALIAS_MAXIMUM, Prop::U16(5));
        props = props
            .with(prop::CONTENT_TYPE, Prop::Str("text".into()))
            .with(prop::USER_PROPERTY, Prop::Pair("key".into(), "value".into()));
        if rng.chance(30) {
            props = props.with(prop::TOPIC_ALIAS, Prop::U16(1 + rng.below(3) as u16));
        }
    }
    let message = |qos: u8, id: u16, props: &Props, payload: Vec<u8>| {
        let topic = "attack/m/topic".to_owned();
        publish(
            version,
            &Publish { topic, payload, qos, retain: false, dup: false, id, props: props.clone() },
        )
    };
    let lengths = [0, 1, 20, 300];
    let mut packets = vec![connect(&options)];
    packets.push(subscribe(version, 1, &[("attack/m/+", 2), ("$share/g/attack/m/#", 1)], &Props::default()));
    for (qos, id) in [(0, 0), (1, 7), (2, 8)] {
        let payload = vec![b'x'; *rng.pick(&lengths)];
        packets.push(message(qos, id, &props, payload));
    }
    packets.push(ack(AckKind::PubRel, 8));
    packets.push(ack(*rng.pick(&[AckKind::PubAck, AckKind::PubRec, AckKind::PubComp]), 1));
    packets.push(PINGREQ.to_vec());
    packets.push(unsubscribe(version, 2, &["attack/m/+"]));
    packets.push(disconnect(version, 0));
    packets
}

/// The packets with one to three things wrong.
fn broken(packets: &[Vec<u8>], version: Version, rng: &mut Rng) -> Vec<u8> {
    let mut packets = packets.to_vec();
    let mut bytes = None;
    for _ in 0..=rng.below(3) {
        match (rng.below(9), &mut bytes) {
            (0, None) => lie_about_length(&mut packets, rng),
            (1, None) => repeat_property(&mut packets, version, rng),
            (2, None) => {
                let (from, to) = (rng.below(packets.len()), rng.below(packets.len()));
                packets.swap(from, to);
            }
            (kind, flat) => mutate(flat.get_or_insert_with(|| packets.concat()), kind, rng),
        }
    }
    bytes.unwrap_or_else(|| packets.concat())
}

fn mutate(bytes: &mut Vec<u8>, kind: usize, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    let length = 1 + rng.below(16);
    let end = (at + length).min(bytes.len());
    match kind {
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let repeated = bytes[at..end].to_vec();
            bytes.splice(at..at, repeated);
        }
        6 => {
            let noise = rng.bytes(length);
            bytes.splice(at..end, noise);
        }
        7 => bytes.extend(rng.bytes(length * 8)),
        _ => {
            for _ in 0..=rng.below(8) {
                let at = rng.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
}

/// A Remaining Length or a length inside that says something else.
fn lie_about_length(packets: &mut [Vec<u8>], rng: &mut Rng) {
    let index = rng.below(packets.len());
    let packet = &mut packets[index];
    // All packets here are short of 16 KiB, so that the length takes one or two bytes.
    let at = if rng.chance(50) { 1 } else { rng.below(packet.len()) };
    if let Some(byte) = packet.get_mut(at) {
        *byte = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff, byte.wrapping_add(1), byte.wrapping_sub(1)]);
    }
}

/// One property twice, or one that does not belong there.
fn repeat_property(packets: &mut Vec<Vec<u8>>, version: Version, rng: &mut Rng) {
    let one = match rng.below(5) {
        0 => (prop::MESSAGE_EXPIRY_S, Prop::U32(9)),
        1 => (prop::RESPONSE_TOPIC, Prop::Str("attack/r".into())),
        2 => (prop::SUBSCRIPTION_ID, Prop::Varint(0)),
        3 => (prop::TOPIC_ALIAS, Prop::U16(0xffff)),
        _ => (rng.byte(), Prop::Byte(rng.byte())),
    };
    let props = Props(vec![one.clone(), one]);
    let (topic, payload) = ("attack/m/twice".to_owned(), b"x".to_vec());
    let message = Publish { topic, payload, qos: 0, retain: false, dup: false, id: 0, props };
    let at = 1 + rng.below(packets.len());
    packets.insert(at.min(packets.len()), publish(version, &message));
}

/// The bytes as a WebSocket client sends them; sometimes the upgrade or the frames are broken too.
fn in_websocket(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut request = upgrade();
    if rng.chance(10) {
        let kind = 3 + rng.below(6);
        mutate(&mut request, kind, rng);
    }
    let mut frames = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (payload, after) = rest.split_at((1 + rng.below(400)).min(rest.len()));
        let opcode = if rng.chance(5) { rng.byte() } else { 0x82 };
        frames.extend(frame(opcode, payload, rng));
        rest = after;
    }
    if rng.chance(30) && !frames.is_empty() {
        let kind = 3 + rng.below(6);
        mutate(&mut frames, kind, rng);
    }
    request.extend(frames);
    request
}

/// The request of a WebSocket client.
pub(super) fn upgrade() -> Vec<u8> {
    b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
      Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        .to_vec()
}

/// One masked frame.
pub(super) fn frame(first: u8, payload: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    let mask = rng.bytes(4);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
