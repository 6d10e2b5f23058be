//! What a mechanism of enhanced authentication is made of.

use std::fmt;
use std::sync::Arc;

use super::Principal;
use crate::mqtt::ReasonCode;

/// Bytes of randomness that an exchange begins with.
pub const NONCE_BYTES: usize = 18;

/// Fresh bytes from a cryptographic generator, for one exchange.
pub struct Nonce(pub [u8; NONCE_BYTES]);

/// A way to find out who a client is, by its Authentication Method.
pub trait Mechanism: Send + Sync + 'static {
    /// The Authentication Method that clients ask for it by.
    fn name(&self) -> &'static str;

    /// Whether clients may ask for it at present.
    fn is_offered(&self) -> bool {
        true
    }

    /// The exchange before its first step.
    fn begin(&self, nonce: Nonce) -> Box<dyn Exchange>;
}

/// An exchange under way. It is held by the connection while the client is to speak, and handed
/// over with each step, so that nothing is left of it when the connection ends.
pub trait Exchange: Send + 'static {
    /// Takes the client's next Authentication Data (empty: it sent none) and answers through
    /// `reply`, at once or later from any thread. Must not block. An answer that never comes
    /// costs the client its connection by a time-out.
    fn step(self: Box<Self>, data: &[u8], reply: Reply);
}

/// Where the outcome of a step goes.
pub type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// What a step has come to.
pub enum Outcome {
    /// The client is to answer `data`, and `exchange` goes on with what it says.
    Continue {
        data: Vec<u8>,
        exchange: Box<dyn Exchange>,
    },
    /// The client is `principal`; `None`: nobody in particular, and let in all the same. `data` is
    /// the server's last word; empty: none. The client's right to be connected ends after
    /// `valid_for_ms`, if that is set.
    Success {
        data: Vec<u8>,
        principal: Option<Arc<Principal>>,
        valid_for_ms: Option<u64>,
    },
    Failure(Failure),
}

impl Outcome {
    /// The client is `principal`, for as long as it stays.
    pub fn success(data: Vec<u8>, principal: Arc<Principal>) -> Self {
        Self::Success { data, principal: Some(principal), valid_for_ms: None }
    }
}

impl fmt::Debug for Outcome {
    /// Without the data, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue { .. } => f.write_str("Continue"),
            Self::Success { principal, .. } => f.debug_tuple("Success").field(principal).finish(),
            Self::Failure(failure) => failure.fmt(f),
        }
    }
}

/// Why the client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For CONNACK, or for DISCONNECT after a re-authentication: of the codes that both have.
    pub reason: ReasonCode,
    /// For the log and the reason string: says nothing that the client must not learn.
    pub what: &'static str,
}

impl Failure {
    pub const fn new(reason: ReasonCode, what: &'static str) -> Self {
        Self { reason, what }
    }
}
