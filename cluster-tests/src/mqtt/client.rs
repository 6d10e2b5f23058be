//! A blocking client on one connection.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};

use super::stream::Stream;
use super::{Ack, AckKind, Options, Packet, Props, Publish, Transport, Version, wire};
use crate::tls;

/// How long a broker of this machine may take for an answer. Far above what is promised, since a
/// loaded test machine is slow; the tests that check a promised time do so by themselves.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub enum Error {
    /// Nothing came in time.
    Timeout,
    /// The broker closed the connection without a word.
    Closed,
    /// CONNACK with this code.
    Refused(u8),
    /// DISCONNECT with this reason code (5.0).
    Disconnected(u8),
    /// The broker sent something that MQTT does not know.
    Protocol(String),
    Io(io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Timeout => f.write_str("no answer in time"),
            Error::Closed => f.write_str("closed by the broker"),
            Error::Refused(code) => write!(f, "refused with {code:#04x}"),
            Error::Disconnected(code) => write!(f, "disconnected with {code:#04x}"),
            Error::Protocol(what) => write!(f, "the broker broke the protocol: {what}"),
            Error::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Error::Timeout,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Error::Closed
            }
            _ => Error::Io(error),
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// QoS 2 publishes received and not yet released: what a receiver keeps of its session between
/// connections so that a redelivery is not taken for a new message.
pub type Received = BTreeSet<u16>;

pub struct Client {
    stream: Stream,
    version: Version,
    buf: Vec<u8>,
    inbox: VecDeque<Publish>,
    next_id: u16,
    largest_packet: usize,
    /// Acknowledge what arrives; off to leave deliveries open.
    pub auto_ack: bool,
    pub received: Received,
    pub session_present: bool,
    /// Properties of CONNACK.
    pub granted: Props,
}

impl Client {
    /// Connects and waits for a CONNACK that grants it.
    pub fn connect(to: impl Into<Transport>, options: &Options) -> Result<Self> {
        Client::connect_as(to, options, tls::trusting())
    }

    /// A connection on which nothing has been sent.
    pub fn open(to: impl Into<Transport>, version: Version) -> Result<Self> {
        Client::open_as(to, version, tls::trusting())
    }

    /// As [`connect`](Self::connect), with TLS as `config` has it.
    pub fn connect_as(
        to: impl Into<Transport>,
        options: &Options,
        config: Arc<ClientConfig>,
    ) -> Result<Self> {
        let mut client = Client::open_as(to, options.version, config)?;
        client.send(&wire::connect(options))?;
        client.await_connack()?;
        Ok(client)
    }

    /// As [`open`](Self::open), with TLS as `config` has it.
    pub fn open_as(to: impl Into<Transport>, version: Version, config: Arc<ClientConfig>) -> Result<Self> {
        Ok(Client::on(Stream::open(to.into(), config)?, version))
    }

    /// As [`connect_as`](Self::connect_as), over a TCP connection on which others may have spoken
    /// before.
    pub fn connect_over(
        tcp: TcpStream,
        to: impl Into<Transport>,
        options: &Options,
        config: Arc<ClientConfig>,
    ) -> Result<Self> {
        let mut client = Client::on(Stream::open_over(tcp, to.into(), config)?, options.version);
        client.send(&wire::connect(options))?;
        client.await_connack()?;
        Ok(client)
    }

    fn on(stream: Stream, version: Version) -> Self {
        Client {
            stream,
            version,
            buf: Vec::new(),
            inbox: VecDeque::new(),
            next_id: 0,
            largest_packet: 0,
            auto_ack: true,
            received: Received::new(),
            session_present: false,
            granted: Props::default(),
        }
    }

    /// Waits for the CONNACK of a CONNECT sent by hand.
    pub fn await_connack(&mut self) -> Result<()> {
        match self.packet(ANSWER_TIMEOUT)? {
            Packet::ConnAck { session_present, code: 0, props } => {
                self.session_present = session_present;
                self.granted = props;
                Ok(())
            }
            Packet::ConnAck { code, .. } => Err(Error::Refused(code)),
            Packet::Disconnect { code, .. } => Err(Error::Disconnected(code)),
            other => Err(Error::Protocol(format!("{other:?} for a CONNACK"))),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, data: &[u8]) -> Result<()> {
        Ok(self.stream.write(data)?)
    }

    /// The TLS session, of a client that has one.
    pub fn tls(&self) -> Option<&ClientConnection> {
        self.stream.tls()
    }

    /// Says over TLS that nothing more comes; the connection below it stays.
    pub fn close_notify(&mut self) -> Result<()> {
        Ok(self.stream.close_notify()?)
    }

    /// Sends bytes past TLS, as nobody should.
    pub fn send_past_tls(&mut self, data: &[u8]) -> Result<()> {
        Ok(self.stream.write_past_tls(data)?)
    }

    /// Sends a WebSocket text frame.
    pub fn send_text_frame(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_text_frame(text)?)
    }

