//! From bytes to packets. Nothing is allocated; every rule that a single packet can break is
//! checked here, rules about the course of a connection are the session's.

use super::lists::{Filters, SubscribeFilters};
use super::packet::{Ack, Auth, Codes, Disconnect, Packet, Publish, SubAck, Subscribe, Unsubscribe};
use super::properties::{self, UserProperties};
use super::property::{self, Property};
use super::reader::{self, Reader};
use super::reason::CodeUse;
use super::{DecodeError, QoS, ReasonCode, Version, connect, topic};

/// Bytes of a packet after its fixed header: what four bytes of length can say.
pub const MAX_REMAINING_LEN: usize = 268_435_455;

/// Control packet types, as in the high half of the first byte.
pub(super) mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

const WRONG_FLAGS: DecodeError = DecodeError::malformed("reserved flags of the fixed header are set");

/// [MQTT-3.1.0-1]
pub const NO_CONNECT: DecodeError = DecodeError::protocol("the first packet is not CONNECT");

/// Whether a packet with this first byte is a CONNECT.
pub fn is_connect(first: u8) -> bool {
    first >> 4 == kind::CONNECT
}

/// Whether a packet with this first byte is a PUBLISH.
pub fn is_publish(first: u8) -> bool {
    first >> 4 == kind::PUBLISH
}

/// Whether a packet with this first byte is a SUBSCRIBE or an UNSUBSCRIBE.
pub fn is_subscription(first: u8) -> bool {
    matches!(first >> 4, kind::SUBSCRIBE | kind::UNSUBSCRIBE)
}

/// Length in bytes of the first packet in `buf`, its fixed header included; `None` if more bytes
/// are needed to tell. `max_packet` is the largest whole packet that is accepted, in bytes.
///
/// # Errors
/// A packet type that does not exist, a length that is not in its shortest form or takes more
/// than four bytes [MQTT-1.5.5-1], or a packet above `max_packet` (0x95).
#[inline]
pub fn frame_len(buf: &[u8], max_packet: u32) -> Result<Option<usize>, DecodeError> {
    let Some((first, rest)) = buf.split_first() else { return Ok(None) };
    if first >> 4 == 0 {
        return Err(DecodeError::malformed("packet type 0"));
    }
    let Some((remaining, len_bytes)) = reader::varint(rest)? else { return Ok(None) };
    let total = 1 + len_bytes + remaining as usize;
    if total > max_packet as usize {
        return Err(DecodeError::new(ReasonCode::PacketTooLarge, "a packet above the maximum packet size"));
    }
    Ok(Some(total))
}

/// Whether a client that authenticates itself may send a packet with this first byte before it
/// has CONNACK [MQTT-3.1.2-30].
pub fn may_precede_connack(first: u8) -> bool {
    matches!(first >> 4, kind::DISCONNECT | kind::AUTH)
}

/// Decodes one whole packet that a client sent. `version` is what its CONNECT named; `None`:
/// CONNECT is still to come and nothing else is allowed [MQTT-3.1.0-1].
///
/// # Errors
/// The first rule of the standard that the packet breaks. The connection must then be closed.
#[inline]
pub fn decode(packet: &[u8], version: Option<Version>) -> Result<Packet<'_>, DecodeError> {
    let (first, mut body) = split(packet)?;
    let Some(version) = version else {
        if !is_connect(first) {
            return Err(NO_CONNECT);
        }
        return connect::read(first & 0x0F, body).map(Packet::Connect);
    };
    let v5 = version == Version::V5;
    match first >> 4 {
        kind::PUBLISH => publish(first, body, v5, false).map(Packet::Publish),
        kind::CONNECT => Err(DecodeError::protocol("a second CONNECT")),
        kind::SUBSCRIBE => {
            check_flags(first, version)?;
            subscribe(&mut body, v5).map(Packet::Subscribe)
        }
        kind::UNSUBSCRIBE => {
            check_flags(first, version)?;
            unsubscribe(&mut body, v5).map(Packet::Unsubscribe)
        }
        kind::PINGREQ => {
            check_flags(first, version)?;
            body.finish()?;
            Ok(Packet::PingReq)
        }
        kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => {
            Err(DecodeError::protocol("a packet that only servers send"))
        }
        _ => either(first, body, version, false),
    }
}

