//! Control packets, borrowing the bytes they were decoded from. The same types are what the
//! encoder takes, where a packet has more than a couple of fields.

use std::borrow::Cow;

use super::lists::{Filters, SubscribeFilters};
use super::properties::{ForwardProperties, Properties, UserProperties};
use super::property::Property;
use super::{QoS, ReasonCode, Version};

/// One control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(SubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The standard's name of the packet type, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Packet::Connect(_) => "CONNECT",
            Packet::ConnAck(_) => "CONNACK",
            Packet::Publish(_) => "PUBLISH",
            Packet::PubAck(_) => "PUBACK",
            Packet::PubRec(_) => "PUBREC",
            Packet::PubRel(_) => "PUBREL",
            Packet::PubComp(_) => "PUBCOMP",
            Packet::Subscribe(_) => "SUBSCRIBE",
            Packet::SubAck(_) => "SUBACK",
            Packet::Unsubscribe(_) => "UNSUBSCRIBE",
            Packet::UnsubAck(_) => "UNSUBACK",
            Packet::PingReq => "PINGREQ",
            Packet::PingResp => "PINGRESP",
            Packet::Disconnect(_) => "DISCONNECT",
            Packet::Auth(_) => "AUTH",
        }
    }
}

/// CONNECT [MQTT-3.1]. What 3.x cannot say has 5.0's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: Version,
    /// A 3.x bridge announced itself by the high bit of the protocol level, as mosquitto does:
    /// it wants the retain flag kept and its own messages not sent back.
    pub bridge: bool,
    /// Clean Start; Clean Session in 3.x.
    pub clean_start: bool,
    /// Seconds; 0: no keep-alive.
    pub keep_alive_s: u16,
    /// May be empty. 3.x with `clean_start` false must then be refused with 0x85
    /// [MQTT-3.1.3-8 of 3.1.1]; that is the session's business.
    pub client_id: &'a str,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub will: Option<Will<'a>>,
    /// Session Expiry Interval, seconds; `u32::MAX`: never expires.
    pub session_expiry_s: u32,
    /// At least 1.
    pub receive_maximum: u16,
    /// Bytes of a whole packet, at least 1; `None`: no limit.
    pub maximum_packet_size: Option<u32>,
    pub topic_alias_maximum: u16,
    pub request_response_information: bool,
    pub request_problem_information: bool,
    pub auth_method: Option<&'a str>,
    /// Never without `auth_method`.
    pub auth_data: Option<&'a [u8]>,
    pub user_properties: UserProperties<'a>,
}

impl Connect<'_> {
    /// A CONNECT with the standard's defaults and nothing else.
    pub const fn new(version: Version) -> Self {
        Connect {
            version,
            bridge: false,
            clean_start: true,
            keep_alive_s: 0,
            client_id: "",
            username: None,
            password: None,
            will: None,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            auth_method: None,
            auth_data: None,
            user_properties: UserProperties::NONE,
        }
    }
}

/// The will of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// Will Delay Interval, seconds.
    pub delay_s: u32,
    /// Message Expiry Interval, seconds.
    pub expiry_s: Option<u32>,
    pub properties: ForwardProperties<'a>,
}

impl<'a> Will<'a> {
    /// See [`Publish::forward_properties`].
    pub fn forward_properties(&self) -> Cow<'a, [u8]> {
        self.properties.to_wire()
    }
}

/// CONNACK [MQTT-3.2]. A 3.x return code reads as the 5.0 code that says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Does not exist in 3.1.
    pub session_present: bool,
    pub reason: ReasonCode,
    /// Seconds; `None`: as the client asked.
    pub session_expiry_s: Option<u32>,
    /// At least 1.
    pub receive_maximum: u16,
    pub maximum_qos: QoS,
    pub retain_available: bool,
    /// Bytes of a whole packet, at least 1; `None`: no limit.
    pub maximum_packet_size: Option<u32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_maximum: u16,
    pub reason_string: Option<&'a str>,
    pub wildcard_subscriptions: bool,
    pub subscription_identifiers: bool,
    pub shared_subscriptions: bool,
    /// Seconds; `None`: as the client asked.
    pub server_keep_alive_s: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
    pub auth_method: Option<&'a str>,
    pub auth_data: Option<&'a [u8]>,
    pub user_properties: UserProperties<'a>,
}

