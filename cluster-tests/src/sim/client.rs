//! An MQTT client on the simulated network; packets as in [`crate::mqtt`].

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use turmoil::net::TcpStream;

use super::actors::Stage;
use super::history::{ConnId, End, Event, History, MessageId, Testament};
use super::node;
use super::world::World;
use crate::mqtt::{self, Options, Packet, Version};

/// What a client waits for any answer before it gives the connection up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// A client that has heard nothing for so long asks.
const PING_AFTER: Duration = Duration::from_secs(1);
/// How long a client that says DISCONNECT waits for the end of the stream: less than a node that
/// could not commit the release would.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(900);

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// With DISCONNECT.
    Polite,
    /// With a DISCONNECT that asks for the will.
    WithWill,
    /// Without a word.
    Abrupt,
}

/// One granted connection.
pub struct Client {
    conn: ConnId,
    node: usize,
    pub session_present: bool,
    stream: TcpStream,
    buf: Vec<u8>,
    history: History,
    world: World,
    heard: Instant,
    /// What the cluster's clock showed when the last request that was answered was sent: the broker
    /// had the connection then.
    alive_ms: u64,
    /// A PINGREQ that has not been answered, and what the cluster's clock showed.
    asked: Option<(Instant, u64)>,
}

impl Client {
    /// Connects to the node of that number; `None` when that does not succeed in time.
    pub async fn connect(
        client: &'static str,
        number: usize,
        options: &Options,
        will: Option<Testament>,
        stage: &Stage,
    ) -> Option<Self> {
        let clock_ms = stage.world.clock_ms();
        let asked = Event::Asked { node: number, clean_start: options.clean_start, will, clock_ms };
        let conn = stage.history.asked(client, asked);
        let granted = Self::try_connect(conn, number, options, clock_ms, stage);
        tokio::time::timeout(ANSWER_TIMEOUT, granted).await.ok()?.ok()
    }

    async fn try_connect(
        conn: ConnId,
        number: usize,
        options: &Options,
        asked_clock_ms: u64,
        stage: &Stage,
    ) -> io::Result<Self> {
        let asked_ms = super::now_ms();
        let mut stream = TcpStream::connect(node::mqtt_address(number)).await?;
        stream.write_all(&mqtt::connect(options)).await?;
        let mut buf = Vec::new();
        match read(&mut stream, &mut buf).await? {
            Packet::ConnAck { session_present, code: 0, .. } => {
                let Stage { history, world, .. } = stage.clone();
                let (epoch, clock_ms) = (world.epoch(number), world.clock_ms());
                history.note(
                    conn,
                    Event::Connected { node: number, epoch, session_present, asked_ms, clock_ms },
                );
                let (node, heard, alive_ms) = (number, Instant::now(), asked_clock_ms);
                Ok(Self {
                    conn,
                    node,
                    session_present,
                    stream,
                    buf,
                    history,
                    world,
                    heard,
                    alive_ms,
                    asked: None,
                })
            }
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// A message arrived.
    pub fn note_delivered(&self, message: MessageId, qos: u8, dup: bool, new: bool) {
        let clock_ms = self.world.clock_ms();
        self.note(Event::Delivered { message, qos, dup, new, clock_ms });
    }

    pub fn note(&self, event: Event) {
        self.history.note(self.conn, event);
    }

    /// The next packet, or `None` after `limit`. Keeps the connection alive meanwhile.
    ///
    /// # Errors
    /// The connection is over, or the node does not answer any more.
    pub async fn packet(&mut self, limit: Duration) -> io::Result<Option<Packet>> {
        let deadline = Instant::now() + limit;
        loop {
            let quiet_at = self.asked.map_or(self.heard + PING_AFTER, |(asked, _)| asked + ANSWER_TIMEOUT);
            tokio::select! {
                biased;
                packet = read(&mut self.stream, &mut self.buf) => {
                    self.heard = Instant::now();
                    let asked = self.asked.take();
                    match packet? {
                        Packet::PingResp => {
                            self.alive_ms = asked.map_or(self.alive_ms, |(_, asked_ms)| asked_ms);
                            if self.world.has_lease(self.node) {
                                self.note(Event::Heard);
                            }
                        }
                        Packet::Disconnect { code, .. } => {
                            return Err(io::Error::other(format!("disconnected with {code:#04x}")));
                        }
                        packet => return Ok(Some(packet)),
                    }
                }
                () = tokio::time::sleep_until(deadline.min(quiet_at)) => {
                    if quiet_at <= Instant::now() {
                        if self.asked.replace((Instant::now(), self.world.clock_ms())).is_some() {
                            return Err(io::ErrorKind::TimedOut.into());
                        }
                        self.send(&[0xc0, 0]).await?;
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Ends the connection as its client decided, or as the broker did.
    pub async fn end(self, how: io::Result<Parting>) {
        match how {
            Ok(Parting::Polite) => self.leave().await,
            Ok(Parting::WithWill) => self.leave_with_will().await,
            Ok(Parting::Abrupt) => self.drop(End::Dropped),
            Err(error) => self.drop(End::Broken(error.to_string())),
        }
    }

    /// Says DISCONNECT and waits for what the broker makes of it.
    async fn leave(mut self) {
        let before_ms = self.world.clock_ms();
        let end = match tokio::time::timeout(LEAVE_TIMEOUT, self.try_leave()).await {
            Ok(Ok(())) => End::Left,
            _ => End::LeftUnheard,
        };
        self.closed(end, before_ms);
    }

    async fn try_leave(&mut self) -> io::Result<()> {
        self.send(&mqtt::disconnect(Version::V5, 0)).await?;
        loop {
            while let Some((packet, length)) =
                mqtt::decode(Version::V5, &self.buf).map_err(io::Error::other)?
            {
                self.buf.drain(..length);
                if let Packet::Disconnect { code, .. } = packet {
                    // The broker was the first to end it: the link was cut for too long.
                    return Err(io::Error::other(format!("disconnected with {code:#04x}")));
                }
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Asks for its will and is gone.
    async fn leave_with_will(mut self) {
        const WITH_WILL: u8 = 0x04;
        let before_ms = self.world.clock_ms();
        let end = match self.send(&mqtt::disconnect(Version::V5, WITH_WILL)).await {
            Ok(()) => End::LeftWithWill,
            Err(error) => End::Broken(error.to_string()),
        };
        self.closed(end, before_ms);
    }

    /// Ends without a word; `end` says why.
    fn drop(self, end: End) {
        let before_ms = self.world.clock_ms();
        self.closed(end, before_ms);
    }

    fn closed(self, end: End, before_ms: u64) {
        let clock_ms = (before_ms, self.world.clock_ms());
        self.note(Event::Closed { end, alive_ms: self.alive_ms, clock_ms });
    }
}

/// The next whole packet. Cancel safe: what was read stays in `buf`.
async fn read(stream: &mut TcpStream, buf: &mut Vec<u8>) -> io::Result<Packet> {
    loop {
        if let Some((packet, length)) = mqtt::decode(Version::V5, buf).map_err(io::Error::other)? {
            buf.drain(..length);
            return Ok(packet);
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