/// Decodes one whole packet that a server sent, for clients.
///
/// # Errors
/// As [`decode`].
pub fn decode_from_server(packet: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    let (first, mut body) = split(packet)?;
    let v5 = version == Version::V5;
    match first >> 4 {
        kind::PUBLISH => publish(first, body, v5, true).map(Packet::Publish),
        kind::CONNACK => {
            check_flags(first, version)?;
            connect::read_ack(body, version).map(Packet::ConnAck)
        }
        kind::SUBACK => {
            check_flags(first, version)?;
            suback(&mut body, v5, CodeUse::SubAck).map(Packet::SubAck)
        }
        kind::UNSUBACK => {
            check_flags(first, version)?;
            suback(&mut body, v5, CodeUse::UnsubAck).map(Packet::UnsubAck)
        }
        kind::PINGRESP => {
            check_flags(first, version)?;
            body.finish()?;
            Ok(Packet::PingResp)
        }
        kind::CONNECT | kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::PINGREQ => {
            Err(DecodeError::protocol("a packet that only clients send"))
        }
        _ => either(first, body, version, true),
    }
}

/// The first byte and what follows the fixed header, which must be the whole rest.
#[inline]
fn split(packet: &[u8]) -> Result<(u8, Reader<'_>), DecodeError> {
    let mut body = Reader::new(packet);
    let first = body.u8()?;
    let remaining = body.varint()?;
    if remaining as usize != body.len() {
        return Err(DecodeError::malformed("the packet's length is not what its header says"));
    }
    Ok((first, body))
}

/// The packets that both sides send, PUBLISH excepted.
fn either<'a>(
    first: u8,
    mut body: Reader<'a>,
    version: Version,
    from_server: bool,
) -> Result<Packet<'a>, DecodeError> {
    let v5 = version == Version::V5;
    check_flags(first, version)?;
    match first >> 4 {
        kind::PUBACK => ack(&mut body, v5, CodeUse::FirstAck).map(Packet::PubAck),
        kind::PUBREC => ack(&mut body, v5, CodeUse::FirstAck).map(Packet::PubRec),
        kind::PUBREL => ack(&mut body, v5, CodeUse::SecondAck).map(Packet::PubRel),
        kind::PUBCOMP => ack(&mut body, v5, CodeUse::SecondAck).map(Packet::PubComp),
        kind::DISCONNECT if v5 => disconnect(&mut body, from_server).map(Packet::Disconnect),
        kind::DISCONNECT if from_server => Err(DecodeError::protocol("a DISCONNECT that only clients send")),
        kind::DISCONNECT => {
            body.finish()?;
            Ok(Packet::Disconnect(Disconnect::default()))
        }
        kind::AUTH if v5 => auth(&mut body, from_server).map(Packet::Auth),
        kind::AUTH => Err(DecodeError::malformed("packet type 15, which is reserved before MQTT 5.0")),
        _ => Err(DecodeError::malformed("packet type 0")),
    }
}

/// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
#[inline]
fn check_flags(first: u8, version: Version) -> Result<(), DecodeError> {
    let two = matches!(first >> 4, kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE);
    let flags = first & 0x0F;
    // In 3.1 these three are resent with DUP set.
    let flags = if two && version == Version::V31 { flags & !0x08 } else { flags };
    if flags == if two { 2 } else { 0 } { Ok(()) } else { Err(WRONG_FLAGS) }
}

#[inline]
fn publish(first: u8, mut body: Reader<'_>, v5: bool, from_server: bool) -> Result<Publish<'_>, DecodeError> {
    let dup = first & 0x08 != 0;
    let qos = QoS::from_u8(first >> 1 & 3).ok_or(DecodeError::malformed("a PUBLISH with QoS 3"))?;
    if dup && qos == QoS::AtMostOnce {
        // [MQTT-3.3.1-2]
        return Err(DecodeError::malformed("a PUBLISH with QoS 0 and DUP"));
    }
    let name = body.str()?;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { body.packet_id()? };
    let found = if v5 {
        properties::read_message(&mut body, property::PUBLISH, from_server)?
    } else {
        properties::MessageProperties::default()
    };
    if topic::has_wildcard(name) {
        // [MQTT-3.3.2-2]
        return Err(DecodeError::new(ReasonCode::TopicNameInvalid, "a wildcard in a topic name"));
    }
    if name.is_empty() && found.topic_alias == 0 {
        return Err(if v5 {
            DecodeError::protocol("a PUBLISH with neither a topic name nor a topic alias")
        } else {
            DecodeError::new(ReasonCode::TopicNameInvalid, "an empty topic name")
        });
    }
    Ok(Publish {
        dup,
        qos,
        retain: first & 1 != 0,
        topic: name,
        packet_id,
        topic_alias: found.topic_alias,
        expiry_s: found.expiry_s,
        payload: body.rest(),
        properties: found.forward,
        block: found.block,
    })
}

#[inline]
fn ack<'a>(body: &mut Reader<'a>, v5: bool, usage: CodeUse) -> Result<Ack<'a>, DecodeError> {
    let mut ack = Ack {
        packet_id: body.packet_id()?,
        reason: ReasonCode::Success,
        reason_string: None,
        user_properties: UserProperties::NONE,
    };
    if v5 && !body.is_empty() {
        ack.reason = reason_code(body.u8()?, usage)?;
        if !body.is_empty() {
            (ack.reason_string, ack.user_properties) = ack_properties(body)?;
        }
    }
    body.finish()?;
    Ok(ack)
}

