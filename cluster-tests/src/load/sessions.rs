//! Persistent sessions by the hundred thousand: clients that connect, subscribe once and leave.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use crate::mqtt::{Options, Packet, Prop, Props, Version, connect, decode, disconnect, prop, subscribe};

/// No client gets any further for so long: the broker has stalled.
const STALL: Duration = Duration::from_secs(30);

/// Sessions to be made: number i is the client `<prefix>-<i>`, subscribed to `<prefix>/<i>` at QoS 1.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// Client i connects to the i-th of them, modulo their count.
    pub brokers: Vec<SocketAddr>,
    pub prefix: String,
    /// Session Expiry Interval, seconds; `u32::MAX`: never.
    pub expiry_s: u32,
    /// Clients at work at a time.
    pub at_work: usize,
}

/// How far a client has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// CONNECT and SUBSCRIBE are sent.
    Asked,
    /// The subscription stands, DISCONNECT is sent.
    Leaving,
}

struct Visit {
    stream: TcpStream,
    number: usize,
    stage: Stage,
    received: Vec<u8>,
}

impl Sessions {
    pub fn client_id(&self, number: usize) -> String {
        format!("{}-{number}", self.prefix)
    }

    pub fn topic(&self, number: usize) -> String {
        format!("{}/{number}", self.prefix)
    }

    pub fn options(&self, number: usize) -> Options {
        let expiry = Props::default().with(prop::SESSION_EXPIRY_S, Prop::U32(self.expiry_s));
        let mut options = Options::v5(&self.client_id(number)).keep_alive_s(0);
        options.clean_start = false;
        options.props = expiry;
        options
    }

    /// Makes the sessions of `numbers`; each is subscribed, and left with DISCONNECT, when this
    /// returns.
    ///
    /// # Errors
    /// A client is refused, loses its connection too early or gets no answer.
    pub fn make(&self, numbers: Range<usize>) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        let mut visits: Vec<Option<Visit>> = Vec::new();
        let mut left = numbers;
        for slot in 0..self.at_work {
            visits.push(self.begin(&poll, slot, left.next())?);
        }
        let mut at_work = visits.iter().flatten().count();
        while at_work > 0 {
            poll.poll(&mut events, Some(STALL))?;
            if events.is_empty() {
                return Err(io::Error::other(format!("{at_work} clients got no answer in {STALL:?}")));
            }
            for event in &events {
                let slot = event.token().0;
                let Some(visit) = &mut visits[slot] else { continue };
                if event.is_writable() && visit.stage == Stage::Connecting {
                    visit.stream.write_all(&self.hello(visit.number))?;
                    visit.stage = Stage::Asked;
                    poll.registry().reregister(&mut visit.stream, Token(slot), Interest::READABLE)?;
                }
                if event.is_readable() && visit.goes_on()? {
                    // The old stream is closed before the next one takes its place.
                    drop(visits[slot].take());
                    visits[slot] = self.begin(&poll, slot, left.next())?;
                    at_work -= usize::from(visits[slot].is_none());
                }
            }
        }
        Ok(())
    }

    fn begin(&self, poll: &Poll, slot: usize, number: Option<usize>) -> io::Result<Option<Visit>> {
        let Some(number) = number else { return Ok(None) };
        let mut stream = TcpStream::connect(self.brokers[number % self.brokers.len()])?;
        // No port is left waiting for stray segments: there are more clients than ports.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        poll.registry().register(&mut stream, Token(slot), Interest::WRITABLE)?;
        Ok(Some(Visit { stream, number, stage: Stage::Connecting, received: Vec::new() }))
    }

    fn hello(&self, number: usize) -> Vec<u8> {
        let mut out = connect(&self.options(number));
        out.extend(subscribe(Version::V5, 1, &[(&self.topic(number), 1)], &Props::default()));
        out
    }
}

impl Visit {
    /// Reads what has come, and leaves once the subscription stands; true when the broker has
    /// closed the connection in turn.
    fn goes_on(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) if self.stage == Stage::Leaving => return Ok(true),
                Ok(0) => return Err(self.failed("lost its connection")),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
            while let Some((packet, len)) = decode(Version::V5, &self.received).map_err(io::Error::other)? {
                self.received.drain(..len);
                match packet {
                    Packet::ConnAck { code: 0, .. } => {}
                    Packet::SubAck { codes, .. } if codes == [1] => {
                        self.stream.write_all(&disconnect(Version::V5, 0))?;
                        self.stage = Stage::Leaving;
                    }
                    other => return Err(self.failed(&format!("was answered {other:?}"))),
                }
            }
        }
    }

    fn failed(&self, what: &str) -> io::Error {
        io::Error::other(format!("client {} {what}", self.number))
    }
}
