//! From packets to bytes, appended to a caller's buffer in one pass: what servers send, and
//! (in `client`) what only clients send.

mod client;

pub use client::*;

use super::decode::{MAX_REMAINING_LEN, kind};
use super::packet::{Auth, ConnAck, Disconnect};
use super::property::{Property, id};
use super::write;
use super::{Oversize, Publication, QoS, ReasonCode, UserProperties, Version};

/// A PUBLISH to be sent. Where the message itself and the delivery differ (QoS, retain, expiry),
/// the delivery's fields count.
#[derive(Clone, Copy, Debug)]
pub struct PublishOut<'a> {
    pub version: Version,
    pub message: &'a Publication<'a>,
    /// QoS of this delivery.
    pub qos: QoS,
    /// Ignored at QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    pub retain: bool,
    /// Not 0, unless `qos` is 0, where it is ignored, or the caller patches it in afterwards.
    pub packet_id: u16,
    /// 5.0 only; each in 1..=268,435,455 [MQTT-3.3.4-3].
    pub subscription_ids: &'a [u32],
    /// 5.0 only: the alias, never 0, and whether the topic name goes with it, as it must the
    /// first time.
    pub topic_alias: Option<(u16, bool)>,
    /// Remaining seconds of life, 5.0 only [MQTT-3.3.2-6].
    pub expiry_s: Option<u32>,
}

impl<'a> PublishOut<'a> {
    /// The message as it is, to a client of this version, with neither packet id nor properties
    /// of the delivery.
    pub const fn new(version: Version, message: &'a Publication<'a>) -> Self {
        PublishOut {
            version,
            message,
            qos: message.qos,
            dup: false,
            retain: message.retain,
            packet_id: 0,
            subscription_ids: &[],
            topic_alias: None,
            expiry_s: None,
        }
    }

    #[inline]
    fn topic(&self) -> &'a str {
        match self.topic_alias {
            Some((_, false)) if self.version == Version::V5 => "",
            _ => self.message.topic,
        }
    }

    /// Bytes of the property block without its length prefix.
    #[inline]
    fn properties_len(&self) -> usize {
        let mut len = self.message.properties.len();
        if self.expiry_s.is_some() {
            len += 5;
        }
        if self.topic_alias.is_some() {
            len += 3;
        }
        for id in self.subscription_ids {
            len += 1 + write::varint_len(*id as usize);
        }
        len
    }

    /// Bytes after the fixed header.
    #[inline]
    fn remaining_len(&self) -> usize {
        let mut len = 2 + self.topic().len() + self.message.payload.len();
        if self.qos != QoS::AtMostOnce {
            len += 2;
        }
        if self.version == Version::V5 {
            let properties = self.properties_len();
            len += write::varint_len(properties) + properties;
        }
        len
    }
}

/// Bytes of the whole packet that [`publish`] would append, to be compared with the client's
/// Maximum Packet Size first [MQTT-3.1.2-24].
#[inline]
pub fn publish_len(p: &PublishOut<'_>) -> usize {
    let remaining = p.remaining_len();
    1 + write::varint_len(remaining) + remaining
}

/// Appends a PUBLISH. Returns where in `out` its packet id stands, so that a frame can be
/// patched for another receiver; `None` at QoS 0.
///
/// # Errors
/// [`Oversize`]; nothing was appended then.
#[inline]
pub fn publish(out: &mut Vec<u8>, p: &PublishOut<'_>) -> Result<Option<usize>, Oversize> {
    let remaining = p.remaining_len();
    let topic = p.topic();
    if remaining > MAX_REMAINING_LEN || topic.len() > write::MAX_FIELD_LEN {
        return Err(Oversize);
    }
    out.reserve(5 + remaining);
    let has_id = p.qos != QoS::AtMostOnce;
    let dup = p.dup && has_id;
    out.push(kind::PUBLISH << 4 | u8::from(dup) << 3 | (p.qos as u8) << 1 | u8::from(p.retain));
    write::varint(out, remaining);
    write::str(out, topic);
    let id_at = has_id.then_some(out.len());
    if has_id {
        write::u16(out, p.packet_id);
    }
    if p.version == Version::V5 {
        write::varint(out, p.properties_len());
        if let Some(s) = p.expiry_s {
            write::property(out, Property::MessageExpiryInterval(s));
        }
        if let Some((alias, _)) = p.topic_alias {
            write::property(out, Property::TopicAlias(alias));
        }
        for value in p.subscription_ids {
            out.push(id::SUBSCRIPTION_IDENTIFIER);
            write::varint(out, *value as usize);
        }
        out.extend_from_slice(p.message.properties);
    }
    out.extend_from_slice(p.message.payload);
    Ok(id_at)
}

