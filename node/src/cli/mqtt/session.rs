//! A client's side of the protocol: connect, publish, subscribe, take messages.

use std::collections::HashSet;
use std::time::Duration;

use bytes::BytesMut;

use super::super::args::{MqttArgs, Protocol};
use super::super::exit::{Exit, Failure};
use super::super::password;
use super::wire::{Url, Wire};
use crate::env;
use crate::mqtt::encode::{self, PublishOut};
use crate::mqtt::{
    Connect, DecodeError, Disconnect, Message, Oversize, Packet, Publication, QoS, ReasonCode, SubOptions,
    SubscribeFilter, Version, decode_from_server,
};

const KEEP_ALIVE_S: u16 = 30;
/// How long the broker may take to close after DISCONNECT.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

impl From<Oversize> for Failure {
    fn from(error: Oversize) -> Self {
        Self::new(Exit::Usage, error.to_string())
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::new(Exit::Error, format!("the broker sent {error}"))
    }
}

fn refused(what: &str, reason: ReasonCode) -> Failure {
    let exit = match reason {
        ReasonCode::NotAuthorized | ReasonCode::BadUserNameOrPassword | ReasonCode::Banned => {
            Exit::Unauthorized
        }
        ReasonCode::ServerUnavailable
        | ReasonCode::ServerBusy
        | ReasonCode::ServerShuttingDown
        | ReasonCode::UseAnotherServer
        | ReasonCode::ServerMoved => Exit::Unhealthy,
        _ => Exit::Error,
    };
    Failure::new(exit, format!("{what}: {reason}"))
}

/// A message as it came.
pub struct Delivery {
    pub message: Message,
    pub dup: bool,
}

/// An open session.
pub struct Session {
    wire: Wire,
    version: Version,
    timeout: Duration,
    next_id: u16,
    /// Packet ids of QoS 2 messages whose PUBREL has not come.
    unreleased: HashSet<u16>,
}

