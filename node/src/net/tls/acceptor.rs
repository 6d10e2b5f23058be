//! How new connections of a listener are encrypted.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, ServerConnection};

use super::{TlsFileError, TlsFiles};
use crate::net::Kind;

/// Bytes of ciphertext that wait for a client to read; what is beyond waits in its outbox.
const CIPHERTEXT_MAX_BYTES: usize = 64 << 10;

/// The certificates of one listener, shared by the event loops. New connections take what was
/// loaded last; established ones keep what they began with.
#[derive(Debug)]
pub struct Acceptor {
    files: TlsFiles,
    kind: Kind,
    config: RwLock<Arc<ServerConfig>>,
}

impl Acceptor {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A file is missing or unreadable, or does not hold what it should.
    pub fn load(files: TlsFiles, kind: Kind) -> Result<Arc<Self>, TlsFileError> {
        let config = RwLock::new(build(&files, kind)?);
        Ok(Arc::new(Self { files, kind, config }))
    }

    /// Reads the files again, for connections to come. Blocks.
    ///
    /// # Errors
    /// As of [`Acceptor::load`]; what was loaded before stays.
    pub fn reload(&self) -> Result<(), TlsFileError> {
        let config = build(&self.files, self.kind)?;
        *self.config.write() = config;
        Ok(())
    }

    /// The section of the configuration that this listener is.
    pub fn section(&self) -> &'static str {
        self.files.section
    }

    /// The cipher state of a new connection.
    pub(in crate::net) fn session(&self) -> Result<ServerConnection, rustls::Error> {
        let config = self.config.read().clone();
        let mut session = ServerConnection::new(config)?;
        session.set_buffer_limit(Some(CIPHERTEXT_MAX_BYTES));
        Ok(session)
    }
}

fn build(files: &TlsFiles, kind: Kind) -> Result<Arc<ServerConfig>, TlsFileError> {
    // Named, since a process-wide default would depend on what else is linked.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certified = files.certified_key(&provider)?;
    let verifier = files.client_verifier(&provider)?;
    let unusable = |error: rustls::Error| files.error("bind", format!("TLS cannot be offered: {error}"));
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let asks_clients = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // A client that offers protocols of which none is ours is turned away; one that offers none
    // is served.
    config.alpn_protocols = vec![match kind {
        Kind::Tcp => b"mqtt".to_vec(),
        Kind::WebSocket => b"http/1.1".to_vec(),
    }];
    // Sessions are resumed by tickets, which the clients keep, or not at all. A resumed session is
    // not verified again: where clients show certificates, each connection has to.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if asks_clients {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = Ticketer::new().map_err(unusable)?;
    }
    Ok(Arc::new(config))
}
