//! Retained messages, and messages that operators publish.

pub(super) mod handlers;

use serde::{Deserialize, Serialize};

use super::Answer;

/// What operators may ask of a node about messages. `by` says who asks, for the audit log.
pub trait Messages: Send + Sync {
    /// Retained messages whose topics match `filter`, in the order of their topics from `cursor` on,
    /// at most `limit` of them. There may be fewer on a page, or none, and more on the next.
    ///
    /// # Errors
    /// `Invalid` if it is no filter.
    fn list_retained(&self, filter: String, cursor: Option<String>, limit: usize)
    -> Answer<'_, RetainedPage>;

    /// # Errors
    /// `NotFound`.
    fn retained(&self, topic: String) -> Answer<'_, RetainedMessage>;

    /// Removes a topic's retained message; its subscribers get an empty one. Returns once no live node
    /// has it.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if the cluster cannot agree on it in time.
    fn remove_retained(&self, by: String, topic: String) -> Answer<'_, ()>;

    /// Publishes messages in their order; what became of each, in the same order. Returns when a client
    /// would have its acknowledgements.
    ///
    /// # Errors
    /// `Invalid`, and then none is published; `Unavailable` if the cluster cannot agree in time, and then
    /// some may be.
    fn publish(&self, by: String, messages: Vec<PublishRequest>) -> Answer<'_, PublishedList>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedPage {
    pub messages: Vec<RetainedInfo>,
    /// The cursor of the next page; `None`: this was the last.
    pub next: Option<String>,
}

/// A retained message without what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedInfo {
    pub topic: String,
    /// Size of the payload.
    pub bytes: u64,
    /// As it was published: 0, 1 or 2.
    pub qos: u8,
    /// Whole seconds from now; `None`: never.
    pub expires_in_s: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedMessage {
    #[serde(flatten)]
    pub info: RetainedInfo,
    /// The client id that it came from; empty: an operator's.
    pub publisher: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Names and values in the order of the publisher; a name may come more than once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(String, String)>,
    pub payload_base64: String,
}

/// A message of `POST /api/v1/publish`, whose body is one or an array of them. Either `payload` or
/// `payload_base64`; neither is the empty payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    pub topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    #[serde(default)]
    pub qos: u8,
    #[serde(default)]
    pub retain: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedList {
    /// In the order of the request.
    pub results: Vec<PublishedInfo>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedInfo {
    /// Somebody subscribes to the topic.
    pub matched: bool,
    /// The reason code that a client would get, and from 128 on the message was refused.
    pub code: u8,
    /// What MQTT 5.0 calls it.
    pub reason: String,
}
