//! What the suites about messages share: packets made by hand, and what comes back.

use std::time::Duration;

use cluster_tests::conformance::{Outcome, Site};
use cluster_tests::mqtt::{
    Ack, AckKind, Client, Error, Options, Packet, Props, Publish, Result, remaining_length,
};

/// For an answer, or a message across the cluster, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A control packet of these parts.
pub fn frame(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut packet = vec![first];
    remaining_length(&mut packet, body.len());
    packet.extend_from_slice(&body);
    packet
}

/// A string in its wire form, whatever its bytes.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("at most 65535 bytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// A first PUBLISH, not retained.
pub fn message(topic: &str, payload: &str, qos: u8, id: u16) -> Publish {
    let props = Props::default();
    let payload = payload.into();
    Publish { topic: topic.into(), payload, qos, retain: false, dup: false, id, props }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP of 5.0 with a reason code.
pub fn ack_with(kind: AckKind, id: u16, code: u8) -> Vec<u8> {
    let flags = if kind == AckKind::PubRel { 2 } else { 0 };
    frame((kind as u8) << 4 | flags, &[&id.to_be_bytes(), &[code]])
}

/// The next packet, which must be a PUBLISH; it is not acknowledged.
pub fn next_publish(client: &mut Client) -> Result<Publish> {
    match client.packet(SOON)? {
        Packet::Publish(message) => Ok(message),
        other => Err(Error::Protocol(format!("{other:?} for a PUBLISH"))),
    }
}

/// The next packet, which must be an acknowledgement.
pub fn next_ack(client: &mut Client) -> Result<Ack> {
    match client.packet(SOON)? {
        Packet::Ack(ack) => Ok(ack),
        other => Err(Error::Protocol(format!("{other:?} for an acknowledgement"))),
    }
}

/// Asserts that the next packet is this acknowledgement; its reason code.
#[track_caller]
pub fn expect_ack(client: &mut Client, kind: AckKind, id: u16) -> Result<u8> {
    let ack = next_ack(client)?;
    assert_eq!((ack.kind, ack.id), (kind, id));
    Ok(ack.code)
}

/// Everything that the client has been sent by its node up to now; nothing is acknowledged.
pub fn sent_so_far(client: &mut Client) -> Result<Vec<Packet>> {
    client.send(&[0xc0, 0])?;
    let mut packets = Vec::new();
    loop {
        match client.packet(SOON)? {
            Packet::PingResp => return Ok(packets),
            packet => packets.push(packet),
        }
    }
}

/// The payloads of messages, as texts.
pub fn texts(messages: &[Publish]) -> Vec<String> {
    messages.iter().map(Publish::text).collect()
}

/// The two kinds of sessions at QoS 1 and 2: one that ends with its connection, and one that
/// outlives it.
pub fn both_sessions(at: &Site) -> [Options; 2] {
    [at.options(), at.persistent()]
}

/// A packet that breaks the protocol, and the reason codes that say so in 5.0.
pub struct Bad {
    pub what: &'static str,
    pub packet: Vec<u8>,
    pub codes: &'static [u8],
}

pub fn bad(what: &'static str, packet: Vec<u8>, codes: &'static [u8]) -> Bad {
    Bad { what, packet, codes }
}

/// Each of the packets, on a connection of its own, makes the broker end that.
pub fn each_ends(at: &Site, rows: &[Bad]) -> Outcome {
    for row in rows {
        let mut client = at.client()?;
        client.send(&row.packet)?;
        ends(at, client, row.what, row.codes)?;
    }
    Ok(())
}

/// As [`each_ends`], where the bytes say what they are and all have the same reason codes.
pub fn each_packet_ends<P: AsRef<[u8]>>(
    at: &Site,
    packets: impl IntoIterator<Item = P>,
    codes: &[u8],
) -> Outcome {
    for packet in packets {
        let mut client = at.client()?;
        client.send(packet.as_ref())?;
        ends(at, client, &format!("{:02x?}", packet.as_ref()), codes)?;
    }
    Ok(())
}

/// As [`Site::assert_ends`], with a name for what should have ended the connection.
pub fn ends(at: &Site, mut client: Client, what: &str, codes: &[u8]) -> Outcome {
    match client.ending(SOON) {
        Ok(Error::Disconnected(code)) if at.is_v5() && codes.contains(&code) => Ok(()),
        Ok(Error::Closed) if !at.is_v5() => Ok(()),
        Ok(other) => Err(format!("{what}: ended otherwise: {other}, not by one of {codes:02x?}").into()),
        Err(error) => Err(format!("{what}: {error}").into()),
    }
}
