//! A connection as its event loop holds it.

use std::io;
use std::sync::Arc;

use super::proxy::Proxied;
use super::refused::Refused;
use super::tcp::TcpLink;
use super::tls::{Step, Stepped, TlsLink};
use super::websocket::WebSocket;
use crate::session::{Conn, Flow, Inbound, Link as _};

/// Reads of one connection in one turn.
const READS_PER_TURN: usize = 4;
/// Bytes of a TLS handshake that are taken up at once.
const STEP_BYTES: usize = 8 << 10;

/// What reading needs, shared by all connections of a loop.
pub(super) struct Buffers {
    /// For the bytes of the socket.
    pub raw: Box<[u8]>,
    /// For what they are, decrypted.
    pub plain: Vec<u8>,
}

/// What lies between the bytes of the socket and MQTT, from below.
pub(super) struct Layers {
    /// Until its header has come.
    pub proxied: Option<Proxied>,
    pub tls: Option<Arc<TlsLink>>,
    pub websocket: Option<WebSocket>,
    handshake: Handshake,
}

/// Where the TLS handshake of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    /// There is none, or no more.
    Over,
    /// What is read is a step of it.
    Next,
    /// A step is being taken elsewhere; nothing is read meanwhile.
    Away,
}

impl Layers {
    /// The layers of a connection that has any.
    pub fn of(
        proxied: Option<Proxied>,
        tls: Option<Arc<TlsLink>>,
        websocket: Option<WebSocket>,
    ) -> Option<Box<Self>> {
        let handshake = if tls.is_some() { Handshake::Next } else { Handshake::Over };
        let layers = Self { proxied, tls, websocket, handshake };
        (!layers.is_bare()).then(|| Box::new(layers))
    }

    /// Nothing lies between.
    fn is_bare(&self) -> bool {
        self.proxied.is_none() && self.tls.is_none() && self.websocket.is_none()
    }
}

pub(super) struct Slot {
    pub conn: Arc<Conn>,
    pub link: Arc<TcpLink>,
    pub inbound: Inbound,
    /// Nothing for MQTT on the bare stream.
    pub layers: Option<Box<Layers>>,
    /// When it has to be looked at next; other entries of the wheel do not count.
    pub check_ms: u64,
    /// Tells it from earlier users of its place.
    pub generation: u32,
    /// The client has closed its side: only a read of nothing ends the reading.
    pub hung_up: bool,
    /// Not read although there may be something.
    pub held: bool,
    /// Counted as a handshake.
    pub is_handshake: bool,
    /// Over; what the client still sends is thrown away until it closes too.
    pub lingers: bool,
}

/// What reading came to.
pub(super) enum Progress {
    /// Nothing more to read for now.
    Drained,
    /// There may be more.
    More,
    Flow(Flow),
    /// A step of the TLS handshake is to be taken.
    Step(Step),
    /// The client broke TLS, or did not speak it.
    BrokenTls(rustls::Error),
    Refused(Refused),
    /// The client has closed its side; it may still read.
    Ended,
    /// The socket is gone.
    Gone,
}

impl Slot {
    /// Whether the client has closed its side while it waited for CONNACK, with nothing sent after
    /// CONNECT: it has gone to another node perhaps, which its claim must not take it from.
    pub fn has_given_up(&self) -> bool {
        self.held && self.inbound.is_handshake() && !self.inbound.keeps_bytes() && self.link.is_at_end()
    }

    /// Reads what has come, within this turn's bounds.
    pub fn read(&mut self, buffers: &mut Buffers, now_ms: u64) -> Progress {
        let most = match self.handshake() {
            Handshake::Over => buffers.raw.len(),
            Handshake::Next => STEP_BYTES,
            Handshake::Away => return Progress::Drained,
        };
        self.inbound.begin_turn();
        if !self.lingers && self.inbound.keeps_bytes() {
            // What the last turn did not get to.
            let flow = self.inbound.feed(&self.conn, &[], now_ms);
            let flow = self.attended(flow, now_ms);
            if flow != Flow::Open {
                return Progress::Flow(flow);
            }
        }
        let Buffers { raw, plain } = buffers;
        let raw = &mut raw[..most];
        for _ in 0..READS_PER_TURN {
            let read = match self.link.read(raw) {
                Ok(0) => return Progress::Ended,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // The end that TLS tells of may have come with what had to wait.
                    let ended = !self.lingers && self.tls().is_some_and(TlsLink::has_ended);
                    return if ended { Progress::Ended } else { Progress::Drained };
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Gone,
            };
            let progress = self.feed(&mut raw[..read], plain, now_ms);
            if !matches!(progress, Progress::More) {
                return progress;
            }
            // After a short read the socket is empty, and what comes raises a new event; but no
            // event follows the end of the stream.
            if read < raw.len() && !self.hung_up {
                return Progress::Drained;
            }
        }
        Progress::More
    }

