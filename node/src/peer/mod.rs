//! Node to node: gRPC channels and services, joining, forward streams, leases.

mod auth;
mod authority;
mod backoff;
#[cfg(test)]
mod certificate_tests;
mod channel;
mod connection;
mod dial;
pub mod forward;
mod greeting;
mod join;
mod keyring;
pub mod lease;
mod member;
pub(crate) mod rotation;
mod server;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod token;

pub use auth::*;
pub use authority::{Authority, AuthorityError, Fingerprint, Proven};
pub use channel::*;
pub use connection::{Caller, PeerStream};
pub use dial::Dial;
pub use join::{Admit, JoinError, JoinService, Joined, join, membership_server};
pub use keyring::{Grant, Keyring, Save, Standing, Step, StepError};
pub use member::Member;
pub use rotation::{KeysService, keys_server};
pub use server::{incoming, listen, serve};
pub use token::{BadToken, JoinToken};
