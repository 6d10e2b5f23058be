//! Properties of MQTT 5.0.

/// Identifiers of the properties [MQTT-2.2.2.2].
pub mod prop {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY_S: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY_S: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE_S: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_S: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1a;
    pub const SERVER_REFERENCE: u8 = 0x1c;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub const SHARED_AVAILABLE: u8 = 0x2a;
}

/// One property's value, in its wire type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prop {
    Byte(u8),
    U16(u16),
    U32(u32),
    Varint(u32),
    Bytes(Vec<u8>),
    Str(String),
    Pair(String, String),
}

/// Properties in the order of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Props(pub Vec<(u8, Prop)>);

impl Props {
    /// The same with one more property.
    #[must_use]
    pub fn with(mut self, id: u8, value: Prop) -> Self {
        self.0.push((id, value));
        self
    }

    pub fn get(&self, id: u8) -> Option<&Prop> {
        self.0.iter().find(|(have, _)| *have == id).map(|(_, value)| value)
    }

    /// A property that is a number of any width.
    pub fn number(&self, id: u8) -> Option<u32> {
        match self.get(id)? {
            Prop::Byte(value) => Some(u32::from(*value)),
            Prop::U16(value) => Some(u32::from(*value)),
            Prop::U32(value) | Prop::Varint(value) => Some(*value),
            _ => None,
        }
    }

    pub fn text(&self, id: u8) -> Option<&str> {
        match self.get(id)? {
            Prop::Str(value) => Some(value),
            _ => None,
        }
    }

    /// Every value of a property that may repeat, as numbers.
    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let of_id = self.0.iter().filter(|(have, _)| *have == id);
        of_id.filter_map(|(_, value)| Props(vec![(id, value.clone())]).number(id)).collect()
    }

    /// User properties in order.
    pub fn user(&self) -> Vec<(&str, &str)> {
        let pairs = self.0.iter().filter_map(|(_, value)| match value {
            Prop::Pair(name, value) => Some((name.as_str(), value.as_str())),
            _ => None,
        });
        pairs.collect()
    }
}
