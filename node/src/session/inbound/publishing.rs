//! The client's PUBLISH, its topic aliases resolved.

use std::sync::Arc;

use super::{Batch, Inbound};
use crate::mqtt::{DecodeError, Publication, Publish, QoS, ReasonCode};
use crate::session::acks::Receive;
use crate::session::{Conn, admission};

impl Inbound {
    pub(super) fn publish(
        &mut self,
        conn: &Arc<Conn>,
        publish: &Publish<'_>,
        batch: &mut Batch,
    ) -> Result<(), DecodeError> {
        batch.publishes += 1;
        let limits = conn.limits();
        if publish.topic_alias != 0 && !publish.topic.is_empty() {
            self.define_alias(publish.topic_alias, publish.topic, limits.topic_alias_max)?;
        }
        let topic = match publish.topic_alias {
            0 => publish.topic,
            alias => match self.rare.as_ref().and_then(|rare| rare.aliases.get(usize::from(alias) - 1)) {
                Some(topic) if !topic.is_empty() => topic,
                _ if alias > limits.topic_alias_max => return Err(bad_alias()),
                _ => return Err(DecodeError::protocol("a topic alias that was not defined")),
            },
        };
        admission::check_topic(topic, limits)?;
        let ticket = match publish.qos {
            QoS::AtMostOnce => None,
            qos => match conn.receive(publish.packet_id, qos == QoS::ExactlyOnce) {
                Receive::New { ticket, check_stall } => {
                    batch.check_stall |= check_stall;
                    Some(ticket)
                }
                Receive::Duplicate | Receive::Closed => return Ok(()),
                Receive::Exceeded => {
                    let reason = ReasonCode::ReceiveMaximumExceeded;
                    return Err(DecodeError::new(reason, "more unacknowledged publishes than announced"));
                }
            },
        };
        if let Err(fault) = admission::check_format(&publish.properties, publish.payload, limits) {
            // QoS 0 has no acknowledgement to say it by.
            let Some(ticket) = ticket else { return Err(fault) };
            conn.acknowledge(ticket, fault.reason);
            return Ok(());
        }
        let properties = publish.forward_properties();
        let publication = Publication {
            topic,
            payload: publish.payload,
            properties: &properties,
            qos: publish.qos,
            retain: publish.retain,
            expires_at_ms: 0,
            publisher: conn.client(),
        };
        let service = &conn.context().service;
        let made = service.publish(conn, &publication, publish.expiry_s, ticket, publish.packet_id);
        self.spend(made);
        Ok(())
    }

    fn define_alias(&mut self, alias: u16, topic: &str, maximum: u16) -> Result<(), DecodeError> {
        if alias > maximum {
            return Err(bad_alias());
        }
        let index = usize::from(alias) - 1;
        let aliases = &mut self.rare.get_or_insert_default().aliases;
        if aliases.len() <= index {
            aliases.resize_with(index + 1, Box::default);
        }
        if *aliases[index] != *topic {
            aliases[index] = topic.into();
        }
        Ok(())
    }
}

fn bad_alias() -> DecodeError {
    // [MQTT-3.3.2-9]
    DecodeError::new(ReasonCode::TopicAliasInvalid, "a topic alias above the announced maximum")
}
