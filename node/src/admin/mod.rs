//! The HTTP API of a node: health, metrics, and `/api/v1` for operators. It knows the node only
//! through [`Control`].

mod control;
mod guard;
mod handlers;
mod log;
pub mod messages;
mod metrics;
pub mod nodes;
mod reply;
mod server;
pub mod settings;

#[cfg(test)]
mod tests;

pub use control::*;
pub use guard::Hosts;
pub use log::LogRequest;
pub use metrics::{encode, registry};
pub use server::{router, serve};
