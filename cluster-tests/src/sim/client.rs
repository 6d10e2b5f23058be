//! An MQTT client on the simulated network; packets as in [`crate::mqtt`].

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use turmoil::net::TcpStream;

use super::history::{ConnId, Event, History};
use super::node;
use crate::mqtt::{self, Options, Packet, Version};

/// What a client waits for any answer before it gives the connection up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// A client that has heard nothing for so long asks.
const PING_AFTER: Duration = Duration::from_secs(1);

/// One granted connection.
pub struct Client {
    pub conn: ConnId,
    pub session_present: bool,
    stream: TcpStream,
    buf: Vec<u8>,
    history: History,
    heard: Instant,
    /// A PINGREQ that has not been answered.
    asked: Option<Instant>,
}

impl Client {
    /// Connects to the node of that number; `None` when that does not succeed in time.
    pub async fn connect(number: usize, options: &Options, history: &History) -> Option<Self> {
        tokio::time::timeout(ANSWER_TIMEOUT, Self::try_connect(number, options, history)).await.ok()?.ok()
    }

    async fn try_connect(number: usize, options: &Options, history: &History) -> io::Result<Self> {
        let asked_ms = super::now_ms();
        let mut stream = TcpStream::connect(node::mqtt_address(number)).await?;
        stream.write_all(&mqtt::connect(options)).await?;
        let mut buf = Vec::new();
        match read(&mut stream, &mut buf).await? {
            Packet::ConnAck { session_present, code: 0, .. } => {
                let conn = history.connected(&options.client_id, number, session_present, asked_ms);
                let (history, heard) = (history.clone(), Instant::now());
                Ok(Self { conn, session_present, stream, buf, history, heard, asked: None })
            }
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
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
            let quiet_at = self.asked.map_or(self.heard + PING_AFTER, |asked| asked + ANSWER_TIMEOUT);
            tokio::select! {
                biased;
                packet = read(&mut self.stream, &mut self.buf) => {
                    self.heard = Instant::now();
                    self.asked = None;
                    match packet? {
                        Packet::PingResp => {}
                        Packet::Disconnect { code, .. } => {
                            return Err(io::Error::other(format!("disconnected with {code:#04x}")));
                        }
                        packet => return Ok(Some(packet)),
                    }
                }
                () = tokio::time::sleep_until(deadline.min(quiet_at)) => {
                    if quiet_at <= Instant::now() {
                        if self.asked.replace(Instant::now()).is_some() {
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
