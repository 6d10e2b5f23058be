//! Bytes in and out: event loops, outboxes, TLS, WebSocket, listeners; the tokio front end for simulation.

mod faults;
mod half_open;
mod listener;
mod loops;
mod mailbox;
mod pipe;
mod server;
mod slot;
mod tcp;
mod tls;
pub mod websocket;
mod wheel;

pub use listener::{BindError, Bound, Kind};
pub use pipe::serve;
pub use server::Server;
pub use tls::{Acceptor, TlsFileError, TlsFiles};

pub use crate::session::{Counters, Metric, flush, turn};

#[cfg(test)]
mod tests;
