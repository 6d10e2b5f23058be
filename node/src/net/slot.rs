//! A connection as its event loop holds it.

use std::io;
use std::sync::Arc;

use super::tcp::TcpLink;
use super::websocket::WebSocket;
use crate::session::{Conn, Flow, Inbound};

/// Reads of one connection in one turn.
const READS_PER_TURN: usize = 4;

pub(super) struct Slot {
    pub conn: Arc<Conn>,
    pub link: Arc<TcpLink>,
    pub inbound: Inbound,
    pub websocket: Option<Box<WebSocket>>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing more to read for now.
    Drained,
    /// There may be more.
    More,
    Flow(Flow),
    /// The socket is gone.
    Gone,
}

impl Slot {
    /// Reads what has come, within this turn's bounds.
    pub fn read(&mut self, buf: &mut [u8], now_ms: u64) -> Progress {
        for _ in 0..READS_PER_TURN {
            let read = match self.link.read(buf) {
                Ok(0) => return Progress::Gone,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Progress::Drained,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Gone,
            };
            if !self.lingers {
                let flow = self.feed(&buf[..read], now_ms);
                if flow != Flow::Open {
                    return Progress::Flow(flow);
                }
            }
            // After a short read the socket is empty, and what comes raises a new event; but no
            // event follows the end of the stream.
            if read < buf.len() && !self.hung_up {
                return Progress::Drained;
            }
        }
        Progress::More
    }

    fn feed(&mut self, bytes: &[u8], now_ms: u64) -> Flow {
        match &mut self.websocket {
            None => self.inbound.feed(&self.conn, bytes, now_ms),
            Some(websocket) => websocket.feed(&self.conn, &mut self.inbound, bytes, now_ms),
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
