//! Bytes in and out: event loops, outboxes, TLS, WebSocket, the PROXY protocol, listeners; the tokio front end for simulation.

mod drift;
mod faults;
mod half_open;
mod listener;
mod loops;
mod mailbox;
mod pipe;
pub mod proxy;
mod refused;
mod server;
mod share;
mod slot;
mod tcp;
mod tls;
pub mod websocket;
mod wheel;

pub use listener::{BindError, Bound, Kind, ListenerOptions};
pub use pipe::serve;
pub use proxy::ProxySources;
pub use server::Server;
pub use share::Share;
pub use tls::{Acceptor, TlsFileError, TlsFiles};
pub use websocket::{AllowedOrigin, OriginPolicy};

pub use crate::session::{Counters, Metric, flush, turn};

#[cfg(test)]
mod tests;
