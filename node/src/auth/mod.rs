//! Who a client is. Mechanisms of enhanced authentication [MQTT-4.12] with what they know of the
//! users, and the rule which clients are let in. Pure but for reading the users' file: nonces and
//! keys are handed in, and no mechanism knows of a connection.
//!
//! A mechanism answers a step through a [`Reply`], so that one that has to ask somebody else may
//! answer later and from another thread.

mod access;
mod exchange;
mod prepare;
pub mod scram;
mod users;

pub use access::Access;
pub use exchange::{Exchange, Failure, Mechanism, NONCE_BYTES, Nonce, Outcome, Reply};
pub use prepare::{NotPrepared, prepare};
pub use users::{Shape, UserTable, Users, UsersFileError};
