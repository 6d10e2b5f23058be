//! Who a client is. Mechanisms of enhanced authentication [MQTT-4.12] with what they know of the
//! users, ways to judge what is in CONNECT, and the rule which clients are let in. Pure but for
//! reading files, and for `http` and `jwt`, which ask other servers: nonces and keys are handed in,
//! and no mechanism knows of a connection.
//!
//! A mechanism answers a step through a [`Reply`], so that one that has to ask somebody else may
//! answer later and from another thread.

mod access;
mod acl;
mod bans;
mod certificate;
mod certified;
mod chain;
mod directory;
mod exchange;
mod gate;
mod guesses;
pub mod http;
pub mod jwt;
mod login;
pub mod mosquitto;
mod network;
mod passwords;
mod prepare;
mod rules;
pub mod scram;
mod setting;
#[cfg(test)]
mod testing;
mod users;

pub use access::{Access, ClientIds, Denied};
pub use acl::{RULES_MAX, read_acl};
pub use bans::Banned;
pub use certificate::{Certificate, UnreadableCertificate};
pub use certified::{CertificateName, Certified};
pub use chain::Chain;
pub use directory::{Directory, User};
pub use exchange::{Exchange, Failure, Mechanism, NONCE_BYTES, Nonce, Outcome, Reply};
pub use guesses::Patience;
pub use login::{Authenticator, Count, Judge, Login, Password, Principal, Verdict};
pub use network::Network;
pub use passwords::{BadHash, PasswordHash, Passwords, SALT_BYTES};
pub use prepare::{NotPrepared, prepare};
pub use rules::{Actions, Ask, Effect, Rule, RuleError, Rules, Subject, TopicPattern, split_words};
pub use setting::BadSetting;
pub use users::{Shape, UserTable, Users, UsersFileError, UsersOfBoth};
