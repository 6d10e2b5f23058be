//! Writes the data types of MQTT to the end of a buffer.

use super::decode::MAX_REMAINING_LEN;
use super::property::{Property, id};

/// Longest string or binary field, bytes.
pub(super) const MAX_FIELD_LEN: usize = 65_535;

/// How many bytes a Variable Byte Integer takes.
#[inline]
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// A Variable Byte Integer in its shortest form [MQTT-1.5.5-1] and its length.
#[inline]
fn varint_bytes(value: usize) -> ([u8; 4], usize) {
    let mut rest = if value > MAX_REMAINING_LEN { MAX_REMAINING_LEN } else { value };
    let mut bytes = [0; 4];
    let mut len = 0;
    loop {
        bytes[len] = (rest & 0x7F) as u8;
        rest >>= 7;
        if rest == 0 || len == 3 {
            return (bytes, len + 1);
        }
        bytes[len] |= 0x80;
        len += 1;
    }
}

/// `value` is at most [`MAX_REMAINING_LEN`].
#[inline]
pub(super) fn varint(out: &mut Vec<u8>, value: usize) {
    let (bytes, len) = varint_bytes(value);
    out.extend_from_slice(&bytes[..len]);
}

#[inline]
pub(super) fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Binary Data; what exceeds [`MAX_FIELD_LEN`] is cut.
#[inline]
pub(super) fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX_FIELD_LEN)];
    u16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

/// A UTF-8 Encoded String; what exceeds [`MAX_FIELD_LEN`] is cut between characters.
#[inline]
pub(super) fn str(out: &mut Vec<u8>, text: &str) {
    binary(out, &text.as_bytes()[..text.floor_char_boundary(MAX_FIELD_LEN)]);
}

/// Writes what `body` writes, preceded by its length.
pub(super) fn prefixed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    // Nearly always one byte is enough; the rest is made room for afterwards.
    out.push(0);
    body(out);
    let (bytes, len) = varint_bytes(out.len() - at - 1);
    if len == 1 {
        out[at] = bytes[0];
    } else {
        out.splice(at..=at, bytes[..len].iter().copied());
    }
}

/// Writes a whole packet whose body is what `body` writes.
pub(super) fn packet(out: &mut Vec<u8>, kind: u8, flags: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind << 4 | flags);
    prefixed(out, body);
}

/// One property: identifier and value.
pub(super) fn property(out: &mut Vec<u8>, property: Property<'_>) {
    use Property::*;
    match property {
        PayloadFormatIndicator(yes) => byte(out, id::PAYLOAD_FORMAT_INDICATOR, u8::from(yes)),
        MessageExpiryInterval(s) => four(out, id::MESSAGE_EXPIRY_INTERVAL, s),
        ContentType(text) => string(out, id::CONTENT_TYPE, text),
        ResponseTopic(text) => string(out, id::RESPONSE_TOPIC, text),
        CorrelationData(data) => bytes(out, id::CORRELATION_DATA, data),
        SubscriptionIdentifier(value) => {
            out.push(id::SUBSCRIPTION_IDENTIFIER);
            varint(out, value as usize);
        }
        SessionExpiryInterval(s) => four(out, id::SESSION_EXPIRY_INTERVAL, s),
        AssignedClientIdentifier(text) => string(out, id::ASSIGNED_CLIENT_IDENTIFIER, text),
        ServerKeepAlive(s) => two(out, id::SERVER_KEEP_ALIVE, s),
        AuthenticationMethod(text) => string(out, id::AUTHENTICATION_METHOD, text),
        AuthenticationData(data) => bytes(out, id::AUTHENTICATION_DATA, data),
        RequestProblemInformation(yes) => byte(out, id::REQUEST_PROBLEM_INFORMATION, u8::from(yes)),
        WillDelayInterval(s) => four(out, id::WILL_DELAY_INTERVAL, s),
        RequestResponseInformation(yes) => byte(out, id::REQUEST_RESPONSE_INFORMATION, u8::from(yes)),
        ResponseInformation(text) => string(out, id::RESPONSE_INFORMATION, text),
        ServerReference(text) => string(out, id::SERVER_REFERENCE, text),
        ReasonString(text) => string(out, id::REASON_STRING, text),
        ReceiveMaximum(max) => two(out, id::RECEIVE_MAXIMUM, max),
        TopicAliasMaximum(max) => two(out, id::TOPIC_ALIAS_MAXIMUM, max),
        TopicAlias(alias) => two(out, id::TOPIC_ALIAS, alias),
        MaximumQoS(qos) => byte(out, id::MAXIMUM_QOS, qos as u8),
        RetainAvailable(yes) => byte(out, id::RETAIN_AVAILABLE, u8::from(yes)),
        UserProperty(name, value) => {
            string(out, id::USER_PROPERTY, name);
            str(out, value);
        }
        MaximumPacketSize(max) => four(out, id::MAXIMUM_PACKET_SIZE, max),
        WildcardSubscriptionAvailable(yes) => {
            byte(out, id::WILDCARD_SUBSCRIPTION_AVAILABLE, u8::from(yes));
        }
        SubscriptionIdentifierAvailable(yes) => {
            byte(out, id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, u8::from(yes));
        }
        SharedSubscriptionAvailable(yes) => byte(out, id::SHARED_SUBSCRIPTION_AVAILABLE, u8::from(yes)),
    }
}

/// Whether every field of the property fits its length prefix.
pub(super) fn fits(property: Property<'_>) -> bool {
    use Property::*;
    let longest = match property {
        ContentType(s)
        | ResponseTopic(s)
        | AssignedClientIdentifier(s)
        | AuthenticationMethod(s)
        | ResponseInformation(s)
        | ServerReference(s)
        | ReasonString(s) => s.len(),
        CorrelationData(b) | AuthenticationData(b) => b.len(),
        UserProperty(name, value) => name.len().max(value.len()),
        SubscriptionIdentifier(id) => return id as usize <= MAX_REMAINING_LEN,
        _ => 0,
    };
    longest <= MAX_FIELD_LEN
}

fn byte(out: &mut Vec<u8>, id: u8, value: u8) {
    out.extend_from_slice(&[id, value]);
}

fn two(out: &mut Vec<u8>, id: u8, value: u16) {
    out.push(id);
    u16(out, value);
}

fn four(out: &mut Vec<u8>, id: u8, value: u32) {
    out.push(id);
    out.extend_from_slice(&value.to_be_bytes());
}

fn string(out: &mut Vec<u8>, id: u8, text: &str) {
    out.push(id);
    str(out, text);
}

fn bytes(out: &mut Vec<u8>, id: u8, data: &[u8]) {
    out.push(id);
    binary(out, data);
}