/// Appends a PUBACK. The reason is left out when it is success, and in 3.x.
#[inline]
pub fn puback(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: ReasonCode) {
    ack(out, kind::PUBACK << 4, version, packet_id, reason);
}

/// Appends a PUBREC; see [`puback`].
#[inline]
pub fn pubrec(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: ReasonCode) {
    ack(out, kind::PUBREC << 4, version, packet_id, reason);
}

/// Appends a PUBREL; see [`puback`].
#[inline]
pub fn pubrel(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: ReasonCode) {
    ack(out, kind::PUBREL << 4 | 2, version, packet_id, reason);
}

/// Appends a PUBCOMP; see [`puback`].
#[inline]
pub fn pubcomp(out: &mut Vec<u8>, version: Version, packet_id: u16, reason: ReasonCode) {
    ack(out, kind::PUBCOMP << 4, version, packet_id, reason);
}

#[inline]
fn ack(out: &mut Vec<u8>, first: u8, version: Version, packet_id: u16, reason: ReasonCode) {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V5 && reason != ReasonCode::Success {
        out.extend_from_slice(&[first, 3, high, low, reason.as_u8()]);
    } else {
        out.extend_from_slice(&[first, 2, high, low]);
    }
}

/// Appends a CONNACK. Reason string and user properties are left out if the packet would exceed
/// `max_packet` bytes with them [MQTT-3.2.2-19], [MQTT-3.2.2-20]. Returns false, with nothing
/// appended, if the version has no code for that reason or the packet cannot be made to fit: the
/// connection is closed without.
#[must_use]
pub fn connack(out: &mut Vec<u8>, version: Version, ack: &ConnAck<'_>, max_packet: u32) -> bool {
    // [MQTT-3.2.2-6]
    let present = u8::from(ack.session_present && !ack.reason.is_error());
    if version != Version::V5 {
        let Some(code) = ack.reason.connect_return_code() else { return false };
        let present = if version == Version::V31 { 0 } else { present };
        out.extend_from_slice(&[kind::CONNACK << 4, 2, present, code]);
        return true;
    }
    within(out, max_packet, |out, with_text| {
        write::packet(out, kind::CONNACK, 0, |out| {
            out.extend_from_slice(&[present, ack.reason.as_u8()]);
            write::prefixed(out, |out| connack_properties(out, ack, with_text));
        });
    })
}

/// Writes a packet with its texts or, if that exceeds `max_packet` bytes, without; or nothing
/// and returns false.
fn within(out: &mut Vec<u8>, max_packet: u32, write: impl Fn(&mut Vec<u8>, bool)) -> bool {
    let start = out.len();
    for with_text in [true, false] {
        write(out, with_text);
        if out.len() - start <= max_packet as usize {
            return true;
        }
        out.truncate(start);
    }
    false
}

fn connack_properties(out: &mut Vec<u8>, ack: &ConnAck<'_>, with_text: bool) {
    let mut put = |p| write::property(out, p);
    if let Some(s) = ack.session_expiry_s {
        put(Property::SessionExpiryInterval(s));
    }
    if ack.receive_maximum != u16::MAX {
        put(Property::ReceiveMaximum(ack.receive_maximum));
    }
    if ack.maximum_qos != QoS::ExactlyOnce {
        put(Property::MaximumQoS(ack.maximum_qos));
    }
    if !ack.retain_available {
        put(Property::RetainAvailable(false));
    }
    if let Some(max) = ack.maximum_packet_size {
        put(Property::MaximumPacketSize(max));
    }
    if let Some(id) = ack.assigned_client_id {
        put(Property::AssignedClientIdentifier(id));
    }
    if ack.topic_alias_maximum != 0 {
        put(Property::TopicAliasMaximum(ack.topic_alias_maximum));
    }
    if !ack.wildcard_subscriptions {
        put(Property::WildcardSubscriptionAvailable(false));
    }
    if !ack.subscription_identifiers {
        put(Property::SubscriptionIdentifierAvailable(false));
    }
    if !ack.shared_subscriptions {
        put(Property::SharedSubscriptionAvailable(false));
    }
    if let Some(s) = ack.server_keep_alive_s {
        put(Property::ServerKeepAlive(s));
    }
    if let Some(text) = ack.response_information {
        put(Property::ResponseInformation(text));
    }
    if let Some(text) = ack.server_reference {
        put(Property::ServerReference(text));
    }
    if let Some(method) = ack.auth_method {
        put(Property::AuthenticationMethod(method));
        if let Some(data) = ack.auth_data {
            put(Property::AuthenticationData(data));
        }
    }
    if with_text {
        text_properties(out, ack.reason_string, &ack.user_properties);
    }
}

