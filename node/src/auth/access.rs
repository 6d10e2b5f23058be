//! Which clients a node lets in.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::guesses::{Guesses, Patience};
use super::{Banned, Chain, Exchange, Failure, Judge, Login, Mechanism, NONCE_BYTES, Nonce};
use crate::mqtt::ReasonCode;

/// What becomes of a publish, or of a 3.x subscription, that no rule allows and of which the
/// client cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denied {
    /// Nothing: it is acknowledged like any other [MQTT-3.3.5-2 of 3.1.1], and goes nowhere.
    #[default]
    Ignore,
    /// The connection ends.
    Disconnect,
}

/// Which client ids a client may have: whoever has an id has its session, and ends the connection
/// of who had it before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIds {
    #[default]
    Any,
    /// The name of the user that it has proved to be.
    User,
    /// That, or that with a colon and anything after it. Users whose names have a colon get none:
    /// their ids would be somebody else's.
    UserPrefix,
}

impl ClientIds {
    fn admit(self, client_id: &str, user: Option<&str>) -> bool {
        let rest = user.and_then(|user| client_id.strip_prefix(user));
        match self {
            Self::Any => true,
            Self::User => rest == Some(""),
            Self::UserPrefix => {
                let has_colon = user.is_none_or(|user| user.contains(':'));
                !has_colon && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            }
        }
    }
}

/// A node's rule of who is let in, with the ways to find out who somebody is.
#[derive(Default)]
pub struct Access {
    mechanisms: Vec<Box<dyn Mechanism>>,
    chain: Chain,
    required: bool,
    denied: Denied,
    client_ids: ClientIds,
    guesses: Mutex<Guesses>,
    ban_s: u32,
}

impl Access {
    /// No ways. `required`: only clients that have proved who they are are let in.
    pub fn new(required: bool) -> Self {
        Self { required, ..Self::default() }
    }

    /// Offers one mechanism more.
    #[must_use]
    pub fn with(mut self, mechanism: impl Mechanism) -> Self {
        self.mechanisms.push(Box::new(mechanism));
        self
    }

    /// Judges what is in CONNECT by these.
    #[must_use]
    pub fn judging_by(self, chain: Chain) -> Self {
        Self { chain, ..self }
    }

    /// What is in CONNECT is judged by.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Does so with what is denied.
    #[must_use]
    pub fn denying(self, denied: Denied) -> Self {
        Self { denied, ..self }
    }

    /// Lets only such client ids in.
    #[must_use]
    pub fn naming(self, client_ids: ClientIds) -> Self {
        Self { client_ids, ..self }
    }

    /// Has so much patience with who cannot prove who he is.
    #[must_use]
    pub fn patient(self, patience: Patience) -> Self {
        Self { guesses: Mutex::new(Guesses::new(patience)), ban_s: patience.ban_s, ..self }
    }

    /// Begins an exchange of the Authentication Method that a client asked for.
    ///
    /// # Errors
    /// The method is not offered [MQTT-4.12.0-1], or there is no randomness to begin with.
    pub fn begin(&self, method: &str) -> Result<Box<dyn Exchange>, Failure> {
        let mut offered = self.mechanisms.iter().filter(|mechanism| mechanism.is_offered());
        let Some(mechanism) = offered.find(|mechanism| mechanism.name() == method) else {
            let reason = ReasonCode::BadAuthenticationMethod;
            return Err(Failure::new(reason, "an authentication method that is not offered"));
        };
        let mut nonce = [0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce)
            .map_err(|_| Failure::new(ReasonCode::UnspecifiedError, "the system gives no random numbers"))?;
        Ok(mechanism.begin(Nonce(nonce)))
    }

    /// Whether there is anything to judge a login by.
    pub fn judges(&self) -> bool {
        !self.chain.is_empty()
    }

    /// Finds out who a client is by what is in its CONNECT.
    pub fn judge(&self, login: Arc<Login>, judge: Judge) {
        self.chain.judge(login, judge);
    }

    /// Whether a client is let in that has proved nothing.
    pub fn admits_anonymous(&self) -> bool {
        !self.required
    }

    pub fn denied(&self) -> Denied {
        self.denied
    }

    /// Whether a client may have the id that it wants.
    pub fn admits_id(&self, client_id: &str, user: Option<&str>) -> bool {
        self.client_ids.admit(client_id, user)
    }

    /// Whether passwords from this address should not be tried for now. `now_ms`: of a monotonic
    /// clock.
    pub fn is_throttled(&self, address: IpAddr, now_ms: u64) -> bool {
        self.guesses.lock().are_too_many(address, now_ms)
    }

    /// A log-in failed: how long its answer is to be held back, milliseconds, and who is to be
    /// banned for it, and for how long, milliseconds.
    pub fn failed(&self, address: Option<IpAddr>, now_ms: u64) -> (u64, Option<(Banned, u64)>) {
        let Some(address) = address else { return (0, None) };
        let (delay_ms, bans) = self.guesses.lock().failed(address, now_ms);
        let ban = || (Banned::Network(address.into()), u64::from(self.ban_s) * 1_000);
        (delay_ms, bans.then(ban))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Outcome, Principal, Reply};

    struct Telling(Nonce);

    impl Exchange for Telling {
        fn step(self: Box<Self>, _: &[u8], reply: Reply) {
            reply(Outcome::success(self.0.0.to_vec(), Principal::new("x", "FAKE")));
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
    fn client_ids() {
        for (ids, client, user, admitted) in [
            (ClientIds::Any, "bob", None, true),
            (ClientIds::User, "ann", Some("ann"), true),
            (ClientIds::User, "ann:1", Some("ann"), false),
            (ClientIds::User, "bob", Some("ann"), false),
            (ClientIds::User, "ann", None, false),
            (ClientIds::User, "", None, false),
            (ClientIds::UserPrefix, "ann", Some("ann"), true),
            (ClientIds::UserPrefix, "ann:1", Some("ann"), true),
            (ClientIds::UserPrefix, "anna", Some("ann"), false),
            (ClientIds::UserPrefix, "bob:ann", Some("ann"), false),
            (ClientIds::UserPrefix, "ann:1", Some("ann:1"), false),
            (ClientIds::UserPrefix, "ann", None, false),
        ] {
            let access = Access::default().naming(ids);
            assert_eq!(access.admits_id(client, user), admitted, "{ids:?} {client} {user:?}");
        }
    }
}
