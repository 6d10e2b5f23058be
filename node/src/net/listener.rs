//! Listening sockets: bound first, so that errors come early; opened when the node may serve.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::proxy::ProxySources;
use super::share::Share;
use super::tcp::canonical;
use super::tls::Acceptor;
use super::websocket::OriginPolicy;
use crate::session::Durability;

/// Connections that the system may complete before they are accepted.
const BACKLOG: i32 = 4096;

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

/// How the clients of a listener are served.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    pub kind: Kind,
    /// How everything on it is encrypted; `None`: it is not.
    pub acceptor: Option<Arc<Acceptor>>,
    /// What its clients' publishes are acknowledged for.
    pub durability: Durability,
    /// Who may connect, and begins with a header of the PROXY protocol; `None`: anybody, without.
    pub proxies: Option<ProxySources>,
    /// The web pages that may open a WebSocket.
    pub origins: Arc<OriginPolicy>,
    /// How many clients it may have, and how fast they may come.
    pub share: Arc<Share>,
}

impl ListenerOptions {
    /// Not encrypted, and everything else by default.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            acceptor: None,
            durability: Durability::default(),
            proxies: None,
            origins: Arc::default(),
            share: Arc::default(),
        }
    }
}

/// One address, bound once per event loop. Clients are refused until it is opened.
#[derive(Debug)]
pub struct Bound {
    pub(super) sockets: Vec<StdListener>,
    pub(super) options: Arc<ListenerOptions>,
    address: SocketAddr,
}

impl Bound {
    /// Binds `address` for `loops` event loops; the system spreads clients over them. `key` is
    /// what errors name, for example `listeners.tcp.bind`.
    ///
    /// # Errors
    /// The address is taken, not ours, or may not be bound.
    pub fn new(
        address: SocketAddr,
        options: ListenerOptions,
        key: &'static str,
        loops: usize,
    ) -> Result<Self, BindError> {
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
        Ok(Self { sockets, options: Arc::new(options), address: actual })
    }

    pub fn options(&self) -> &ListenerOptions {
        &self.options
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
    pub options: Arc<ListenerOptions>,
    /// It may have clients waiting.
    pub ready: bool,
    /// By the loop's clock; until then they wait.
    pub admits_at_ms: u64,
    /// Clients may wait for whom there was no descriptor; no event will tell of them again.
    pub starved: bool,
    spare: Option<File>,
}

/// What came of looking for a client.
pub(super) enum Accepted {
    Client(TcpStream, SocketAddr),
    /// One was turned away for want of descriptors.
    TurnedAway,
    Nobody,
}

impl Listener {
    /// # Errors
    /// The socket cannot listen.
    pub fn open(socket: StdListener, options: Arc<ListenerOptions>) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into());
        Ok(Self { socket, options, ready: true, admits_at_ms: 0, starved: false, spare: spare() })
    }

    pub fn accept(&mut self) -> Accepted {
        match self.socket.accept() {
            Ok((stream, address)) => Accepted::Client(stream, canonical(address)),
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