    pub fn take_id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    /// The next packet, whatever it is; nothing is acknowledged.
    pub fn packet(&mut self, timeout: Duration) -> Result<Packet> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some((packet, length)) = wire::decode(self.version, &self.buf).map_err(Error::Protocol)? {
                self.buf.drain(..length);
                self.largest_packet = self.largest_packet.max(length);
                return Ok(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout);
            }
            match self.stream.read(&mut self.buf, left) {
                Ok(0) => return Err(Error::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Bytes of the largest packet that has come.
    pub fn largest_packet(&self) -> usize {
        self.largest_packet
    }

    /// Waits for a packet that `want` turns into an answer. Publishes that arrive meanwhile go to
    /// the inbox and are acknowledged if `auto_ack`.
    pub(super) fn until<T>(
        &mut self,
        timeout: Duration,
        mut want: impl FnMut(&Packet) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            let packet = self.packet(deadline.saturating_duration_since(Instant::now()))?;
            if let Some(answer) = want(&packet) {
                return Ok(answer);
            }
            self.digest(packet)?;
        }
    }

    /// What every client does with what it did not ask for.
    fn digest(&mut self, packet: Packet) -> Result<()> {
        match packet {
            Packet::Publish(message) => self.take_in(message),
            Packet::Ack(Ack { kind: AckKind::PubRel, id, .. }) => {
                self.received.remove(&id);
                if self.auto_ack { self.send(&wire::ack(AckKind::PubComp, id)) } else { Ok(()) }
            }
            Packet::Disconnect { code, .. } => Err(Error::Disconnected(code)),
            Packet::PingResp => Ok(()),
            other => Err(Error::Protocol(format!("{other:?} out of the blue"))),
        }
    }

    fn take_in(&mut self, message: Publish) -> Result<()> {
        let id = message.id;
        // Method A of [MQTT-4.3.3-10]: what was received and not released is not new.
        if message.qos < 2 || self.received.insert(id) {
            self.inbox.push_back(message.clone());
        }
        match message.qos {
            1 if self.auto_ack => self.send(&wire::ack(AckKind::PubAck, id)),
            2 if self.auto_ack => self.send(&wire::ack(AckKind::PubRec, id)),
            _ => Ok(()),
        }
    }

    /// The next message; `Timeout` when none came in time.
    pub fn recv(&mut self, timeout: Duration) -> Result<Publish> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(message);
            }
            let packet = self.packet(deadline.saturating_duration_since(Instant::now()))?;
            self.digest(packet)?;
        }
    }

    /// Payloads of the next `count` messages, as text.
    pub fn texts(&mut self, count: usize, timeout: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + timeout;
        (0..count)
            .map(|_| Ok(self.recv(deadline.saturating_duration_since(Instant::now()))?.text()))
            .collect()
    }

    /// Whether nothing arrives: a message that is already on its way (it was sent by the node
    /// this client is on, before what this call sends) would precede the PINGRESP.
    pub fn quiet(&mut self) -> Result<bool> {
        self.ping()?;
        Ok(self.inbox.is_empty())
    }

    /// The round trip of a PINGREQ.
    pub fn ping(&mut self) -> Result<Duration> {
        let sent = Instant::now();
        self.send(&[0xc0, 0])?;
        self.until(ANSWER_TIMEOUT, |packet| (*packet == Packet::PingResp).then_some(()))?;
        Ok(sent.elapsed())
    }

    /// The reason codes of SUBACK, which the broker must have granted to be usable.
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> Result<Vec<u8>> {
        self.subscribe_with(filters, &Props::default())
    }

    pub fn subscribe_with(&mut self, filters: &[(&str, u8)], props: &Props) -> Result<Vec<u8>> {
        let id = self.take_id();
        self.send(&wire::subscribe(self.version, id, filters, props))?;
        self.await_suback(id)
    }

    /// Waits for the SUBACK of a SUBSCRIBE sent by hand; messages may precede it [MQTT-3.8.4].
    pub fn await_suback(&mut self, id: u16) -> Result<Vec<u8>> {
        self.until(ANSWER_TIMEOUT, |packet| match packet {
            Packet::SubAck { id: of, codes, .. } if *of == id => Some(codes.clone()),
            _ => None,
        })
    }

    pub fn unsubscribe(&mut self, filters: &[&str]) -> Result<Vec<u8>> {
        let id = self.take_id();
        self.send(&wire::unsubscribe(self.version, id, filters))?;
        self.until(ANSWER_TIMEOUT, |packet| match packet {
            Packet::UnsubAck { id: of, codes, .. } if *of == id => Some(codes.clone()),
            _ => None,
        })
    }

    /// Publishes and completes the handshake of the QoS; the reason code of PUBACK or PUBREC.
    pub fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Result<u8> {
        self.publish_with(topic, payload, qos, false, Props::default())
    }

    /// Publishes with the retain flag.
    pub fn retain(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Result<u8> {
        self.publish_with(topic, payload, qos, true, Props::default())
    }

    pub fn publish_with(
        &mut self,
        topic: &str,
        payload: impl AsRef<[u8]>,
        qos: u8,
        retain: bool,
        props: Props,
    ) -> Result<u8> {
        let id = if qos > 0 { self.take_id() } else { 0 };
        let payload = payload.as_ref().to_vec();
        let message = Publish { topic: topic.into(), payload, qos, retain, dup: false, id, props };
        self.send(&wire::publish(self.version, &message))?;
        match qos {
            0 => Ok(0),
            1 => self.await_ack(AckKind::PubAck, id),
            _ => {
                let code = self.await_ack(AckKind::PubRec, id)?;
                if code < 0x80 {
                    self.send_ack(AckKind::PubRel, id)?;
                    self.await_ack(AckKind::PubComp, id)?;
                }
                Ok(code)
            }
        }
    }

    /// Waits for the acknowledgement of `id`; its reason code.
    pub fn await_ack(&mut self, kind: AckKind, id: u16) -> Result<u8> {
        self.until(ANSWER_TIMEOUT, |packet| match packet {
            Packet::Ack(ack) if ack.kind == kind && ack.id == id => Some(ack.code),
            _ => None,
        })
    }

    /// The next PUBACK, for publishers with more than one message in flight.
    pub fn next_puback(&mut self, timeout: Duration) -> Result<Ack> {
        self.until(timeout, |packet| match packet {
            Packet::Ack(ack) if ack.kind == AckKind::PubAck => Some(ack.clone()),
            _ => None,
        })
    }

    pub fn send_ack(&mut self, kind: AckKind, id: u16) -> Result<()> {
        self.send(&wire::ack(kind, id))
    }

    pub fn send_publish(&mut self, message: &Publish) -> Result<()> {
        self.send(&wire::publish(self.version, message))
    }

    /// Leaves with DISCONNECT, and waits until the broker has closed: it has then taken note.
    pub fn disconnect(mut self) -> Result<()> {
        self.send(&wire::disconnect(self.version, 0))?;
        match self.ending(ANSWER_TIMEOUT)? {
            Error::Closed => Ok(()),
            other => Err(other),
        }
    }

    /// How the connection ends, whatever arrives before it does.
    ///
    /// # Errors
    /// `Timeout`: it did not end.
    pub fn ending(&mut self, timeout: Duration) -> Result<Error> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.packet(deadline.saturating_duration_since(Instant::now())) {
                Ok(Packet::Disconnect { code, .. }) => return Ok(Error::Disconnected(code)),
                Ok(Packet::ConnAck { code, .. }) if code != 0 => return Ok(Error::Refused(code)),
                Ok(_) => {}
                Err(Error::Timeout) => return Err(Error::Timeout),
                Err(ended) => return Ok(ended),
            }
        }
    }

    /// Drops the connection without DISCONNECT, as a client that crashed; its QoS 2 state is what
    /// the next connection of this client id needs.
    pub fn crash(self) -> Received {
        self.received
    }
}
