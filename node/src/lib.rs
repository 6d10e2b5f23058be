//! Rookery, a clustered MQTT broker. The folders are the architecture:
//!
//! ```text
//! net ⇄ session ⇄ mqtt        bytes in and out, the protocol, the wire format
//!        │
//!      broker ──► peer        who gets what here; forward streams to the nodes that own the rest
//!        │
//!      raft ──► state         the replicated log; what each committed command changes
//!        │
//!      store                  what is on disk
//! ```

// Unit tests run in real time and order their own tasks.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "the bans are for what a simulation runs"))]

pub mod admin;
pub mod audit;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod env;
#[cfg(test)]
mod fixture;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod linear;
pub mod logging;
pub mod mqtt;
pub mod net;
pub mod overload;
pub mod peer;
pub mod raft;
pub mod server;
pub mod session;
pub mod sharing;
pub mod state;
pub mod store;
pub mod topic;
mod workers;
