//! What a connection has to do with who its client is, beside the exchange itself.

use std::sync::Arc;

use super::Conn;
use super::outbound::Flags;
use crate::auth::{Exchange, Outcome};
use crate::mqtt::{Auth, encode};

/// One step of an enhanced authentication [MQTT-4.12].
pub enum AuthStep<'a> {
    /// The client wants to be authenticated, in CONNECT or again.
    Begin { method: &'a str, data: &'a [u8] },
    /// It has answered what was sent to it last.
    Continue { exchange: Box<dyn Exchange>, data: &'a [u8] },
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

    /// Who the client has proved to be by enhanced authentication.
    pub fn identity(&self) -> Option<Arc<str>> {
        self.out.lock().cold.as_ref().and_then(|cold| cold.identity.clone())
    }

    pub(super) fn take_outcome(&self) -> Option<Box<Outcome>> {
        self.out.lock().cold.as_mut().and_then(|cold| cold.outcome.take())
    }

    /// The client is who it says; CONNACK will repeat `proof`.
    pub(super) fn prove(&self, identity: Arc<str>, proof: Proof) {
        let mut out = self.out.lock();
        let cold = out.cold();
        cold.identity = Some(identity);
        if let Some(greeting) = &mut cold.greeting {
            greeting.proof = Some(proof);
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
