//! An application message, borrowed on the fast path and owned where it waits.

use std::sync::Arc;

use super::QoS;

/// An application message as it passes through the broker, borrowing the reader's buffer.
///
/// `properties` holds the forwardable MQTT 5.0 properties (payload format, content type,
/// response topic, correlation data, user properties, in the order they came), already in wire
/// form without their length prefix. Topic alias, subscription identifiers and the message
/// expiry interval are not in it: they differ per receiver.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// When the message expires, in milliseconds of the cluster's clock; 0 means never.
    pub expires_at_ms: u64,
    /// The client id of the publisher, for No Local [MQTT-3.8.3-3]; empty for the broker's own.
    pub publisher: &'a str,
}

/// An owned application message, shared by all who hold it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    pub topic: Box<str>,
    #[serde(with = "raw")]
    pub payload: Box<[u8]>,
    #[serde(with = "raw")]
    pub properties: Box<[u8]>,
    pub qos: QoS,
    pub retain: bool,
    pub expires_at_ms: u64,
    pub publisher: Box<str>,
}

impl Message {
    pub fn borrow(&self) -> Publication<'_> {
        Publication {
            topic: &self.topic,
            payload: &self.payload,
            properties: &self.properties,
            qos: self.qos,
            retain: self.retain,
            expires_at_ms: self.expires_at_ms,
            publisher: &self.publisher,
        }
    }

    /// All but payload and properties.
    pub fn head(&self) -> Self {
        let (payload, properties) = (Box::default(), Box::default());
        let (topic, publisher) = (self.topic.clone(), self.publisher.clone());
        let Self { qos, retain, expires_at_ms, .. } = *self;
        Self { topic, payload, properties, qos, retain, expires_at_ms, publisher }
    }

    /// Bytes this message holds, for limits.
    pub fn size_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len() + self.publisher.len()
    }
}

impl Publication<'_> {
    pub fn to_message(&self) -> Arc<Message> {
        Arc::new(Message {
            topic: self.topic.into(),
            payload: self.payload.into(),
            properties: self.properties.into(),
            qos: self.qos,
            retain: self.retain,
            expires_at_ms: self.expires_at_ms,
            publisher: self.publisher.into(),
        })
    }
}

/// Bytes as one run instead of number by number: the same encoding, made a hundred times faster.
pub(crate) mod raw {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes.as_ref())
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: From<Box<[u8]>>>(from: D) -> Result<T, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Box<[u8]>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(bytes.into())
            }
        }

        from.deserialize_bytes(Bytes).map(T::from)
    }
}
