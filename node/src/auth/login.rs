//! What is known of a client when it wants to be let in, and who it turns out to be.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Certificate, Failure, Rules};

/// A password of a client. Shows nothing of itself, and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Box<[u8]>>);

impl Password {
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// For comparing it, and for nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a client says of itself in CONNECT, and what is known of where it comes from.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Empty: it is to be assigned one.
    pub client_id: Arc<str>,
    pub username: Option<Arc<str>>,
    pub password: Option<Password>,
    pub address: Option<SocketAddr>,
    /// Its certificate, which was verified.
    pub certificate: Option<Arc<Certificate>>,
    /// Too many log-ins from there have failed: nothing costly is to be done for this one.
    pub throttled: bool,
}

impl Login {
    pub fn common_name(&self) -> Option<&str> {
        self.certificate.as_ref()?.common_name.as_deref()
    }
}

/// Who a client has proved to be, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    pub name: Arc<str>,
    /// What proved it: the name of an authenticator or of an Authentication Method.
    pub method: &'static str,
    /// The common name of its certificate.
    pub common_name: Option<Arc<str>>,
    /// When it is no longer, milliseconds since the Unix epoch: its connection then ends.
    pub expires_at_ms: Option<u64>,
    /// Rules of its own, which come before those of the cluster.
    pub rules: Rules,
}

impl Principal {
    /// Somebody of whom nothing more is known.
    pub fn new(name: impl Into<Arc<str>>, method: &'static str) -> Arc<Self> {
        Arc::new(Self { name: name.into(), method, ..Self::default() })
    }
}

/// What an authenticator makes of a login.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Nothing: the client has shown nothing that it could judge. The next one is asked.
    Pass,
    Allow(Arc<Principal>),
    Deny(Failure),
}

/// Where a verdict goes.
pub type Judge = Box<dyn FnOnce(Verdict) + Send>;

/// A way to find out who a client is from what is in its CONNECT.
pub trait Authenticator: Send + Sync + 'static {
    /// As it is called in the configuration, in logs and in [`Principal::method`].
    fn name(&self) -> &'static str;

    /// Judges a login, at once or later, from any thread. Must not block. A verdict that never
    /// comes costs the client its connection by a time-out.
    fn judge(&self, login: &Arc<Login>, judge: Judge);

    /// What it has counted since the node started.
    fn metrics(&self) -> Vec<Count> {
        Vec::new()
    }
}

/// Something that only grows, for `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Without the prefix and the suffix that all have.
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}
