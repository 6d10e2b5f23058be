//! A recorded publisher: numbered messages at a steady pace, again where a lost connection leaves
//! it in doubt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::super::exit::{Exit, Failure};
use super::history::StreamId;
use super::link::{self, Caller, Link, VERSION};
use super::record::{Home, Record};
use crate::env;
use crate::mqtt::{Packet, QoS, decode_from_server};

/// Messages in flight; below every Receive Maximum that a broker is likely to grant.
const WINDOW: usize = 16;

pub struct Publisher {
    pub stream: StreamId,
    pub caller: Caller,
    pub qos: QoS,
    pub retain: bool,
    /// Message n goes to `<topic>/<n mod topics>`.
    pub topic: String,
    pub topics: u32,
    /// Between two messages.
    pub pace: Duration,
    pub home: Home,
    pub record: Arc<Mutex<Record>>,
    /// Turns true when nothing new is to be sent.
    pub stop: watch::Receiver<bool>,
    /// Messages whose handshake is not over, in the order of their numbers.
    pub open: VecDeque<Open>,
    pub next: u32,
}

pub struct Open {
    number: u32,
    /// PUBREC has come, PUBREL is sent.
    released: bool,
    /// When it was sent on the present connection.
    since: Instant,
}

impl Open {
    /// Numbers in flight are few and consecutive, so their ids differ.
    fn packet_id(&self) -> u16 {
        (self.number % 65_535) as u16 + 1
    }
}

impl Publisher {
    /// Publishes until told to stop, and on until everything is acknowledged.
    pub async fn run(mut self) {
        let mut lost_at = None;
        let mut known = false;
        while !(*self.stop.borrow() && self.open.is_empty()) {
            let mut link = self.caller.connect().await;
            if let Some(lost_at) = lost_at.take().filter(|_| !self.caller.resident) {
                self.record.lock().reconnected(lost_at);
            }
            if self.caller.persistent {
                if known && !link.session_present {
                    self.record.lock().history.session_lost(&self.caller.client_id);
                    // What was acknowledged is the broker's; there is no handshake to go on with.
                    self.open.retain(|open| !open.released);
                }
                known = true;
            }
            match self.publish(&mut link).await {
                Ok(()) => return link.disconnect().await,
                Err(_) => {
                    let mut record = self.record.lock();
                    lost_at = Some(record.now());
                    record.nodes[self.caller.node].broken += 1;
                }
            }
            self.caller.move_on();
        }
    }

    /// Returns when everything is sent and acknowledged.
    async fn publish(&mut self, link: &mut Link) -> Result<(), Failure> {
        for index in 0..self.open.len() {
            self.send(link, index, link.session_present).await?;
        }
        let mut ticks = interval(self.pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.stop.clone();
        loop {
            let stopped = *stop.borrow_and_update();
            if stopped && self.open.is_empty() {
                return Ok(());
            }
            let silence = self.open.front().map(|open| open.since + self.caller.common.timeout);
            tokio::select! {
                packet = link.receive() => {
                    match decode_from_server(&packet?, VERSION)? {
                        Packet::PubAck(ack) | Packet::PubRec(ack) if ack.reason.is_error() => {
                            return Err(self.refused(ack.packet_id));
                        }
                        Packet::PubAck(ack) => self.acknowledged(ack.packet_id, true),
                        Packet::PubRec(ack) => {
                            self.acknowledged(ack.packet_id, false);
                            link.send(&link::pubrel(ack.packet_id)).await?;
                        }
                        Packet::PubComp(ack) => {
                            self.open.retain(|open| !open.released || open.packet_id() != ack.packet_id);
                        }
                        other => return Err(link::unexpected(&other)),
                    }
                }
                _ = ticks.tick(), if !stopped && self.open.len() < WINDOW => {
                    self.open.push_back(Open { number: self.next, released: false, since: env::now() });
                    self.next += 1;
                    self.send(link, self.open.len() - 1, false).await?;
                }
                () = sleep_until(silence.unwrap_or_else(env::now)), if silence.is_some() => {
                    return Err(Failure::new(Exit::Timeout, "no acknowledgement in time"));
                }
                // An error means that the run has been given up.
                changed = stop.changed(), if !stopped => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends the open message of that index, or its PUBREL. `dup`: under an id of a former connection.
    async fn send(&mut self, link: &mut Link, index: usize, dup: bool) -> Result<(), Failure> {
        let open = &mut self.open[index];
        open.since = env::now();
        let packet = if open.released {
            link::pubrel(open.packet_id())
        } else {
            self.record.lock().history.sent(self.stream, open.number);
            let topic = format!("{}/{}", self.topic, open.number % self.topics);
            let payload = format!("{} {}", self.stream.0, open.number);
            link::publish(&topic, payload.as_bytes(), self.qos, self.retain, open.packet_id(), dup)
        };
        link.send(&packet).await
    }

    /// The broker has taken a message over; at QoS 2 the handshake goes on.
    fn acknowledged(&mut self, packet_id: u16, complete: bool) {
        let of_id = |open: &Open| open.packet_id() == packet_id && !open.released;
        let Some(index) = self.open.iter().position(of_id) else { return };
        self.record.lock().acked(self.stream, self.open[index].number, self.home);
        if complete {
            self.open.remove(index);
        } else {
            self.open[index].released = true;
            self.open[index].since = env::now();
        }
    }

    /// The broker does not take a message over: it is sent again on another connection.
    fn refused(&mut self, packet_id: u16) -> Failure {
        if let Some(open) = self.open.iter().find(|open| open.packet_id() == packet_id) {
            self.record.lock().history.refused(self.stream, open.number);
        }
        Failure::new(Exit::Unhealthy, "the broker refuses a message")
    }
}
