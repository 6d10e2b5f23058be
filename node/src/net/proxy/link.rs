//! The link of a connection that came through a proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::{Header, HeaderReader, Malformed};
use crate::auth::Certificate;
use crate::session::{Context, Durability, Link};

/// Everything is as below, but for who the client is.
pub(in crate::net) struct ProxiedLink {
    below: Arc<dyn Link>,
    header: OnceLock<Header>,
}

/// A connection whose header has not come in full.
pub(in crate::net) struct Proxied {
    reader: HeaderReader,
    link: Arc<ProxiedLink>,
}

impl Proxied {
    pub fn new(link: Arc<ProxiedLink>) -> Self {
        Self { reader: HeaderReader::default(), link }
    }

    /// Takes what was read from the socket. Where the client's own bytes begin, once the header is
    /// whole; from then on the link says who the client is, and this has done its work.
    ///
    /// # Errors
    /// There is no header.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some((header, length)) = self.reader.read(bytes)? else { return Ok(None) };
        self.link.header.get_or_init(|| header);
        Ok(Some(length))
    }
}

impl ProxiedLink {
    pub fn new(below: Arc<dyn Link>) -> Arc<Self> {
        Arc::new(Self { below, header: OnceLock::new() })
    }
}

impl Link for ProxiedLink {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.below.write(bytes)
    }

    fn leave_to_owner(&self) -> bool {
        self.below.leave_to_owner()
    }

    fn finish(&self) {
        self.below.finish();
    }

    fn wake(&self) {
        self.below.wake();
    }

    fn context(&self) -> &Context {
        self.below.context()
    }

    fn durability(&self) -> Durability {
        self.below.durability()
    }

    fn is_full(&self) -> bool {
        self.below.is_full()
    }

    fn address(&self) -> Option<SocketAddr> {
        self.header.get().and_then(|header| header.source).or_else(|| self.below.address())
    }

    /// What this node has verified counts before what the proxy has.
    fn certificate(&self) -> Option<Arc<Certificate>> {
        let verified_here = self.below.certificate();
        verified_here.or_else(|| self.header.get().and_then(|header| header.certificate.clone()))
    }
}
