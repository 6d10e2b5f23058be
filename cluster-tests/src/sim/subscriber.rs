//! A client with a persistent session: comes and goes, on any node.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::actors::{FILTER, Phase, RETAINING_PUBLISHER, Stage, Subscriber, topic_of};
use super::client::Client;
use super::history::{Event, MessageId};
use crate::mqtt::{self, Ack, AckKind, Options, Packet, Props, Publish, Version};

const PUBLISH_EVERY: Duration = Duration::from_millis(150);

/// Runs until the scenario is over.
pub async fn run(me: Subscriber, mut stage: Stage) -> turmoil::Result {
    let options = Options::v5(me.client_id).persistent();
    let mut session = Session { me, subscribed: false, received: BTreeSet::new(), number: 0 };
    while stage.phases.now() < Phase::Over {
        let node = stage.any_node();
        let Some(mut client) = Client::connect(node, &options, &stage.history).await else {
            stage.pause(50, 500).await;
            continue;
        };
        if !client.session_present {
            session.received.clear();
        }
        let why = match session.attend(&mut client, &mut stage).await {
            Ok(why) => why.to_owned(),
            Err(error) => error.to_string(),
        };
        client.note(Event::Closed { why });
        drop(client);
        // Who is thrown out comes back, but not at once, or the twins would do nothing else.
        stage.pause(10, 1000).await;
    }
    Ok(())
}

/// What the client remembers between its connections.
struct Session {
    me: Subscriber,
    subscribed: bool,
    /// QoS 2 publishes received and not yet released.
    received: BTreeSet<u16>,
    number: u64,
}

impl Session {
    /// Does what a subscriber does, until it or the broker has had enough; says why.
    async fn attend(&mut self, client: &mut Client, stage: &mut Stage) -> io::Result<&'static str> {
        if !self.subscribed {
            let filters = [(FILTER, self.me.qos)];
            client.send(&mqtt::subscribe(Version::V5, 1, &filters, &Props::default())).await?;
        }
        // One that shares its id stays until it is thrown out, as a rule: a second owner shows only
        // if it outlives what leases allow.
        let longest_ms = if self.me.publishes { 12_000 } else { 4_000 };
        let leave_at = Instant::now() + Duration::from_millis(stage.rng.between(50, longest_ms));
        let crashes = stage.rng.chance(60);
        let mut publish_at = Instant::now() + PUBLISH_EVERY;
        let mut open: Vec<(u16, MessageId, u64)> = Vec::new();
        loop {
            match (stage.phases.now(), self.subscribed) {
                (Phase::Over, _) => return Ok("over"),
                (Phase::Faults, true) if Instant::now() >= leave_at => {
                    if crashes {
                        return Ok("crashed");
                    }
                    client.send(&mqtt::disconnect(Version::V5, 0)).await?;
                    return Ok("left");
                }
                (Phase::Faults, true) if self.me.publishes && Instant::now() >= publish_at => {
                    publish_at = Instant::now() + PUBLISH_EVERY;
                    let message = MessageId { publisher: self.me.host.into(), number: self.number };
                    self.number += 1;
                    let id = 1 + (self.number % 60_000) as u16;
                    client.send(&mqtt::publish(Version::V5, &publish(&message, 1, id, false))).await?;
                    open.push((id, message, super::now_ms()));
                }
                _ => {}
            }
            match client.packet(Duration::from_millis(50)).await? {
                None => {}
                Some(Packet::SubAck { codes, .. }) => {
                    if codes != [self.me.qos] {
                        return Err(io::Error::other(format!("SUBACK {codes:?}")));
                    }
                    self.subscribed = true;
                    client.note(Event::Subscribed);
                }
                Some(Packet::Publish(message)) => self.take(client, message).await?,
                Some(Packet::Ack(Ack { kind: AckKind::PubAck, id, code, .. })) => {
                    if let Some(at) = open.iter().position(|(of, ..)| *of == id) {
                        let (_, message, sent_ms) = open.swap_remove(at);
                        if code < 0x80 {
                            client.note(Event::Acknowledged { message, qos: 1, sent_ms });
                        }
                    }
                }
                Some(Packet::Ack(Ack { kind: AckKind::PubRel, id, .. })) => {
                    self.received.remove(&id);
                    client.send(&mqtt::ack(AckKind::PubComp, id)).await?;
                }
                Some(other) => return Err(io::Error::other(format!("{other:?} out of the blue"))),
            }
        }
    }

    async fn take(&mut self, client: &mut Client, message: Publish) -> io::Result<()> {
        let Publish { payload, qos, dup, id, .. } = message;
        let message = MessageId::parse(&payload).map_err(io::Error::other)?;
        // Method A of [MQTT-4.3.3-10]: what was received and not released is not new.
        let new = qos < 2 || self.received.insert(id);
        client.note(Event::Delivered { message, qos, dup, new });
        match qos {
            0 => Ok(()),
            1 => client.send(&mqtt::ack(AckKind::PubAck, id)).await,
            _ => client.send(&mqtt::ack(AckKind::PubRec, id)).await,
        }
    }
}

/// A message as its publisher sends it.
pub fn publish(message: &MessageId, qos: u8, id: u16, dup: bool) -> Publish {
    let topic = topic_of(&message.publisher);
    let retain = message.publisher == RETAINING_PUBLISHER;
    Publish { topic, payload: message.payload(), qos, retain, dup, id, props: Props::default() }
}