impl Session {
    pub async fn connect(args: &MqttArgs) -> Result<Self, Failure> {
        let url: Url = args.url.parse()?;
        let version = match args.protocol {
            Protocol::V311 => Version::V311,
            Protocol::V5 => Version::V5,
        };
        let password = password::of_client(args.password_file.as_deref())?;
        let client_id =
            args.client_id.clone().unwrap_or_else(|| format!("rookery-{:016x}", env::random_u64()));
        let expiry_s =
            args.session_expiry.map_or(0, |expiry| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX));
        let connect = Connect {
            clean_start: expiry_s == 0,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: &client_id,
            username: args.username.as_deref(),
            password: password.as_deref(),
            session_expiry_s: expiry_s,
            ..Connect::new(version)
        };
        let mut out = Vec::new();
        encode::connect(&mut out, &connect)?;
        let timeout = args.timeout;
        let opened = within(timeout, "to connect", async {
            let mut wire = Wire::open(&url).await?;
            wire.send(&out).await?;
            let packet = wire.receive().await?;
            match decode_from_server(&packet, version)? {
                Packet::ConnAck(ack) if ack.reason.is_error() => {
                    Err(refused("the broker refuses the connection", ack.reason))
                }
                Packet::ConnAck(_) => Ok(wire),
                other => Err(unexpected(&other)),
            }
        });
        let wire = opened.await?;
        Ok(Self { wire, version, timeout, next_id: 0, unreleased: HashSet::new() })
    }

    fn packet_id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    /// Returns when the broker has taken the message over as its QoS says.
    pub async fn publish(&mut self, message: &Publication<'_>) -> Result<(), Failure> {
        let packet_id = self.packet_id();
        let mut out = Vec::new();
        encode::publish(&mut out, &PublishOut { packet_id, ..PublishOut::new(self.version, message) })?;
        let timeout = self.timeout;
        within(timeout, "the acknowledgement", async {
            self.wire.send(&out).await?;
            match message.qos {
                QoS::AtMostOnce => Ok(()),
                QoS::AtLeastOnce => self.acknowledged(packet_id, Step::Ack).await,
                QoS::ExactlyOnce => {
                    self.acknowledged(packet_id, Step::Received).await?;
                    let mut out = Vec::new();
                    encode::pubrel(&mut out, self.version, packet_id, ReasonCode::Success);
                    self.wire.send(&out).await?;
                    self.acknowledged(packet_id, Step::Complete).await
                }
            }
        })
        .await
    }

    async fn acknowledged(&mut self, id: u16, step: Step) -> Result<(), Failure> {
        loop {
            let packet = self.wire.receive().await?;
            let (got, ack) = match decode_from_server(&packet, self.version)? {
                Packet::PubAck(ack) => (Step::Ack, ack),
                Packet::PubRec(ack) => (Step::Received, ack),
                Packet::PubComp(ack) => (Step::Complete, ack),
                // What a resumed session was still owed; unacknowledged, it comes again.
                Packet::Publish(_) | Packet::PubRel(_) | Packet::PingResp => continue,
                other => return Err(unexpected(&other)),
            };
            if ack.packet_id != id {
                continue;
            }
            if ack.reason.is_error() {
                return Err(refused("the broker refuses the message", ack.reason));
            }
            if got == step {
                return Ok(());
            }
        }
    }

    /// Returns when the broker has granted all `filters`.
    pub async fn subscribe(&mut self, filters: &[String], qos: QoS) -> Result<(), Failure> {
        let id = self.packet_id();
        let options = SubOptions { qos, ..SubOptions::default() };
        let items: Vec<_> = filters.iter().map(|filter| SubscribeFilter { filter, options }).collect();
        let mut out = Vec::new();
        encode::subscribe(&mut out, self.version, id, 0, &items)?;
        let timeout = self.timeout;
        within(timeout, "the subscription", async {
            self.wire.send(&out).await?;
            loop {
                let packet = self.wire.receive().await?;
                match decode_from_server(&packet, self.version)? {
                    Packet::SubAck(ack) if ack.packet_id == id => {
                        let failed = ack.codes.iter().zip(filters).find(|(code, _)| code.is_error());
                        return match failed {
                            Some((code, filter)) => {
                                Err(refused(&format!("the broker refuses {filter}"), code))
                            }
                            None => Ok(()),
                        };
                    }
                    // Of a resumed session; what is not acknowledged comes again.
                    Packet::Publish(_) | Packet::PubRel(_) | Packet::PingResp => {}
                    other => return Err(unexpected(&other)),
                }
            }
        })
        .await
    }

    /// The next message, acknowledged. Keeps the connection alive meanwhile.
    pub async fn next_message(&mut self) -> Result<Delivery, Failure> {
        let ping_after = Duration::from_secs(u64::from(KEEP_ALIVE_S) / 2);
        let mut pinged = false;
        loop {
            let packet = match tokio::time::timeout(ping_after, self.wire.receive()).await {
                Ok(packet) => packet?,
                Err(_) if pinged => {
                    return Err(Failure::new(Exit::Timeout, "the broker does not answer any more"));
                }
                Err(_) => {
                    let mut out = Vec::new();
                    encode::pingreq(&mut out);
                    self.wire.send(&out).await?;
                    pinged = true;
                    continue;
                }
            };
            pinged = false;
            if let Some(delivery) = self.take(&packet).await? {
                return Ok(delivery);
            }
        }
    }

    async fn take(&mut self, packet: &BytesMut) -> Result<Option<Delivery>, Failure> {
        let mut out = Vec::new();
        let mut delivery = None;
        match decode_from_server(packet, self.version)? {
            Packet::Publish(publish) => {
                let id = publish.packet_id;
                let is_new = match publish.qos {
                    QoS::AtMostOnce => true,
                    QoS::AtLeastOnce => {
                        encode::puback(&mut out, self.version, id, ReasonCode::Success);
                        true
                    }
                    QoS::ExactlyOnce => {
                        encode::pubrec(&mut out, self.version, id, ReasonCode::Success);
                        self.unreleased.insert(id)
                    }
                };
                if is_new {
                    let message = Message {
                        topic: publish.topic.into(),
                        payload: publish.payload.into(),
                        properties: publish.forward_properties().into_owned().into(),
                        qos: publish.qos,
                        retain: publish.retain,
                        expires_at_ms: 0,
                        publisher: "".into(),
                    };
                    delivery = Some(Delivery { message, dup: publish.dup });
                }
            }
            Packet::PubRel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                encode::pubcomp(&mut out, self.version, ack.packet_id, ReasonCode::Success);
            }
            Packet::PingResp => {}
            other => return Err(unexpected(&other)),
        }
        if !out.is_empty() {
            self.wire.send(&out).await?;
        }
        Ok(delivery)
    }

    /// Says goodbye.
    pub async fn disconnect(mut self) -> Result<(), Failure> {
        let mut out = Vec::new();
        if self.version == Version::V5 {
            // Without texts it always fits.
            let _ = encode::disconnect(&mut out, &Disconnect::default(), u32::MAX);
        } else {
            encode::disconnect_v3(&mut out);
        }
        self.wire.send(&out).await?;
        self.wire.close(CLOSE_GRACE).await;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Ack,
    Received,
    Complete,
}

fn unexpected(packet: &Packet<'_>) -> Failure {
    match packet {
        Packet::Disconnect(d) => refused("the broker ends the connection", d.reason),
        other => Failure::new(Exit::Error, format!("the broker sent an unexpected {}", other.name())),
    }
}

async fn within<T>(
    timeout: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Exit::Timeout, format!("{what} took too long"))))
}
