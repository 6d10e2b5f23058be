//! What a connection needs of the front end that carries its bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Counters, Durability, Limits, Service};
use crate::auth::Certificate;
use crate::overload::Pressure;

/// What all connections of a process share.
pub struct Context {
    pub limits: Limits,
    pub counters: Counters,
    pub pressure: Pressure,
    pub service: Arc<dyn Service>,
}

impl Context {
    pub fn new(limits: Limits, service: Arc<dyn Service>) -> Arc<Self> {
        Arc::new(Self { limits, counters: Counters::default(), pressure: Pressure::default(), service })
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The way back to the client and to the front end that owns the connection. Called from any
/// thread; nothing here blocks.
pub trait Link: Send + Sync + 'static {
    /// Writes what can be written at once.
    ///
    /// # Errors
    /// `WouldBlock`: nothing; the owner calls [`Conn::writable`](super::Conn::writable) when it
    /// is worth trying again. Any other error ends the connection.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Whether only the owner's thread may write and this is another one. The link has then asked
    /// the owner to call [`Conn::flush`](super::Conn::flush).
    fn leave_to_owner(&self) -> bool {
        false
    }

    /// Nothing more will be written. The client sees the end of the stream after what was
    /// written.
    fn finish(&self);

    /// Makes the owner attend to the connection soon, on its own thread.
    fn wake(&self);

    fn context(&self) -> &Context;

    /// What the listener that the client came to promises.
    fn durability(&self) -> Durability {
        Durability::Quorum
    }

    /// Where the client is, the address in its canonical form: an IPv4 address is never one of IPv6.
    /// `None`: it has no address, or its socket has failed.
    fn address(&self) -> Option<SocketAddr> {
        None
    }

    /// The names in the certificate that the client has shown, which was verified. `None` until the
    /// TLS handshake is complete.
    fn certificate(&self) -> Option<Arc<Certificate>> {
        None
    }

    /// Whether the listener that the client came to has as many clients as it may have.
    fn is_full(&self) -> bool {
        false
    }

    /// The address of the client, for logs.
    fn peer(&self) -> String {
        self.address().map_or_else(|| "gone".into(), |address| address.to_string())
    }
}
