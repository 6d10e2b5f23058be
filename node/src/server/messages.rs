//! Retained messages as operators see and remove them, and messages that they publish.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::node::Node;
use crate::admin::messages::{
    Messages, PublishRequest, PublishedInfo, PublishedList, RetainedInfo, RetainedMessage, RetainedPage,
};
use crate::admin::{Answer, ControlError, ErrorKind};
use crate::audit;
use crate::broker::ChangeFailed;
use crate::mqtt::{ForwardProperties, Message, QoS, topic};

/// Times that one page takes the state's lock, each for a bounded number of topics: where few match,
/// the page is short instead of late.
const PAGE_STEPS_MAX: usize = 64;
/// Topics on one page, bytes; the last one may go beyond.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// How long the cluster may take to agree.
const AGREED: Duration = Duration::from_secs(10);
/// Bytes of a PUBLISH beside its topic and its payload, at most.
const PUBLISH_OVERHEAD_BYTES: usize = 16;

fn invalid(what: impl Into<String>) -> ControlError {
    ControlError::new(ErrorKind::Invalid, what)
}

fn none_on(topic: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("no message is retained on {topic:?}"))
}

async fn agreed<T, E: Into<ControlError>>(
    change: impl Future<Output = Result<T, E>>,
) -> Result<T, ControlError> {
    let unfinished = || {
        let what = "the cluster could not agree on it in time; it is done as soon as it can";
        ControlError::new(ErrorKind::Unavailable, what)
    };
    tokio::time::timeout(AGREED, change).await.map_err(|_| unfinished())?.map_err(Into::into)
}

/// `now_ms`: what the cluster's clock shows, as this node sees it.
fn info(message: &Message, now_ms: u64) -> RetainedInfo {
    let expires = (message.expires_at_ms != 0).then_some(message.expires_at_ms);
    RetainedInfo {
        topic: message.topic.to_string(),
        bytes: message.payload.len() as u64,
        qos: message.qos as u8,
        expires_in_s: expires.map(|at_ms| at_ms.saturating_sub(now_ms) / 1_000),
    }
}

fn whole(message: &Message, now_ms: u64) -> RetainedMessage {
    // They were checked when they came in.
    let properties = ForwardProperties::from_wire(&message.properties).unwrap_or_default();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    RetainedMessage {
        info: info(message, now_ms),
        publisher: message.publisher.to_string(),
        content_type: properties.content_type().map(str::to_owned),
        user_properties: properties.user_properties().iter().map(owned).collect(),
        payload_base64: STANDARD.encode(&message.payload),
    }
}

impl Node {
    fn levels_max(&self) -> usize {
        usize::from(self.config().limits.topic_levels)
    }

    async fn page(
        &self,
        filter: &str,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<RetainedPage, ControlError> {
        topic::valid_filter(filter, self.levels_max()).map_err(|e| invalid(format!("filter: {e}")))?;
        if topic::parse_share(filter).is_some() {
            return Err(invalid("filter: a shared subscription gets no retained messages"));
        }
        let member = self.of_cluster()?;
        let (mut messages, mut room_bytes) = (Vec::new(), PAGE_BYTES_MAX);
        let mut next = Some(cursor.unwrap_or_default());
        for _ in 0..PAGE_STEPS_MAX {
            let Some(from) = next else { break };
            {
                let state = member.broker.state();
                let now_ms = member.broker.clock().now_ms();
                let rest = state.list_retained(filter, &from, |message| {
                    let has_room = messages.len() < limit && room_bytes > 0;
                    if has_room {
                        room_bytes = room_bytes.saturating_sub(message.topic.len());
                        messages.push(info(message, now_ms));
                    }
                    has_room
                });
                next = rest.map(String::from);
            }
            if messages.len() == limit || room_bytes == 0 {
                break;
            }
            // Others have their turn, on this thread and with the state.
            tokio::task::yield_now().await;
        }
        Ok(RetainedPage { messages, next })
    }

    async fn remove(&self, topic: &str) -> Result<(), ControlError> {
        let member = self.of_cluster()?;
        if member.broker.state().retained_get(topic).is_none() {
            return Err(none_on(topic));
        }
        agreed(member.broker.remove_retained(topic)).await
    }

    /// The message that is asked for.
    fn message_of(&self, request: PublishRequest) -> Result<Arc<Message>, String> {
        topic::valid_name(&request.topic, self.levels_max()).map_err(|e| e.to_string())?;
        let qos = QoS::from_u8(request.qos).ok_or("qos is 0, 1 or 2")?;
        let payload = match (request.payload, request.payload_base64) {
            (Some(_), Some(_)) => return Err("either payload or payload_base64, not both".to_owned()),
            (text, None) => text.unwrap_or_default().into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).map_err(|e| format!("payload_base64: {e}"))?,
        };
        let bytes_max = self.config().limits.max_packet_size_bytes as usize;
        if request.topic.len() + payload.len() + PUBLISH_OVERHEAD_BYTES > bytes_max {
            return Err(format!("larger than limits.max_packet_size_bytes, {bytes_max}, allows"));
        }
        Ok(Arc::new(Message {
            topic: request.topic.into(),
            payload: payload.into(),
            properties: Box::default(),
            qos,
            retain: request.retain,
            expires_at_ms: 0,
            publisher: Box::default(),
        }))
    }

    async fn publish_all(&self, messages: Vec<Arc<Message>>) -> Result<PublishedList, ControlError> {
        let member = self.of_cluster()?;
        // All are on their way before the first is waited for.
        let published: Vec<_> =
            messages.into_iter().map(|message| member.broker.publish_as_operator(message)).collect();
        let all = async {
            let mut results = Vec::with_capacity(published.len());
            for one in published {
                let one = one.await.map_err(ChangeFailed::from)?;
                results.push(PublishedInfo {
                    matched: one.matched,
                    code: one.reason as u8,
                    reason: one.reason.name().to_owned(),
                });
            }
            Ok::<_, ChangeFailed>(PublishedList { results })
        };
        agreed(all).await
    }
}

impl Messages for Arc<Node> {
    fn list_retained(
        &self,
        filter: String,
        cursor: Option<String>,
        limit: usize,
    ) -> Answer<'_, RetainedPage> {
        Box::pin(async move { self.page(&filter, cursor, limit).await })
    }

    fn retained(&self, topic: String) -> Answer<'_, RetainedMessage> {
        Box::pin(async move {
            let member = self.of_cluster()?;
            let message = member.broker.state().retained_get(&topic).cloned();
            let now_ms = member.broker.clock().now_ms();
            message.map(|message| whole(&message, now_ms)).ok_or_else(|| none_on(&topic))
        })
    }

    fn remove_retained(&self, by: String, topic: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let result = self.remove(&topic).await;
            let outcome = result.as_ref().map(|_| ()).map_err(|e| e as _);
            audit::operator(&by, "retained_removed", &topic, outcome);
            result
        })
    }

    fn publish(&self, by: String, messages: Vec<PublishRequest>) -> Answer<'_, PublishedList> {
        Box::pin(async move {
            let all = messages.into_iter().zip(1..).map(|(request, number): (_, usize)| {
                self.message_of(request).map_err(|what| invalid(format!("message {number}: {what}")))
            });
            let messages = all.collect::<Result<Vec<_>, _>>()?;
            let shown = (messages.len(), messages.first().map(|message| message.topic.clone()));
            let result = self.publish_all(messages).await;
            audit::operator(&by, "publish", &shown, result.as_ref().map(|_| ()).map_err(|e| e as _));
            result
        })
    }
}
