//! Listening sockets: bound first, so that errors come early; opened when the node may serve.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::tls::Acceptor;
use crate::session::Durability;

/// Connections that the system may complete before they are accepted.
const BACKLOG: i32 = 1024;

/// What is spoken on a socket, encrypted or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MQTT on the bare stream.
    Tcp,
    /// MQTT in WebSocket, at the path `/mqtt`.
    WebSocket,
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (`{key}`): {source}")]
pub struct BindError {
    pub address: SocketAddr,
    /// The configuration key that names the address.
    pub key: &'static str,
    pub source: io::Error,
}

/// One address, bound once per event loop. Clients are refused until it is opened.
#[derive(Debug)]
pub struct Bound {
    pub(super) sockets: Vec<StdListener>,
    pub(super) kind: Kind,
    pub(super) acceptor: Option<Arc<Acceptor>>,
    pub(super) durability: Durability,
    address: SocketAddr,
}

impl Bound {
    /// Binds `address` for `loops` event loops; the system spreads clients over them. `key` is
    /// what errors name, for example `listeners.tcp.bind`.
    ///
    /// # Errors
    /// The address is taken, not ours, or may not be bound.
    pub fn new(address: SocketAddr, kind: Kind, key: &'static str, loops: usize) -> Result<Self, BindError> {
        let fail = |source| BindError { address, key, source };
        // Sockets that share a port would also share it with another process's: bind it alone
        // first, to learn that somebody else has it.
        let probe = socket(address, false).map_err(fail)?;
        probe.listen(1).map_err(fail)?;
        let actual = probe.local_addr().map_err(fail)?.as_socket().unwrap_or(address);
        drop(probe);
        let mut sockets = Vec::with_capacity(loops);
        for _ in 0..loops.max(1) {
            sockets.push(socket(actual, true).map_err(fail)?.into());
        }
        Ok(Self { sockets, kind, acceptor: None, durability: Durability::default(), address: actual })
    }

    /// Everything on it is encrypted.
    #[must_use]
    pub fn with_tls(self, acceptor: Arc<Acceptor>) -> Self {
        Self { acceptor: Some(acceptor), ..self }
    }

    /// What its clients' publishes are acknowledged for.
    #[must_use]
    pub fn acknowledging(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// How it is encrypted; `None`: it is not.
    pub fn acceptor(&self) -> Option<&Arc<Acceptor>> {
        self.acceptor.as_ref()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The address with the port that was chosen if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A listening socket of one event loop.
pub(super) struct Listener {
    pub socket: TcpListener,
    pub kind: Kind,
    pub acceptor: Option<Arc<Acceptor>>,
    pub durability: Durability,
    /// It may have clients waiting.
    pub ready: bool,
    /// Clients may wait for whom there was no descriptor; no event will tell of them again.
    pub starved: bool,
    spare: Option<File>,
}

/// What came of looking for a client.
pub(super) enum Accepted {
    Client(TcpStream),
    /// One was turned away for want of descriptors.
    TurnedAway,
    Nobody,
}

impl Listener {
    /// # Errors
    /// The socket cannot listen.
    pub fn open(
        socket: StdListener,
        kind: Kind,
        acceptor: Option<Arc<Acceptor>>,
        durability: Durability,
    ) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into());
        Ok(Self { socket, kind, acceptor, durability, ready: true, starved: false, spare: spare() })
    }

    pub fn accept(&mut self) -> Accepted {
        match self.socket.accept() {
            Ok((stream, _)) => Accepted::Client(stream),
            Err(e) if is_out_of_descriptors(&e) => {
                // Without this the client would wait, and we would spin.
                self.spare = None;
                let turned_away = self.socket.accept();
                self.ready = turned_away.is_ok();
                // Another thread may have taken the spare one's place.
                self.starved = turned_away.as_ref().is_err_and(is_out_of_descriptors);
                drop(turned_away);
                self.spare = spare();
                if self.ready { Accepted::TurnedAway } else { Accepted::Nobody }
            }
            // The client gave up before it was accepted; there may be others.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                Accepted::Nobody
            }
            // Nobody waits, or nothing can be done for now: the next client raises an event.
            Err(_) => {
                self.ready = false;
                Accepted::Nobody
            }
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
