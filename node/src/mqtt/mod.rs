//! The MQTT wire format, versions 3.1, 3.1.1 and 5.0: strict decoding of borrowed bytes,
//! encoding into a caller's buffer. Pure: no I/O, no async, no clock.

mod connect;
mod decode;
pub mod encode;
mod error;
mod lists;
mod message;
mod packet;
mod properties;
mod property;
mod reader;
mod reason;
#[cfg(test)]
mod tests;
pub mod topic;
mod write;

pub use decode::{
    MAX_REMAINING_LEN, NO_CONNECT, decode, decode_from_server, frame_len, is_connect, is_publish,
    is_subscription, may_precede_connack,
};
pub use encode::PublishOut;
pub use error::{DecodeError, Oversize};
pub use lists::{Filters, SubscribeFilter, SubscribeFilters};
pub(crate) use message::raw;
pub use message::{Message, Publication};
pub use packet::{
    Ack, Auth, Codes, ConnAck, Connect, Disconnect, Packet, Publish, SubAck, Subscribe, Unsubscribe, Will,
};
pub use properties::{ForwardProperties, Properties, UserProperties};
pub use property::Property;
pub use reason::ReasonCode;

/// The protocol level a client named in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

/// Quality of service [MQTT-4.3].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[repr(u8)]
pub enum QoS {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    /// `None` above 2.
    #[inline]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// Options of one subscription [MQTT-3.8.3.1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SubOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0 send retained, 1 send if the subscription is new, 2 do not send.
    pub retain_handling: u8,
}
