//! Node to node: gRPC channels and services, joining, forward streams, leases.

mod auth;
mod backoff;
mod channel;
mod dial;
pub mod forward;
mod greeting;
mod join;
pub mod lease;
mod member;
mod server;
#[cfg(test)]
pub(crate) mod testing;
mod token;

pub use auth::*;
pub use channel::*;
pub use dial::Dial;
pub use join::{Admit, JoinError, JoinService, Joined, join, membership_server};
pub use member::Member;
pub use server::{incoming, listen, serve};
pub use token::{BadToken, JoinToken};
