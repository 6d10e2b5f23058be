//! Which clients a node lets in.

use super::{Exchange, Failure, Mechanism, NONCE_BYTES, Nonce};
use crate::mqtt::ReasonCode;

/// A node's rule of who is let in, with the mechanisms it offers.
#[derive(Default)]
pub struct Access {
    mechanisms: Vec<Box<dyn Mechanism>>,
    required: bool,
}

impl Access {
    /// No mechanisms. `required`: only clients that have proved who they are are let in.
    pub fn new(required: bool) -> Self {
        Self { mechanisms: Vec::new(), required }
    }

    /// Offers one mechanism more.
    #[must_use]
    pub fn with(mut self, mechanism: impl Mechanism) -> Self {
        self.mechanisms.push(Box::new(mechanism));
        self
    }

    /// Begins an exchange of the Authentication Method that a client asked for.
    ///
    /// # Errors
    /// The method is not offered [MQTT-4.12.0-1], or there is no randomness to begin with.
    pub fn begin(&self, method: &str) -> Result<Box<dyn Exchange>, Failure> {
        let Some(mechanism) = self.mechanisms.iter().find(|mechanism| mechanism.name() == method) else {
            let reason = ReasonCode::BadAuthenticationMethod;
            return Err(Failure::new(reason, "an authentication method that is not offered"));
        };
        let mut nonce = [0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce)
            .map_err(|_| Failure::new(ReasonCode::UnspecifiedError, "the system gives no random numbers"))?;
        Ok(mechanism.begin(Nonce(nonce)))
    }

    /// Whether a client is let in. `identity`: who it has proved to be, if it did.
    pub fn admits(&self, identity: Option<&str>) -> bool {
        identity.is_some() || !self.required
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Outcome, Reply};

    struct Telling(Nonce);

    impl Exchange for Telling {
        fn step(self: Box<Self>, _: &[u8], reply: Reply) {
            reply(Outcome::Success { data: self.0.0.to_vec(), identity: "x".into() });
        }
    }

    struct Fake;

    impl Mechanism for Fake {
        fn name(&self) -> &'static str {
            "FAKE"
        }

        fn begin(&self, nonce: Nonce) -> Box<dyn Exchange> {
            Box::new(Telling(nonce))
        }
    }

    #[test]
    fn methods_are_found_by_their_exact_name() {
        let access = Access::new(false).with(Fake);
        assert!(access.begin("FAKE").is_ok());
        for other in ["fake", "FAKE ", ""] {
            let failure = access.begin(other).err().expect("not offered");
            assert_eq!(failure.reason, ReasonCode::BadAuthenticationMethod);
        }
        assert!(Access::default().begin("FAKE").is_err());
    }

    #[test]
    fn every_exchange_has_a_nonce_of_its_own() {
        let access = Access::new(false).with(Fake);
        let (sender, nonces) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let sender = sender.clone();
            let reply = move |outcome| {
                let Outcome::Success { data, .. } = outcome else { panic!("{outcome:?}") };
                sender.send(data).expect("listened to");
            };
            access.begin("FAKE").expect("offered").step(b"", Box::new(reply));
        }
        assert_ne!(nonces.recv(), nonces.recv());
    }

    #[test]
    fn anonymous_clients() {
        assert!(Access::default().admits(None));
        assert!(!Access::new(true).admits(None));
        assert!(Access::new(true).admits(Some("x")));
    }
}