fn text_properties(out: &mut Vec<u8>, reason_string: Option<&str>, user: &UserProperties<'_>) {
    if let Some(text) = reason_string {
        write::property(out, Property::ReasonString(text));
    }
    for (name, value) in user.iter() {
        write::property(out, Property::UserProperty(name, value));
    }
}

/// Appends a SUBACK with one code per filter, in their order [MQTT-3.9.3-1]; in 3.x any failure
/// is 0x80.
pub fn suback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[ReasonCode]) {
    write::packet(out, kind::SUBACK, 0, |out| {
        write::u16(out, packet_id);
        if version == Version::V5 {
            out.push(0);
            out.extend(codes.iter().map(|c| c.as_u8()));
        } else {
            out.extend(codes.iter().map(|c| c.subscribe_return_code()));
        }
    });
}

/// Appends an UNSUBACK with one code per filter, in their order [MQTT-3.11.3-1]; 3.x has no codes.
pub fn unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[ReasonCode]) {
    write::packet(out, kind::UNSUBACK, 0, |out| {
        write::u16(out, packet_id);
        if version == Version::V5 {
            out.push(0);
            out.extend(codes.iter().map(|c| c.as_u8()));
        }
    });
}

/// Appends a PINGRESP.
#[inline]
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGRESP << 4, 0]);
}

/// Appends a DISCONNECT of 5.0. Servers of 3.x close without one. Reason string and user
/// properties are left out if the packet would exceed `max_packet` bytes with them
/// [MQTT-3.14.2-3], [MQTT-3.14.2-4]. Returns false, with nothing appended, if it does not fit
/// even then.
#[must_use]
pub fn disconnect(out: &mut Vec<u8>, packet: &Disconnect<'_>, max_packet: u32) -> bool {
    within(out, max_packet, |out, with_text| {
        write::packet(out, kind::DISCONNECT, 0, |out| {
            let body = out.len();
            out.push(packet.reason.as_u8());
            write::prefixed(out, |out| {
                if let Some(s) = packet.session_expiry_s {
                    write::property(out, Property::SessionExpiryInterval(s));
                }
                if let Some(text) = packet.server_reference {
                    write::property(out, Property::ServerReference(text));
                }
                if with_text {
                    text_properties(out, packet.reason_string, &packet.user_properties);
                }
            });
            if out[body..] == [0, 0] {
                out.truncate(body);
            }
        });
    })
}

/// Appends an AUTH of 5.0. Reason string and user properties are left out if the packet would
/// exceed `max_packet` bytes with them [MQTT-3.15.2-2], [MQTT-3.15.2-3]. Returns false, with
/// nothing appended, if it does not fit even then.
#[must_use]
pub fn auth(out: &mut Vec<u8>, packet: &Auth<'_>, max_packet: u32) -> bool {
    within(out, max_packet, |out, with_text| {
        write::packet(out, kind::AUTH, 0, |out| {
            let body = out.len();
            out.push(packet.reason.as_u8());
            write::prefixed(out, |out| {
                if let Some(method) = packet.method {
                    write::property(out, Property::AuthenticationMethod(method));
                    if let Some(data) = packet.data {
                        write::property(out, Property::AuthenticationData(data));
                    }
                }
                if with_text {
                    text_properties(out, packet.reason_string, &packet.user_properties);
                }
            });
            if out[body..] == [0, 0] {
                out.truncate(body);
            }
        });
    })
}

/// Appends one property in wire form, to build the blocks that [`super::ForwardProperties`] and
/// [`super::UserProperties`] are made from.
///
/// # Errors
/// [`Oversize`]; nothing was appended then.
pub fn property(out: &mut Vec<u8>, property: Property<'_>) -> Result<(), Oversize> {
    if !write::fits(property) {
        return Err(Oversize);
    }
    write::property(out, property);
    Ok(())
}

/// Appends one user property in wire form; see [`property`].
///
/// # Errors
/// [`Oversize`]; nothing was appended then.
pub fn user_property(out: &mut Vec<u8>, name: &str, value: &str) -> Result<(), Oversize> {
    property(out, Property::UserProperty(name, value))
}
