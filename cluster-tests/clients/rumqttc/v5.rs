//! rumqttc with MQTT 5.0.

use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, LastWill, Packet, PubAckReason, PubCompReason, Publish, PublishProperties,
    SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{QoS, qos};
use rumqttc::v5::{self, Connection, Event, MqttOptions};
use serde_json::{Value, json};

use crate::command::{Connect, Published, from_hex, text, to_hex};
use crate::inbox::{Inbox, Seen};
use crate::{Client, Outcome};

const KEEP_ALIVE: Duration = Duration::from_secs(60);
const SESSION_EXPIRY_S: u32 = 3600;
/// Requests that wait for the connection.
const REQUESTS: usize = 16;
/// The alias of every message that is published by alias.
const ALIAS: u16 = 1;

struct Held {
    client: v5::Client,
    inbox: Inbox<Packet>,
}

fn run(mut connection: Connection, seen: &std::sync::mpsc::Sender<Seen<Packet>>) {
    for event in connection.iter() {
        let event = match event {
            Ok(Event::Incoming(packet)) => Seen::Incoming(packet),
            Ok(Event::Outgoing(outgoing)) => Seen::Outgoing(outgoing),
            Err(error) => Seen::Ended(error.to_string()),
        };
        let ended = matches!(event, Seen::Ended(_));
        // It would connect again.
        if seen.send(event).is_err() || ended {
            break;
        }
    }
}

fn message(packet: &Packet) -> Option<Value> {
    let Packet::Publish(publish) = packet else { return None };
    let Publish { topic, payload, qos, retain, .. } = publish;
    let p = publish.properties.clone().unwrap_or_default();
    Some(json!({
        "topic": String::from_utf8_lossy(topic), "payload": to_hex(payload),
        "qos": *qos as u8, "retain": retain,
        "properties": {
            "user": p.user_properties.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "content_type": p.content_type,
            "response_topic": p.response_topic,
            "correlation_data": p.correlation_data.as_deref().map(to_hex),
            "message_expiry_s": p.message_expiry_interval,
            "identifiers": (!p.subscription_identifiers.is_empty()).then_some(p.subscription_identifiers),
        },
    }))
}

fn qos_of(number: u8) -> Outcome<QoS> {
    qos(number).ok_or_else(|| format!("no QoS {number}"))
}

fn properties(message: &Published) -> Outcome<PublishProperties> {
    let mut properties =
        PublishProperties { topic_alias: message.by_alias.then_some(ALIAS), ..PublishProperties::default() };
    let wanted = &message.properties;
    if let Some(user) = wanted["user"].as_object() {
        let value = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        properties.user_properties = user.iter().map(|(key, v)| (key.clone(), value(v))).collect();
        properties.content_type = Some(text(wanted, "content_type")?.into());
        properties.response_topic = Some(text(wanted, "response_topic")?.into());
        properties.correlation_data = Some(from_hex(text(wanted, "correlation_data")?)?.into());
        let expiry = wanted["message_expiry_s"].as_u64();
        properties.message_expiry_interval = expiry.and_then(|s| u32::try_from(s).ok());
    }
    Ok(properties)
}

pub fn connect(to: &Connect) -> Outcome<(Box<dyn Client>, Value)> {
    let mut options = MqttOptions::new(&to.id, &to.broker, to.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_start(to.clean).set_transport(to.transport.clone());
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(if to.clean { 0 } else { SESSION_EXPIRY_S });
    options.set_connect_properties(properties);
    if let Some(will) = &to.will {
        let will = LastWill::new(&will.topic, will.payload.clone(), qos_of(will.qos)?, false, None);
        options.set_last_will(will);
    }
    let (client, connection) = v5::Client::new(options, REQUESTS);
    let inbox = Inbox::new(message, move |seen| run(connection, &seen));
    let mut held = Held { client, inbox };
    let present = held.inbox.until(|seen| match seen {
        Seen::Incoming(Packet::ConnAck(ack)) => Some(Ok(ack.session_present)),
        _ => None,
    })?;
    Ok((Box::new(held), json!({ "session_present": present })))
}

impl Client for Held {
    fn subscribe(&mut self, topic: &str, wanted: u8, identifier: Option<u64>) -> Outcome<Value> {
        let wanted = qos_of(wanted)?;
        let id = identifier.and_then(|id| usize::try_from(id).ok());
        let properties = SubscribeProperties { id, user_properties: Vec::new() };
        let asked = self.client.subscribe_with_properties(topic, wanted, properties);
        asked.map_err(|e| e.to_string())?;
        self.inbox.until(|seen| match seen {
            Seen::Incoming(Packet::SubAck(ack)) => Some(match ack.return_codes[..] {
                [SubscribeReasonCode::Success(qos)] => Ok(json!({ "granted": qos as u8 })),
                _ => Err(format!("{ack:?}")),
            }),
            _ => None,
        })
    }

    fn publish(&mut self, message: Published) -> Outcome<()> {
        let (qos, properties) = (qos_of(message.qos)?, properties(&message)?);
        let Published { topic, payload, retain, .. } = message;
        let asked = self.client.publish_with_properties(topic, qos, retain, payload, properties);
        asked.map_err(|e| e.to_string())?;
        self.inbox.until(|seen| match (seen, qos as u8) {
            (Seen::Outgoing(Outgoing::Publish(_)), 0) => Some(Ok(())),
            (Seen::Incoming(Packet::PubAck(ack)), 1) => Some(match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                _ => Err(format!("{ack:?}")),
            }),
            (Seen::Incoming(Packet::PubComp(ack)), 2) => Some(match ack.reason {
                PubCompReason::Success => Ok(()),
                PubCompReason::PacketIdentifierNotFound => Err(format!("{ack:?}")),
            }),
            _ => None,
        })
    }

    fn next(&mut self) -> Outcome<Value> {
        self.inbox.next()
    }

    fn disconnect(&mut self) -> Outcome<()> {
        self.client.disconnect().map_err(|e| e.to_string())?;
        self.inbox.until(|seen| matches!(seen, Seen::Outgoing(Outgoing::Disconnect)).then_some(Ok(())))
    }
}
