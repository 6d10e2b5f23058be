//! A client with a persistent session: comes and goes, on any node.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::cast::Subscriber;
use super::publisher::publish;
use super::receiver::Receiver;
use super::{Phase, Stage};
use crate::mqtt::{self, Ack, AckKind, Options, Packet, Props, Version};
use crate::sim::client::{Client, Parting};
use crate::sim::history::{Event, MessageId};

const PUBLISH_EVERY: Duration = Duration::from_millis(150);

/// Runs until the scenario is over.
pub async fn run(me: Subscriber, mut stage: Stage) -> turmoil::Result {
    let options = Options::v5(me.client_id).persistent();
    let mut session = Session { me, subscribed: false, receiver: Receiver::default(), number: 0 };
    loop {
        let node = stage.any_node();
        let Some(mut client) = Client::connect(me.client_id, node, &options, None, &stage).await else {
            stage.pause(50, 500).await;
            continue;
        };
        if !client.session_present {
            session.receiver = Receiver::default();
        }
        let how = session.attend(&mut client, &mut stage).await;
        client.end(how).await;
        // Who is thrown out comes back, but not at once, or the twins would do nothing else.
        stage.pause(10, 1000).await;
    }
}

/// What the client remembers between its connections.
struct Session {
    me: Subscriber,
    subscribed: bool,
    receiver: Receiver,
    number: u64,
}

impl Session {
    /// Does what a subscriber does, until it or the broker has had enough.
    async fn attend(&mut self, client: &mut Client, stage: &mut Stage) -> io::Result<Parting> {
        if !self.subscribed {
            let filters = [(self.me.filter, self.me.qos)];
            client.send(&mqtt::subscribe(Version::V5, 1, &filters, &Props::default())).await?;
        }
        // One that shares its id stays until it is thrown out, as a rule: a second owner shows only
        // if it outlives what leases allow.
        let longest_ms = if self.me.publishes { 12_000 } else { 4_000 };
        let leave_at = Instant::now() + Duration::from_millis(stage.rng.between(50, longest_ms));
        let parting = if stage.rng.chance(60) { Parting::Abrupt } else { Parting::Polite };
        let mut publish_at = Instant::now() + PUBLISH_EVERY;
        let mut open: Vec<(u16, MessageId, u64)> = Vec::new();
        loop {
            if self.subscribed && stage.phases.now() == Phase::Faults {
                if self.me.restless && Instant::now() >= leave_at {
                    return Ok(parting);
                }
                if self.me.publishes && Instant::now() >= publish_at {
                    publish_at = Instant::now() + PUBLISH_EVERY;
                    let message = MessageId { publisher: self.me.host, number: self.number };
                    self.number += 1;
                    let id = 1 + (self.number % 60_000) as u16;
                    client.send(&mqtt::publish(Version::V5, &publish(message, 1, id, false))).await?;
                    open.push((id, message, crate::sim::now_ms()));
                }
            }
            match client.packet(Duration::from_millis(50)).await? {
                None => {}
                Some(Packet::SubAck { codes, .. }) => {
                    if codes != [self.me.qos] {
                        return Err(io::Error::other(format!("SUBACK {codes:?}")));
                    }
                    self.subscribed = true;
                    client.note(Event::Subscribed { filter: self.me.filter });
                }
                Some(Packet::Publish(message)) => self.receiver.take(client, message).await?,
                Some(Packet::Ack(Ack { kind: AckKind::PubAck, id, code, .. })) => {
                    if let Some(at) = open.iter().position(|(of, ..)| *of == id) {
                        let (_, message, sent_ms) = open.swap_remove(at);
                        if code < 0x80 {
                            let latest_ms = stage.world.latest_ms();
                            let again = false;
                            client.note(Event::Acknowledged { message, qos: 1, sent_ms, again, latest_ms });
                        }
                    }
                }
                Some(Packet::Ack(Ack { kind: AckKind::PubRel, id, .. })) => {
                    self.receiver.release(client, id).await?;
                }
                Some(other) => return Err(io::Error::other(format!("{other:?} out of the blue"))),
            }
        }
    }
}
