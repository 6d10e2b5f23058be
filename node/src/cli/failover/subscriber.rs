//! A recorded subscriber: it acknowledges what comes and writes down what is new.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::exit::Failure;
use super::history::{StreamId, SubscriberId};
use super::link::{self, Caller, KEEP_ALIVE_S, Link, VERSION};
use super::record::Record;
use crate::mqtt::{Packet, Publish, QoS, ReasonCode, decode_from_server, encode};

pub struct Subscriber {
    pub id: SubscriberId,
    pub caller: Caller,
    pub filter: String,
    pub qos: QoS,
    pub record: Arc<Mutex<Record>>,
    /// Turns true when nothing is to be received any more.
    pub stop: watch::Receiver<bool>,
    /// Tells that it is subscribed for the first time.
    pub ready: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Subscriber {
    /// Receives until told to stop.
    pub async fn run(mut self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.receive_always() => {}
            // An error means that the run has been given up.
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Receives, on one connection after the other.
    async fn receive_always(&mut self) {
        let mut lost_at = None;
        let mut subscribed = false;
        // QoS 2 messages whose PUBREL has not come: what the client keeps of its session [MQTT-4.3.3-10].
        let mut unreleased = HashSet::new();
        loop {
            let mut link = self.caller.connect().await;
            if let Some(lost_at) = lost_at.take() {
                self.record.lock().reconnected(lost_at);
            }
            if !link.session_present {
                unreleased.clear();
                if subscribed && self.caller.persistent {
                    self.record.lock().history.session_lost(&self.caller.client_id);
                }
                subscribed = false;
            }
            let Err(_) = self.receive(&mut link, &mut subscribed, &mut unreleased).await;
            let mut record = self.record.lock();
            record.history.disconnected(self.id);
            record.nodes[self.caller.node].broken += 1;
            lost_at = Some(record.now());
            drop(record);
            self.caller.move_on();
        }
    }

    /// Returns when the connection fails.
    async fn receive(
        &mut self,
        link: &mut Link,
        subscribed: &mut bool,
        unreleased: &mut HashSet<u16>,
    ) -> Result<Infallible, Failure> {
        if !*subscribed {
            link.subscribe(&self.filter, self.qos, self.caller.common.timeout).await?;
            *subscribed = true;
        }
        self.record.lock().history.connected(self.id);
        if let Some(ready) = self.ready.take() {
            // Nobody waits any more when the run has been given up.
            let _ = ready.send(());
        }
        let ping_after = Duration::from_secs(u64::from(KEEP_ALIVE_S) / 3);
        loop {
            let packet = match tokio::time::timeout(ping_after, link.receive()).await {
                Ok(packet) => packet?,
                Err(_) => {
                    let mut out = Vec::new();
                    encode::pingreq(&mut out);
                    link.send(&out).await?;
                    link::answered(self.caller.common.timeout, link.receive()).await?
                }
            };
            let mut out = Vec::new();
            match decode_from_server(&packet, VERSION)? {
                Packet::Publish(publish) => self.take(&publish, unreleased, &mut out),
                Packet::PubRel(ack) => {
                    unreleased.remove(&ack.packet_id);
                    encode::pubcomp(&mut out, VERSION, ack.packet_id, ReasonCode::Success);
                }
                Packet::PingResp => {}
                other => return Err(link::unexpected(&other)),
            }
            if !out.is_empty() {
                link.send(&out).await?;
            }
        }
    }

    fn take(&self, publish: &Publish<'_>, unreleased: &mut HashSet<u16>, out: &mut Vec<u8>) {
        let id = publish.packet_id;
        let is_new = match publish.qos {
            QoS::AtMostOnce => true,
            QoS::AtLeastOnce => {
                encode::puback(out, VERSION, id, ReasonCode::Success);
                true
            }
            QoS::ExactlyOnce => {
                encode::pubrec(out, VERSION, id, ReasonCode::Success);
                unreleased.insert(id)
            }
        };
        if is_new && let Some((stream, number)) = parse(publish.payload) {
            self.record.lock().history.received(self.id, stream, number, publish.dup);
        }
    }
}

/// Whose message this is, and its number; `None`: not of a recorded publisher.
pub fn parse(payload: &[u8]) -> Option<(StreamId, u32)> {
    let (stream, number) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some((StreamId(stream.parse().ok()?), number.parse().ok()?))
}
