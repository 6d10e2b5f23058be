//! One connection of a recorded client, and where its next one goes.

use std::time::Duration;

use bytes::BytesMut;

use super::super::exit::{Exit, Failure};
use super::super::mqtt::wire::{Url, Wire};
use crate::env;
use crate::mqtt::encode::{self, PublishOut};
use crate::mqtt::{
    Connect, Disconnect, Packet, Publication, QoS, ReasonCode, SubOptions, SubscribeFilter, Version,
    decode_from_server,
};

pub const VERSION: Version = Version::V5;
/// Seconds.
pub const KEEP_ALIVE_S: u16 = 30;
/// Sessions end by themselves after this, should the run be killed, seconds.
const SESSION_EXPIRY_S: u32 = 3_600;
/// How long the broker may take to close after DISCONNECT.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Between two rounds of attempts to connect, doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What all clients of a run have in common.
#[derive(Clone)]
pub struct Common {
    pub nodes: Vec<Url>,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    /// A connection on which an answer takes longer is given up.
    pub timeout: Duration,
}

/// A client that reconnects.
#[derive(Clone)]
pub struct Caller {
    pub common: Common,
    pub client_id: String,
    pub persistent: bool,
    /// Stays with the node it began at; others go to the next one whenever they lose a connection.
    pub resident: bool,
    /// The node to call next, as an index.
    pub node: usize,
}

impl Caller {
    /// Calls until a node accepts. After a failure the next node is called at once, and a pause is
    /// made when all have been.
    pub async fn connect(&mut self) -> Link {
        let mut backoff = BACKOFF_MIN;
        let mut tried = 0;
        loop {
            match self.try_connect(false).await {
                Ok(link) => return link,
                Err(_) => tried += 1,
            }
            self.move_on();
            let round = if self.resident { 1 } else { self.common.nodes.len() };
            if tried % round == 0 {
                tokio::time::sleep(backoff).await;
                backoff = BACKOFF_MAX.min(backoff * 2);
            }
        }
    }

    /// One attempt. `clean` ends the session that is there, and the new one with its connection.
    pub async fn try_connect(&self, clean: bool) -> Result<Link, Failure> {
        let persistent = self.persistent && !clean;
        let connect = Connect {
            clean_start: !persistent,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: &self.client_id,
            username: self.common.username.as_deref(),
            password: self.common.password.as_deref(),
            session_expiry_s: if persistent { SESSION_EXPIRY_S } else { 0 },
            ..Connect::new(VERSION)
        };
        let mut out = Vec::new();
        encode::connect(&mut out, &connect)?;
        let url = &self.common.nodes[self.node];
        let opening = async {
            let mut wire = Wire::open(url).await?;
            wire.send(&out).await?;
            let packet = wire.receive().await?;
            match decode_from_server(&packet, VERSION)? {
                Packet::ConnAck(ack) if !ack.reason.is_error() => {
                    Ok(Link { session_present: ack.session_present, wire })
                }
                Packet::ConnAck(ack) => Err(Failure::new(Exit::Unhealthy, ack.reason.to_string())),
                other => Err(unexpected(&other)),
            }
        };
        answered(self.common.timeout, opening).await
    }

    /// The connection is lost: whom to call next.
    pub fn move_on(&mut self) {
        if !self.resident {
            self.node = (self.node + 1) % self.common.nodes.len();
        }
    }
}

/// An open connection.
pub struct Link {
    wire: Wire,
    pub session_present: bool,
}

impl Link {
    pub async fn send(&mut self, packets: &[u8]) -> Result<(), Failure> {
        self.wire.send(packets).await
    }

    /// The next packet. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Result<BytesMut, Failure> {
        self.wire.receive().await
    }

    /// Subscribes to one filter and waits for its SUBACK, before which nothing else may come: the
    /// session has no other subscription.
    pub async fn subscribe(&mut self, filter: &str, qos: QoS, timeout: Duration) -> Result<(), Failure> {
        let options = SubOptions { qos, ..SubOptions::default() };
        let mut out = Vec::new();
        encode::subscribe(&mut out, VERSION, 1, 0, &[SubscribeFilter { filter, options }])?;
        answered(timeout, async {
            self.send(&out).await?;
            let packet = self.receive().await?;
            match decode_from_server(&packet, VERSION)? {
                Packet::SubAck(ack) if ack.codes.iter().all(|code| !code.is_error()) => Ok(()),
                Packet::SubAck(ack) => {
                    let code = ack.codes.iter().find(|code| code.is_error()).unwrap_or_default();
                    Err(Failure::new(Exit::Error, format!("the broker refuses {filter}: {code}")))
                }
                other => Err(unexpected(&other)),
            }
        })
        .await
    }

    pub async fn disconnect(mut self) {
        let mut out = Vec::new();
        // Without texts it always fits.
        let _ = encode::disconnect(&mut out, &Disconnect::default(), u32::MAX);
        // A connection that is gone needs no goodbye.
        if self.send(&out).await.is_ok() {
            self.wire.close(CLOSE_GRACE).await;
        }
    }
}

/// A PUBLISH.
pub fn publish(topic: &str, payload: &[u8], qos: QoS, retain: bool, packet_id: u16, dup: bool) -> Vec<u8> {
    let message =
        Publication { topic, payload, properties: &[], qos, retain, expires_at_ms: 0, publisher: "" };
    let mut out = Vec::new();
    let publish = PublishOut { packet_id, dup, ..PublishOut::new(VERSION, &message) };
    encode::publish(&mut out, &publish).expect("topics and payloads of a run are short");
    out
}

/// A PUBREL.
pub fn pubrel(packet_id: u16) -> Vec<u8> {
    let mut out = Vec::new();
    encode::pubrel(&mut out, VERSION, packet_id, ReasonCode::Success);
    out
}

pub fn is_puback(packet: &[u8]) -> bool {
    matches!(decode_from_server(packet, VERSION), Ok(Packet::PubAck(ack)) if !ack.reason.is_error())
}

/// What a packet means that has no place here: the broker says goodbye, or breaks the protocol.
pub fn unexpected(packet: &Packet<'_>) -> Failure {
    match packet {
        Packet::Disconnect(packet) => Failure::new(Exit::Unhealthy, packet.reason.to_string()),
        other => Failure::new(Exit::Error, format!("the broker sent an unexpected {}", other.name())),
    }
}

/// Bounds a wait for the broker.
pub async fn answered<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let in_time = tokio::time::timeout(timeout, work).await;
    in_time.unwrap_or_else(|_| Err(Failure::new(Exit::Timeout, "no answer in time")))
}

/// The time since the start of a run.
#[derive(Clone, Copy)]
pub struct Clock(env::Instant);

impl Clock {
    pub fn start() -> Self {
        Clock(env::now())
    }

    pub fn now(&self) -> Duration {
        env::now() - self.0
    }
}
