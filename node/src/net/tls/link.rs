//! The link of a connection whose bytes are encrypted.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use mio::Token;
use parking_lot::Mutex;
use rustls::ServerConnection;

use crate::auth::Certificate;
use crate::net::mailbox::ToLoop;
use crate::net::tcp::TcpLink;
use crate::session::{Context, Durability, Link};

/// What rustls' buffer for records keeps at least; after more it is made to shrink.
const SMALL_READ_BYTES: usize = 4096;

/// One thread at a time reads and writes: the order of records is part of the cipher. While a step of
/// the handshake is taken, that is the thread that takes it, and otherwise the owner's, to which others
/// leave a flush. So nobody waits for the lock.
pub(in crate::net) struct TlsLink {
    tcp: Arc<TcpLink>,
    tls: Mutex<ServerConnection>,
    /// What the client's certificate says, once it is verified.
    certificate: OnceLock<Arc<Certificate>>,
    /// Nothing more will be written: close_notify is to follow what is left.
    finishing: AtomicBool,
}

impl TlsLink {
    pub fn new(tcp: Arc<TcpLink>, tls: ServerConnection) -> Arc<Self> {
        Arc::new(Self {
            tcp,
            tls: Mutex::new(tls),
            certificate: OnceLock::new(),
            finishing: AtomicBool::new(false),
        })
    }

    pub(super) fn post(&self, letter: impl FnOnce(Token) -> ToLoop) {
        self.tcp.mailbox.post(letter(self.tcp.token));
    }

    pub(super) fn is_shaking_hands(&self) -> bool {
        self.tls.lock().is_handshaking()
    }

    /// Takes what was read from the socket: what it says is appended to `plain`, what TLS answers
    /// by itself is written. Whether it was the end: the client sends nothing more.
    ///
    /// # Errors
    /// The client broke TLS, or gave it up with an alert. Our alert has been written.
    pub fn receive(&self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, rustls::Error> {
        let mut tls = self.tls.lock();
        let was_shaking_hands = tls.is_handshaking();
        let result = decrypt(&mut tls, bytes, plain);
        if was_shaking_hands && result.is_ok() && !tls.is_handshaking() {
            self.identify(&tls);
        }
        if self.write_records(&mut tls).is_err() {
            // It waits for a writable socket, or the next read finds the connection broken.
        }
        result
    }

    /// The client has said that it sends nothing more.
    pub fn has_ended(&self) -> bool {
        self.tls.lock().process_new_packets().is_ok_and(|state| state.peer_has_closed())
    }

    /// The socket takes bytes again.
    pub fn writable(&self) {
        // Otherwise as above.
        if self.write_records(&mut self.tls.lock()).is_ok() {
            self.attend();
        }
    }

    /// Ends the writing side if that was asked for and everything else is written.
    pub fn attend(&self) {
        if !self.finishing.load(Ordering::Acquire) {
            return;
        }
        // Whoever takes a step of the handshake is followed by the owner, who comes here again.
        let Some(mut tls) = self.tls.try_lock() else { return };
        tls.send_close_notify();
        if self.write_records(&mut tls).is_ok() {
            // Once: it makes the socket writable, and with that it is attended to again.
            self.finishing.store(false, Ordering::Release);
            self.tcp.finish();
        }
    }

    /// Ends both directions, with a farewell if the socket still takes it.
    pub fn shut(&self) {
        self.finish();
        self.attend();
        self.tcp.shut();
    }

    /// Takes down what the certificate says that the client was verified by. One that cannot be
    /// read names nobody.
    fn identify(&self, tls: &ServerConnection) {
        let leaf = tls.peer_certificates().and_then(<[_]>::first);
        if let Some(Ok(certificate)) = leaf.map(|leaf| Certificate::from_der(leaf)) {
            self.certificate.get_or_init(|| Arc::new(certificate));
        }
    }

    fn write_records(&self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(&mut &*self.tcp) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn decrypt(tls: &mut ServerConnection, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<bool, rustls::Error> {
    let large = bytes.len() > SMALL_READ_BYTES;
    let unexpected = |error: io::Error| rustls::Error::General(error.to_string());
    while !bytes.is_empty() {
        if tls.read_tls(&mut bytes).map_err(unexpected)? == 0 {
            // After close_notify nothing counts.
            return Ok(true);
        }
        let state = tls.process_new_packets()?;
        let length = state.plaintext_bytes_to_read();
        tls.reader().take(length as u64).read_to_end(plain).map_err(unexpected)?;
        if state.peer_has_closed() {
            return Ok(true);
        }
    }
    if large && tls.read_tls(&mut NothingYet).is_ok() {
        // Never: asking made the buffer shrink, which is all that was wanted.
    }
    Ok(false)
}

struct NothingYet;

impl Read for NothingYet {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Link for TlsLink {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut tls = self.tls.lock();
        // What is left goes first, and bounds what this connection holds encrypted.
        self.write_records(&mut tls)?;
        let taken = tls.writer().write(bytes)?;
        match self.write_records(&mut tls) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            // What is left is our business; the caller finds out when it brings more.
            _ => Ok(taken),
        }
    }

    fn leave_to_owner(&self) -> bool {
        let elsewhere = !self.tcp.mailbox.is_read_here();
        if elsewhere {
            self.tcp.mailbox.post(ToLoop::Flush(self.tcp.token));
        }
        elsewhere
    }

    /// Done by the owner, which is woken next.
    fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
    }

    fn wake(&self) {
        self.tcp.wake();
    }

    fn context(&self) -> &Context {
        self.tcp.context()
    }

    fn durability(&self) -> Durability {
        self.tcp.durability()
    }

    fn is_full(&self) -> bool {
        self.tcp.is_full()
    }

    fn address(&self) -> Option<SocketAddr> {
        self.tcp.address()
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.get().cloned()
    }
}