    /// Passes bytes of the socket up to MQTT. `More`: reading goes on.
    fn feed(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, now_ms: u64) -> Progress {
        let bytes = match self.unwrap(bytes) {
            Ok(bytes) => bytes,
            Err(progress) => return progress,
        };
        let Some(layers) = &mut self.layers else { return self.feed_plain(bytes, false, now_ms) };
        if self.lingers && (layers.websocket.is_none() || layers.handshake == Handshake::Next) {
            return Progress::More;
        }
        let Some(tls) = &layers.tls else { return self.feed_plain(bytes, false, now_ms) };
        if layers.handshake == Handshake::Next {
            layers.handshake = Handshake::Away;
            return Progress::Step(Step::new(tls, bytes));
        }
        plain.clear();
        match tls.receive(bytes, plain) {
            Ok(ended) => self.feed_plain(plain, ended, now_ms),
            Err(error) => Progress::BrokenTls(error),
        }
    }

    /// Goes on after a step of the TLS handshake.
    pub fn stepped(&mut self, result: Result<Stepped, rustls::Error>, now_ms: u64) -> Progress {
        let is_over = result.as_ref().is_ok_and(|stepped| stepped.is_over);
        if let Some(layers) = &mut self.layers {
            layers.handshake = if is_over { Handshake::Over } else { Handshake::Next };
        }
        // What the socket did not take then.
        self.writable();
        match result {
            // Said too late.
            _ if self.lingers => Progress::More,
            Ok(mut stepped) => self.feed_plain(&mut stepped.plain, stepped.ended, now_ms),
            Err(error) => Progress::BrokenTls(error),
        }
    }

    /// Passes on to MQTT what is not encrypted any more; `ended`: it is the last.
    fn feed_plain(&mut self, bytes: &mut [u8], ended: bool, now_ms: u64) -> Progress {
        let Self { conn, inbound, layers, lingers, .. } = self;
        let websocket = layers.as_mut().and_then(|layers| layers.websocket.as_mut());
        if *lingers && websocket.is_none() {
            return Progress::More;
        }
        let flow = match websocket {
            // A record of TLS itself.
            _ if bytes.is_empty() => Flow::Open,
            Some(websocket) if *lingers => {
                websocket.linger(conn, bytes);
                Flow::Open
            }
            None => inbound.feed(conn, bytes, now_ms),
            Some(websocket) => {
                let flow = websocket.feed(conn, inbound, bytes, now_ms);
                if let Some(origin) = websocket.take_unwelcome() {
                    return Progress::Refused(Refused::Origin(origin));
                }
                flow
            }
        };
        match flow {
            Flow::Open if ended => Progress::Ended,
            Flow::Open => Progress::More,
            flow => Progress::Flow(flow),
        }
    }

    /// Takes off what a proxy says before the client's own bytes, which are returned.
    fn unwrap<'a>(&mut self, bytes: &'a mut [u8]) -> Result<&'a mut [u8], Progress> {
        let proxied = self.layers.as_mut().and_then(|layers| layers.proxied.as_mut());
        let Some(proxied) = proxied else { return Ok(bytes) };
        if self.lingers {
            return Err(Progress::More);
        }
        let length = match proxied.read(bytes) {
            Ok(Some(length)) => length,
            Ok(None) => return Err(Progress::More),
            Err(malformed) => return Err(Progress::Refused(Refused::ProxyHeader(malformed))),
        };
        if let Some(layers) = &mut self.layers {
            layers.proxied = None;
        }
        self.layers = self.layers.take().filter(|layers| !layers.is_bare());
        let service = &self.conn.context().service;
        if self.conn.address().is_some_and(|address| !service.admits_address(address.ip())) {
            return Err(Progress::Refused(Refused::Address));
        }
        match &mut bytes[length..] {
            [] => Err(Progress::More),
            rest => Ok(rest),
        }
    }

    fn tls(&self) -> Option<&TlsLink> {
        self.layers.as_ref().and_then(|layers| layers.tls.as_deref())
    }

    fn handshake(&self) -> Handshake {
        self.layers.as_ref().map_or(Handshake::Over, |layers| layers.handshake)
    }

    /// The socket takes bytes again.
    pub fn writable(&self) {
        if self.handshake() == Handshake::Away {
            return;
        }
        if let Some(tls) = self.tls() {
            tls.writable();
        }
        self.conn.writable();
    }

    /// Does what other threads have left to the owner of the link.
    pub fn attend_link(&self) {
        if let Some(tls) = self.tls() {
            tls.attend();
        }
    }

    /// Ends the writing side, as far as the socket takes what is left.
    pub fn finish(&self) {
        match self.tls() {
            Some(tls) => {
                tls.finish();
                tls.attend();
            }
            None => self.link.finish(),
        }
    }

    /// Ends both directions of the socket.
    pub fn shut(&self) {
        match self.tls() {
            Some(tls) => tls.shut(),
            None => self.link.shut(),
        }
    }

    /// Goes on with what was held up.
    pub fn attend(&mut self, now_ms: u64) -> Flow {
        let flow = self.inbound.attend(&self.conn, now_ms);
        self.attended(flow, now_ms)
    }

    /// After MQTT went on with what it had kept, which came to `flow`: what follows from that for
    /// the layers below.
    fn attended(&mut self, flow: Flow, now_ms: u64) -> Flow {
        match self.layers.as_mut().and_then(|layers| layers.websocket.as_mut()) {
            None => flow,
            Some(websocket) => websocket.attended(&self.conn, &mut self.inbound, flow, now_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_slab_is_small() {
        assert!(size_of::<Slot>() <= 96, "{}", size_of::<Slot>());
    }
}
