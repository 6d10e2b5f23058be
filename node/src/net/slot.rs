//! A connection as its event loop holds it.

use std::io;
use std::sync::Arc;

use super::tcp::TcpLink;
use super::tls::TlsLink;
use super::websocket::WebSocket;
use crate::session::{Conn, Flow, Inbound, Link as _};

/// Reads of one connection in one turn.
const READS_PER_TURN: usize = 4;

/// What reading needs, shared by all connections of a loop.
pub(super) struct Buffers {
    /// For the bytes of the socket.
    pub raw: Box<[u8]>,
    /// For what they are, decrypted.
    pub plain: Vec<u8>,
}

/// What lies between the bytes of the socket and MQTT, from below.
pub(super) struct Layers {
    pub tls: Option<Arc<TlsLink>>,
    pub websocket: Option<WebSocket>,
    /// Waits for its share of the time for TLS handshakes.
    pub queued: bool,
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
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Progress {
    /// Nothing more to read for now.
    Drained,
    /// There may be more.
    More,
    Flow(Flow),
    /// The client broke TLS, or did not speak it.
    BrokenTls(rustls::Error),
    /// The client has closed its side; it may still read.
    Ended,
    /// The socket is gone.
    Gone,
}

/// Whether a connection's next read has to wait for its share of the time for TLS handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    No,
    /// It is to be appended to the queue.
    Now,
    /// It is in the queue.
    Already,
}

impl Slot {
    /// Whether the client has closed its side while it waited for CONNACK, with nothing sent after
    /// CONNECT: it has gone to another node perhaps, which its claim must not take it from.
    pub fn has_given_up(&self) -> bool {
        self.held && self.inbound.is_handshake() && !self.inbound.keeps_bytes() && self.link.is_at_end()
    }

    /// Reads what has come, within this turn's bounds.
    pub fn read(&mut self, buffers: &mut Buffers, now_ms: u64) -> Progress {
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
            if progress != Progress::More {
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
        let Self { conn, inbound, layers, lingers, .. } = self;
        let (tls, websocket) = match layers {
            None => (None, None),
            Some(layers) => (layers.tls.as_ref(), layers.websocket.as_mut()),
        };
        if *lingers && websocket.is_none() {
            return Progress::More;
        }
        let (bytes, ended) = match tls {
            None => (bytes, false),
            Some(tls) => {
                plain.clear();
                match tls.receive(bytes, plain) {
                    Ok(ended) => (plain.as_mut_slice(), ended),
                    Err(error) => return Progress::BrokenTls(error),
                }
            }
        };
        let flow = match websocket {
            // A record of TLS itself.
            _ if bytes.is_empty() => Flow::Open,
            Some(websocket) if *lingers => {
                websocket.linger(conn, bytes);
                Flow::Open
            }
            None => inbound.feed(conn, bytes, now_ms),
            Some(websocket) => websocket.feed(conn, inbound, bytes, now_ms),
        };
        match flow {
            Flow::Open if ended => Progress::Ended,
            Flow::Open => Progress::More,
            flow => Progress::Flow(flow),
        }
    }

    fn tls(&self) -> Option<&TlsLink> {
        self.layers.as_ref().and_then(|layers| layers.tls.as_deref())
    }

    /// The next read is part of a TLS handshake, which takes its time. Once, until
    /// [`Slot::unqueue`].
    pub fn queue_for_handshake(&mut self) -> Queued {
        let Some(layers) = self.layers.as_mut().filter(|_| !self.lingers) else { return Queued::No };
        if !layers.tls.as_ref().is_some_and(|tls| tls.is_shaking_hands()) {
            return Queued::No;
        }
        if std::mem::replace(&mut layers.queued, true) { Queued::Already } else { Queued::Now }
    }

    pub fn unqueue(&mut self) {
        if let Some(layers) = &mut self.layers {
            layers.queued = false;
        }
    }

    /// The socket takes bytes again.
    pub fn writable(&self) {
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
