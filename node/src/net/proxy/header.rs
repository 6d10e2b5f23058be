//! A header of either version.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{v1, v2};
use crate::auth::Certificate;

/// Bytes of the longest header that is read.
pub(super) const HEADER_MAX_BYTES: usize = 4096;

/// What a proxy says of the client it speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Where the client is, its address in canonical form. `None`: the proxy speaks for itself, or
    /// does not say.
    pub source: Option<SocketAddr>,
    /// Of the certificate that the client has shown to the proxy, which has verified it.
    pub certificate: Option<Arc<Certificate>>,
}

/// The bytes are no header; fit for a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The header that `bytes` begin with, and its length. `None`: there is more to come, and it will
/// not be longer than 4096 bytes in all.
///
/// # Errors
/// Whatever follows, it will be no header.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    if begins_like(bytes, v1::PREFIX) {
        v1::parse(bytes)
    } else if begins_like(bytes, v2::SIGNATURE) {
        v2::parse(bytes)
    } else {
        Err(Malformed("there is no PROXY protocol header"))
    }
}

fn begins_like(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(a, b)| a == b)
}

/// Reads a header that comes in pieces; it keeps them until the header is whole.
#[derive(Debug, Default)]
pub struct HeaderReader {
    kept: Vec<u8>,
}

impl HeaderReader {
    /// Takes what has come. The header, once it is whole, and where in `bytes` the client's own
    /// begin; after that it is not to be called again.
    ///
    /// # Errors
    /// As of [`parse`].
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
        let had = self.kept.len();
        if had == 0 {
            let whole = parse(bytes)?;
            if whole.is_none() {
                self.kept.extend_from_slice(bytes);
            }
            return Ok(whole);
        }
        let taken = bytes.len().min(HEADER_MAX_BYTES.saturating_sub(had));
        self.kept.extend_from_slice(&bytes[..taken]);
        let whole = parse(&self.kept)?;
        // It was not whole without these.
        Ok(whole.map(|(header, length)| (header, length.saturating_sub(had))))
    }
}