pub(super) fn reason_code(value: u8, usage: CodeUse) -> Result<ReasonCode, DecodeError> {
    match ReasonCode::from_u8(value) {
        None => Err(DecodeError::malformed("an undefined reason code")),
        Some(code) if code.is_defined_for(usage) => Ok(code),
        Some(_) => Err(DecodeError::protocol("a reason code that this packet cannot carry")),
    }
}

fn ack_properties<'a>(body: &mut Reader<'a>) -> Result<(Option<&'a str>, UserProperties<'a>), DecodeError> {
    let mut reason_string = None;
    let user = properties::read(body, property::ACK, |p| {
        if let Property::ReasonString(text) = p {
            reason_string = Some(text);
        }
        Ok(())
    })?;
    Ok((reason_string, user))
}

fn subscribe<'a>(body: &mut Reader<'a>, v5: bool) -> Result<Subscribe<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let mut subscription_id = 0;
    let mut user_properties = UserProperties::NONE;
    if v5 {
        user_properties = properties::read(body, property::SUBSCRIBE, |p| {
            if let Property::SubscriptionIdentifier(id) = p {
                subscription_id = id;
            }
            Ok(())
        })?;
    }
    let filters = SubscribeFilters::check(body.rest(), v5)?;
    Ok(Subscribe { packet_id, subscription_id, filters, user_properties })
}

fn unsubscribe<'a>(body: &mut Reader<'a>, v5: bool) -> Result<Unsubscribe<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let mut user_properties = UserProperties::NONE;
    if v5 {
        user_properties = properties::read(body, property::UNSUBSCRIBE, |_| Ok(()))?;
    }
    Ok(Unsubscribe { packet_id, filters: Filters::check(body.rest())?, user_properties })
}

/// SUBACK and UNSUBACK.
fn suback<'a>(body: &mut Reader<'a>, v5: bool, usage: CodeUse) -> Result<SubAck<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let (mut reason_string, mut user_properties) = (None, UserProperties::NONE);
    if v5 {
        (reason_string, user_properties) = ack_properties(body)?;
    } else if usage == CodeUse::UnsubAck {
        body.finish()?;
    }
    let bytes = body.rest();
    if bytes.is_empty() && (v5 || usage == CodeUse::SubAck) {
        return Err(DecodeError::protocol("an acknowledgement without reason codes"));
    }
    for code in bytes {
        reason_code(*code, usage)?;
        if !v5 && !matches!(code, 0..=2 | 0x80) {
            return Err(DecodeError::malformed("a SUBACK return code that 3.1.1 does not define"));
        }
    }
    Ok(SubAck { packet_id, codes: Codes { bytes }, reason_string, user_properties })
}

fn disconnect<'a>(body: &mut Reader<'a>, from_server: bool) -> Result<Disconnect<'a>, DecodeError> {
    let mut disconnect = Disconnect::default();
    let (usage, allowed) = if from_server {
        (CodeUse::DisconnectByServer, property::DISCONNECT_BY_SERVER)
    } else {
        (CodeUse::DisconnectByClient, property::DISCONNECT_BY_CLIENT)
    };
    if !body.is_empty() {
        disconnect.reason = reason_code(body.u8()?, usage)?;
        if !body.is_empty() {
            disconnect.user_properties = properties::read(body, allowed, |p| {
                match p {
                    Property::SessionExpiryInterval(s) => disconnect.session_expiry_s = Some(s),
                    Property::ReasonString(text) => disconnect.reason_string = Some(text),
                    Property::ServerReference(text) => disconnect.server_reference = Some(text),
                    _ => {}
                }
                Ok(())
            })?;
        }
    }
    body.finish()?;
    Ok(disconnect)
}

fn auth<'a>(body: &mut Reader<'a>, from_server: bool) -> Result<Auth<'a>, DecodeError> {
    let mut auth = Auth::default();
    let usage = if from_server { CodeUse::AuthByServer } else { CodeUse::AuthByClient };
    if body.is_empty() {
        // Stands for success without properties.
        reason_code(0, usage)?;
        return Ok(auth);
    }
    auth.reason = reason_code(body.u8()?, usage)?;
    auth.user_properties = properties::read(body, property::AUTH, |p| {
        match p {
            Property::AuthenticationMethod(method) => auth.method = Some(method),
            Property::AuthenticationData(data) => auth.data = Some(data),
            Property::ReasonString(text) => auth.reason_string = Some(text),
            _ => {}
        }
        Ok(())
    })?;
    body.finish()?;
    if auth.method.is_none() {
        return Err(DecodeError::protocol("an AUTH without authentication method"));
    }
    Ok(auth)
}
