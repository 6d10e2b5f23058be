//! What a connection has to do with who its client is, beside the exchange itself.

use std::sync::Arc;

use super::Conn;
use super::outbound::Flags;
use crate::auth::{Exchange, Failure, Outcome, Principal};
use crate::mqtt::{Auth, encode};

/// One step of an enhanced authentication [MQTT-4.12].
pub enum AuthStep<'a> {
    /// The client wants to be authenticated, in CONNECT or again.
    Begin { method: &'a str, data: &'a [u8] },
    /// It has answered what was sent to it last.
    Continue { exchange: Box<dyn Exchange>, data: &'a [u8] },
}

/// What becomes of a CONNECT that names no Authentication Method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogIn {
    /// The client need not prove anything, and has not.
    Anonymous,
    Refused(Failure),
    /// Answered once by [`Conn::authenticated`].
    Later,
}

/// What a successful CONNACK repeats of an exchange [MQTT-4.12.0-5].
#[derive(Debug)]
pub(super) struct Proof {
    pub method: Box<str>,
    pub data: Option<Box<[u8]>>,
}

impl Conn {
    /// Answers a step of an authentication; see [`Service::authenticate`](super::Service::authenticate).
    pub fn authenticated(&self, outcome: Outcome) {
        let unused = {
            let mut out = self.out.lock();
            if out.flags.has(Flags::CLOSING) {
                Some(Box::new(outcome))
            } else {
                out.cold().outcome.replace(Box::new(outcome))
            }
        };
        // A mechanism's own clean-up is not our lock's business.
        drop(unused);
        self.wake();
    }

    /// Who the client has proved to be, if it did.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.get()
    }

    pub(super) fn take_outcome(&self) -> Option<Box<Outcome>> {
        self.out.lock().cold.as_mut().and_then(|cold| cold.outcome.take())
    }

    /// The client is who it says; CONNACK will repeat `proof`, if there is one.
    pub(super) fn prove(&self, principal: Option<Arc<Principal>>, proof: Option<Proof>) {
        if let Some(principal) = principal {
            let _ = self.principal.set(Box::new(Arc::unwrap_or_clone(principal)));
        }
        if let Some(greeting) = &mut self.out.lock().cold().greeting {
            greeting.proof = proof;
        }
    }

    /// False: it exceeds the client's Maximum Packet Size and was not sent [MQTT-3.1.2-24].
    pub(super) fn send_auth(self: &Arc<Self>, auth: &Auth<'_>) -> bool {
        self.with_out(|out| {
            let maximum = out.maximum_packet;
            if out.flags.has(Flags::CLOSING) {
                return true;
            }
            let fits = encode::auth(out.buffer(), auth, maximum);
            out.packets += u16::from(fits);
            fits
        })
    }
}
