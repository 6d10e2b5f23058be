//! What is wrong with a packet.

use super::{ReasonCode, Version};

/// A packet broke the standard; the connection must be closed [MQTT-4.13.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct DecodeError {
    /// The code for DISCONNECT, or for CONNACK before one was sent (5.0).
    pub reason: ReasonCode,
    /// The offence, fit for a log line and for a reason string.
    pub what: &'static str,
    /// The packet was a CONNECT that a CONNACK of this version's form may refuse with `reason`
    /// before closing. `None`: close without a word, as 3.1.1 demands of malformed CONNECTs
    /// [MQTT-3.1.4-1]; for any other packet than CONNECT it is always `None`.
    pub connack: Option<Version>,
}

impl DecodeError {
    pub const fn new(reason: ReasonCode, what: &'static str) -> Self {
        DecodeError { reason, what, connack: None }
    }

    /// 0x81: the bytes cannot be parsed as the standard says.
    pub const fn malformed(what: &'static str) -> Self {
        Self::new(ReasonCode::MalformedPacket, what)
    }

    /// 0x82: parseable, but not allowed there.
    pub const fn protocol(what: &'static str) -> Self {
        Self::new(ReasonCode::ProtocolError, what)
    }

    pub(super) const fn refusable(mut self, form: Version) -> Self {
        self.connack = Some(form);
        self
    }
}

/// A packet to be sent cannot be written in MQTT: a string or binary field above 65,535 bytes,
/// or more than [`super::MAX_REMAINING_LEN`] bytes after the fixed header. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet does not fit the limits of MQTT's length fields")]
pub struct Oversize;
