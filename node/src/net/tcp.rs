//! The link of a connection whose socket an event loop owns.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::Token;
use mio::net::TcpStream;

use super::mailbox::{Mailbox, ToLoop};
use super::share::Share;
use crate::session::{Context, Durability, Link};

/// Any thread may write; the last holder closes the descriptor, so that none can meet another
/// connection under its number.
pub(super) struct TcpLink {
    stream: TcpStream,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) token: Token,
    share: Arc<Share>,
    durability: Durability,
    /// It counts as a client of its listener.
    is_client: AtomicBool,
}

impl TcpLink {
    pub fn new(
        stream: TcpStream,
        mailbox: Arc<Mailbox>,
        token: Token,
        share: Arc<Share>,
        durability: Durability,
    ) -> Arc<Self> {
        Arc::new(Self { stream, mailbox, token, share, durability, is_client: AtomicBool::new(false) })
    }

    /// The client was let in.
    pub fn joins(&self) {
        if !self.is_client.swap(true, Ordering::Relaxed) {
            self.share.client_came();
        }
    }

    /// The connection is over.
    pub fn leaves(&self) {
        if self.is_client.swap(false, Ordering::Relaxed) {
            self.share.client_left();
        }
    }

    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buf)
    }

    /// Whether the client has closed its side and there is nothing left to read.
    pub fn is_at_end(&self) -> bool {
        self.stream.peek(&mut [0]).is_ok_and(|read| read == 0)
    }

    /// Ends both directions, whoever still holds the descriptor.
    pub fn shut(&self) {
        if self.stream.shutdown(Shutdown::Both).is_err() {
            // The client has done so before.
        }
    }
}

/// The form in which an address is shown and compared: that of an IPv4 client is of IPv4, also when
/// it came to a socket of IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// For what lies between the socket and MQTT.
impl Write for &TcpLink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.stream).write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        (&self.stream).write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for TcpLink {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.stream).write(bytes)
    }

    fn finish(&self) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            // The client has closed; its owner finds out by reading.
        }
    }

    fn wake(&self) {
        self.mailbox.post(ToLoop::Attend(self.token));
    }

    fn context(&self) -> &Context {
        &self.mailbox.context
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn is_full(&self) -> bool {
        self.share.is_full()
    }

    fn address(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok().map(canonical)
    }
}
