//! One property of MQTT 5.0 [section 2.2.2.2], and which packet may carry it.

use super::reader::Reader;
use super::{DecodeError, QoS, ReasonCode, topic};

/// A property with its value in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// The payload is UTF-8 text.
    PayloadFormatIndicator(bool),
    /// Seconds.
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    /// Seconds; `u32::MAX`: never.
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    /// Seconds.
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    /// Seconds.
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    /// Bytes.
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// Property identifiers.
pub(super) mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// A set of property identifiers.
#[derive(Clone, Copy)]
pub(super) struct Ids(u64);

impl Ids {
    pub const NONE: Ids = Ids(0);

    pub const fn of(ids: &[u8]) -> Ids {
        let mut set = 0;
        let mut i = 0;
        while i < ids.len() {
            set |= 1 << ids[i];
            i += 1;
        }
        Ids(set)
    }

    pub const fn and(self, other: Ids) -> Ids {
        Ids(self.0 | other.0)
    }

    #[inline]
    pub const fn has(self, id: u8) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }

    #[inline]
    pub fn insert(&mut self, id: u8) {
        self.0 |= 1 << (id & 63);
    }
}

/// What a message keeps on its way through the broker [MQTT-3.3.2-4], [MQTT-3.3.2-15] to
/// [MQTT-3.3.2-20].
pub(super) const FORWARDABLE: Ids = Ids::of(&[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
]);

pub(super) const PUBLISH: Ids =
    FORWARDABLE.and(Ids::of(&[id::MESSAGE_EXPIRY_INTERVAL, id::TOPIC_ALIAS, id::SUBSCRIPTION_IDENTIFIER]));

pub(super) const WILL: Ids =
    FORWARDABLE.and(Ids::of(&[id::WILL_DELAY_INTERVAL, id::MESSAGE_EXPIRY_INTERVAL]));

pub(super) const CONNECT: Ids = Ids::of(&[
    id::SESSION_EXPIRY_INTERVAL,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFORMATION,
    id::REQUEST_PROBLEM_INFORMATION,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
]);

pub(super) const CONNACK: Ids = Ids::of(&[
    id::SESSION_EXPIRY_INTERVAL,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_QOS,
    id::RETAIN_AVAILABLE,
    id::MAXIMUM_PACKET_SIZE,
    id::ASSIGNED_CLIENT_IDENTIFIER,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REASON_STRING,
    id::USER_PROPERTY,
    id::WILDCARD_SUBSCRIPTION_AVAILABLE,
    id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    id::SHARED_SUBSCRIPTION_AVAILABLE,
    id::SERVER_KEEP_ALIVE,
    id::RESPONSE_INFORMATION,
    id::SERVER_REFERENCE,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
]);

/// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
pub(super) const ACK: Ids = Ids::of(&[id::REASON_STRING, id::USER_PROPERTY]);

pub(super) const SUBSCRIBE: Ids = Ids::of(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);

pub(super) const UNSUBSCRIBE: Ids = Ids::of(&[id::USER_PROPERTY]);

pub(super) const DISCONNECT_BY_CLIENT: Ids =
    Ids::of(&[id::SESSION_EXPIRY_INTERVAL, id::REASON_STRING, id::USER_PROPERTY]);

/// A server never sends a session expiry interval there [MQTT-3.14.2-2].
pub(super) const DISCONNECT_BY_SERVER: Ids =
    Ids::of(&[id::SERVER_REFERENCE, id::REASON_STRING, id::USER_PROPERTY]);

pub(super) const AUTH: Ids =
    Ids::of(&[id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING, id::USER_PROPERTY]);

impl<'a> Property<'a> {
    /// Reads the value of the property `id`.
    #[inline]
    pub(super) fn read(id: u8, from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        use Property::*;
        Ok(match id {
            id::PAYLOAD_FORMAT_INDICATOR => {
                PayloadFormatIndicator(flag(from, "payload format indicator above 1")?)
            }
            id::MESSAGE_EXPIRY_INTERVAL => MessageExpiryInterval(from.u32()?),
            id::CONTENT_TYPE => ContentType(from.str()?),
            id::RESPONSE_TOPIC => ResponseTopic(response_topic(from.str()?)?),
            id::CORRELATION_DATA => CorrelationData(from.binary()?),
            id::SUBSCRIPTION_IDENTIFIER => match from.varint()? {
                0 => return Err(DecodeError::protocol("subscription identifier 0")),
                id => SubscriptionIdentifier(id),
            },
            id::SESSION_EXPIRY_INTERVAL => SessionExpiryInterval(from.u32()?),
            id::ASSIGNED_CLIENT_IDENTIFIER => AssignedClientIdentifier(from.str()?),
            id::SERVER_KEEP_ALIVE => ServerKeepAlive(from.u16()?),
            id::AUTHENTICATION_METHOD => AuthenticationMethod(from.str()?),
            id::AUTHENTICATION_DATA => AuthenticationData(from.binary()?),
            id::REQUEST_PROBLEM_INFORMATION => {
                RequestProblemInformation(flag(from, "request problem information above 1")?)
            }
            id::WILL_DELAY_INTERVAL => WillDelayInterval(from.u32()?),
            id::REQUEST_RESPONSE_INFORMATION => {
                RequestResponseInformation(flag(from, "request response information above 1")?)
            }
            id::RESPONSE_INFORMATION => ResponseInformation(from.str()?),
            id::SERVER_REFERENCE => ServerReference(from.str()?),
            id::REASON_STRING => ReasonString(from.str()?),
            id::RECEIVE_MAXIMUM => match from.u16()? {
                0 => return Err(DecodeError::protocol("receive maximum 0")),
                max => ReceiveMaximum(max),
            },
            id::TOPIC_ALIAS_MAXIMUM => TopicAliasMaximum(from.u16()?),
            id::TOPIC_ALIAS => match from.u16()? {
                0 => return Err(DecodeError::new(ReasonCode::TopicAliasInvalid, "topic alias 0")),
                alias => TopicAlias(alias),
            },
            id::MAXIMUM_QOS => match from.u8()? {
                0 => MaximumQoS(QoS::AtMostOnce),
                1 => MaximumQoS(QoS::AtLeastOnce),
                _ => return Err(DecodeError::protocol("maximum QoS above 1")),
            },
            id::RETAIN_AVAILABLE => RetainAvailable(flag(from, "retain available above 1")?),
            id::USER_PROPERTY => UserProperty(from.str()?, from.str()?),
            id::MAXIMUM_PACKET_SIZE => match from.u32()? {
                0 => return Err(DecodeError::protocol("maximum packet size 0")),
                max => MaximumPacketSize(max),
            },
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                WildcardSubscriptionAvailable(flag(from, "wildcard subscription available above 1")?)
            }
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                SubscriptionIdentifierAvailable(flag(from, "subscription identifier available above 1")?)
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                SharedSubscriptionAvailable(flag(from, "shared subscription available above 1")?)
            }
            _ => return Err(DecodeError::malformed("an unknown property")),
        })
    }
}

fn flag(from: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol(what)),
    }
}

/// [MQTT-3.3.2-14]
fn response_topic(text: &str) -> Result<&str, DecodeError> {
    match topic::valid_name(text, usize::MAX) {
        Ok(()) => Ok(text),
        Err(topic::TopicError::WildcardInName) => {
            Err(DecodeError::new(ReasonCode::TopicNameInvalid, "a wildcard in the response topic"))
        }
        Err(_) => Err(DecodeError::new(ReasonCode::TopicNameInvalid, "an empty response topic")),
    }
}