impl ConnAck<'_> {
    /// A CONNACK with the standard's defaults.
    pub const fn new(reason: ReasonCode) -> Self {
        ConnAck {
            session_present: false,
            reason,
            session_expiry_s: None,
            receive_maximum: u16::MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            reason_string: None,
            wildcard_subscriptions: true,
            subscription_identifiers: true,
            shared_subscriptions: true,
            server_keep_alive_s: None,
            response_information: None,
            server_reference: None,
            auth_method: None,
            auth_data: None,
            user_properties: UserProperties::NONE,
        }
    }
}

/// PUBLISH [MQTT-3.3].
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only with a topic alias.
    pub topic: &'a str,
    /// 0 for QoS 0, never otherwise.
    pub packet_id: u16,
    /// 0: none.
    pub topic_alias: u16,
    /// Message Expiry Interval, seconds.
    pub expiry_s: Option<u32>,
    pub payload: &'a [u8],
    pub properties: ForwardProperties<'a>,
    pub(super) block: &'a [u8],
}

impl<'a> Publish<'a> {
    /// The forwardable properties in wire form without a length prefix, as
    /// [`super::Publication`] carries them. Borrowed unless something that is not forwardable
    /// stands between them.
    #[inline]
    pub fn forward_properties(&self) -> Cow<'a, [u8]> {
        self.properties.to_wire()
    }

    /// The subscription identifiers a server sent along [MQTT-3.3.4-3].
    pub fn subscription_ids(&self) -> impl Iterator<Item = u32> + use<'a> {
        Properties::new(self.block).filter_map(|p| match p {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }
}

impl PartialEq for Publish<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.dup == other.dup
            && self.qos == other.qos
            && self.retain == other.retain
            && self.topic == other.topic
            && self.packet_id == other.packet_id
            && self.topic_alias == other.topic_alias
            && self.expiry_s == other.expiry_s
            && self.payload == other.payload
            && self.properties == other.properties
            && self.subscription_ids().eq(other.subscription_ids())
    }
}

impl Eq for Publish<'_> {}

/// PUBACK, PUBREC, PUBREL or PUBCOMP [MQTT-3.4] to [MQTT-3.7].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// Always success in 3.x.
    pub reason: ReasonCode,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

/// SUBSCRIBE [MQTT-3.8].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// 0: none.
    pub subscription_id: u32,
    /// At least one.
    pub filters: SubscribeFilters<'a>,
    pub user_properties: UserProperties<'a>,
}

/// UNSUBSCRIBE [MQTT-3.10].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// At least one.
    pub filters: Filters<'a>,
    pub user_properties: UserProperties<'a>,
}

/// SUBACK or UNSUBACK [MQTT-3.9], [MQTT-3.11].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// One per filter; none in a 3.x UNSUBACK.
    pub codes: Codes<'a>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

/// The reason codes of a SUBACK or UNSUBACK, in the order of the filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Codes<'a> {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = ReasonCode> + use<'a> {
        self.bytes.iter().filter_map(|b| ReasonCode::from_u8(*b))
    }
}

/// DISCONNECT [MQTT-3.14].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Always success in 3.x.
    pub reason: ReasonCode,
    /// A new Session Expiry Interval, seconds; from clients only. That it must not become
    /// non-zero when CONNECT said 0 is the session's business [MQTT-3.14.2.2.2].
    pub session_expiry_s: Option<u32>,
    pub reason_string: Option<&'a str>,
    /// From servers only.
    pub server_reference: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}

/// AUTH [MQTT-3.15].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    /// Missing only from a server's success without properties.
    pub method: Option<&'a str>,
    pub data: Option<&'a [u8]>,
    pub reason_string: Option<&'a str>,
    pub user_properties: UserProperties<'a>,
}
