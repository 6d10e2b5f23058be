//! Steps of TLS handshakes: a key exchange and a signature take from a third of a millisecond to
//! several, for which nobody in an event loop shall wait.

use std::sync::{Arc, Weak};

use super::TlsLink;
use crate::net::mailbox::ToLoop;

/// What a client has sent of its handshake, on the way to a thread that has the time.
pub(in crate::net) struct Step {
    /// Nobody works for a connection that is gone.
    link: Weak<TlsLink>,
    bytes: Vec<u8>,
}

/// What a step came to.
pub(in crate::net) struct Stepped {
    /// The handshake is complete.
    pub is_over: bool,
    /// What the client said after it in the same bytes.
    pub plain: Vec<u8>,
    /// The client sends nothing more.
    pub ended: bool,
}

impl Step {
    pub fn new(link: &Arc<TlsLink>, bytes: &[u8]) -> Self {
        Self { link: Arc::downgrade(link), bytes: bytes.to_vec() }
    }

    /// Takes it, writes TLS's answer, and tells the event loop.
    pub fn take(self) {
        let Some(link) = self.link.upgrade() else { return };
        let mut plain = Vec::new();
        let result = link.receive(&self.bytes, &mut plain);
        let result = result.map(|ended| Stepped { is_over: !link.is_shaking_hands(), plain, ended });
        link.post(|token| ToLoop::Stepped { token, result });
    }
}
