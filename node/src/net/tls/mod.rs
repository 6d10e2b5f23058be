//! TLS below MQTT: certificates from files, and the link of a connection that is encrypted.

mod acceptor;
mod files;
mod handshake;
mod link;

pub use acceptor::Acceptor;
pub use files::{TlsFileError, TlsFiles};
pub(super) use handshake::{Step, Stepped};
pub(super) use link::TlsLink;
