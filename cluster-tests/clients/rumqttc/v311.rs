//! rumqttc with MQTT 3.1.1.

use std::time::Duration;

use rumqttc::{Connection, Event, LastWill, MqttOptions, Outgoing, Packet, SubscribeReasonCode, qos};
use serde_json::{Value, json};

use crate::command::{Connect, Published, to_hex};
use crate::inbox::{Inbox, Seen};
use crate::{Client, Outcome};

const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Requests that wait for the connection.
const REQUESTS: usize = 16;

struct Held {
    client: rumqttc::Client,
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
    let Packet::Publish(p) = packet else { return None };
    Some(json!({
        "topic": p.topic, "payload": to_hex(&p.payload), "qos": p.qos as u8, "retain": p.retain,
    }))
}

pub fn connect(to: &Connect) -> Outcome<(Box<dyn Client>, Value)> {
    let mut options = MqttOptions::new(&to.id, &to.broker, to.port);
    options.set_keep_alive(KEEP_ALIVE).set_clean_session(to.clean).set_transport(to.transport.clone());
    if let Some(will) = &to.will {
        let qos = qos(will.qos).map_err(|e| e.to_string())?;
        options.set_last_will(LastWill::new(&will.topic, will.payload.clone(), qos, false));
    }
    let (client, connection) = rumqttc::Client::new(options, REQUESTS);
    let inbox = Inbox::new(message, move |seen| run(connection, &seen));
    let mut held = Held { client, inbox };
    let present = held.inbox.until(|seen| match seen {
        Seen::Incoming(Packet::ConnAck(ack)) => Some(Ok(ack.session_present)),
        _ => None,
    })?;
    Ok((Box::new(held), json!({ "session_present": present })))
}

impl Client for Held {
    fn subscribe(&mut self, topic: &str, wanted: u8, _identifier: Option<u64>) -> Outcome<Value> {
        let wanted = qos(wanted).map_err(|e| e.to_string())?;
        self.client.subscribe(topic, wanted).map_err(|e| e.to_string())?;
        self.inbox.until(|seen| match seen {
            Seen::Incoming(Packet::SubAck(ack)) => Some(match ack.return_codes[..] {
                [SubscribeReasonCode::Success(qos)] => Ok(json!({ "granted": qos as u8 })),
                _ => Err(format!("{ack:?}")),
            }),
            _ => None,
        })
    }

    fn publish(&mut self, message: Published) -> Outcome<()> {
        let qos = qos(message.qos).map_err(|e| e.to_string())?;
        let Published { topic, payload, retain, .. } = message;
        self.client.publish(topic, qos, retain, payload).map_err(|e| e.to_string())?;
        self.inbox.until(|seen| match (seen, qos as u8) {
            (Seen::Outgoing(Outgoing::Publish(_)), 0)
            | (Seen::Incoming(Packet::PubAck(_)), 1)
            | (Seen::Incoming(Packet::PubComp(_)), 2) => Some(Ok(())),
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
