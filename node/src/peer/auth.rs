//! How a node proves to another that it belongs to the cluster.
//!
//! Its certificate proves which node it is, and the connection keeps what it says private (see
//! [`super::tls`]). Besides, every call carries who is calling, from where, whom it means and what for,
//! and an HMAC-SHA256 over these with the cluster's secret: a call that goes astray, or one of a node
//! that was removed, is told apart from a stranger's, and neither a certificate nor the secret alone
//! lets anybody in.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::OnceLock;

use aws_lc_rs::{hmac, rand};
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Request, Status};
use tracing::warn;

use super::channel::Channels;
use super::connection::Caller;
use super::keyring::Keyring;
use crate::env;
use crate::state::NodeId;

/// Length of the cluster's secret, bytes.
pub const SECRET_LEN: usize = 32;
/// At most one line per this long about refused callers.
const REFUSAL_LOG_INTERVAL_MS: u64 = 10_000;
/// Longest advertised address that is believed, bytes.
const MAX_ADDR_LEN: usize = 300;

const CLUSTER: &str = "rookery-cluster";
const SENDER: &str = "rookery-node";
const ADDR: &str = "rookery-addr";
const TARGET: &str = "rookery-target";
const PURPOSE: &str = "rookery-purpose";
const MAC: &str = "rookery-mac";
/// Set on the answer to a node that was removed, so that it can tell this refusal from others.
pub(super) const REMOVED: &str = "rookery-removed";

/// The secret that all nodes of a cluster share and nobody else knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_LEN]);

impl Secret {
    pub fn new(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    /// A fresh one, for a new cluster.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; SECRET_LEN];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// For storing it on the node's own disk, and for nothing else.
    pub fn expose(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    pub(super) fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The system's generator of random numbers failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    rand::fill(bytes).map_err(|_| NoRandomness)
}

/// Names one cluster among all that an operator may run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = BadClusterId;

    fn from_str(s: &str) -> Result<Self, BadClusterId> {
        unhex(s).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(BadClusterId)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster id is 32 hexadecimal digits")]
pub struct BadClusterId;

/// Who this node is to its peers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    /// Never 0.
    pub node: NodeId,
    /// host:port under which the others reach this node's peer listener.
    pub advertised: String,
    pub keyring: Keyring,
}

/// What a channel is for; a proof for one does not serve for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Consensus,
    Bulk,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::Bulk => "bulk",
        }
    }
}

/// The target of a call to an address of which the node id is not known yet.
pub const ANYONE: NodeId = 0;

/// The client side: puts the proof on every call.
#[derive(Clone)]
pub struct Credentials {
    me: Identity,
    target: NodeId,
    purpose: Purpose,
    /// Of this revision of the keyring.
    revision: u64,
    proof: Proof,
}

type Proof = Arc<[(&'static str, MetadataValue<Ascii>)]>;

impl Credentials {
    /// # Errors
    /// The advertised address has characters that no address has.
    pub fn new(me: Identity, target: NodeId, purpose: Purpose) -> Result<Self, BadAddress> {
        let ready = me.keyring.ready();
        let proof = proof(&me, &ready.secrets[0], target, purpose)?;
        Ok(Self { me, target, purpose, revision: ready.revision, proof })
    }
}

fn proof(me: &Identity, secret: &hmac::Key, target: NodeId, purpose: Purpose) -> Result<Proof, BadAddress> {
    let proof = hmac::sign(secret, &signed(me.cluster, me.node, target, &me.advertised, purpose.as_str()));
    let value = |s: String| MetadataValue::try_from(s).map_err(|_| BadAddress(me.advertised.clone()));
    Ok(Arc::from([
        (CLUSTER, value(me.cluster.to_string())?),
        (SENDER, value(me.node.to_string())?),
        (ADDR, value(me.advertised.clone())?),
        (TARGET, value(target.to_string())?),
        (PURPOSE, value(purpose.as_str().to_owned())?),
        (MAC, value(hex(proof.as_ref()))?),
    ]))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl tonic::service::Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let ready = self.me.keyring.ready();
        if ready.revision != self.revision {
            // The secret may have been replaced; the address was good before.
            self.proof = proof(&self.me, &ready.secrets[0], self.target, self.purpose)
                .map_err(|e| Status::internal(e.to_string()))?;
            self.revision = ready.revision;
        }
        for (name, value) in self.proof.iter() {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}

/// An address that cannot be used in a URI or a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not usable as a peer address: {0:?}")]
pub struct BadAddress(pub String);

/// In the extensions of a verified request: who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerId(pub NodeId);

impl PeerId {
    /// The verified sender.
    ///
    /// # Errors
    /// `Unauthenticated`: the service was mounted without [`Verifier`].
    pub fn of<T>(request: &Request<T>) -> Result<NodeId, Status> {
        request
            .extensions()
            .get::<Self>()
            .map(|p| p.0)
            .ok_or_else(|| Status::unauthenticated("the caller was not identified"))
    }
}

/// Tells whether a node was a member once and is not any more.
pub type IsRemoved = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// The server side: lets only members pass. Put it before every service but `Membership`.
#[derive(Clone)]
pub struct Verifier(Arc<VerifierInner>);

struct VerifierInner {
    channels: Channels,
    removed: OnceLock<IsRemoved>,
    log: RateLimit,
}

impl Verifier {
    pub fn new(channels: Channels) -> Self {
        Self(Arc::new(VerifierInner {
            channels,
            removed: OnceLock::new(),
            log: RateLimit::new(REFUSAL_LOG_INTERVAL_MS),
        }))
    }

    /// Says from now on who was removed; only the first call counts.
    pub fn refuse_removed(&self, removed: IsRemoved) {
        let _ = self.0.removed.set(removed);
    }

    fn verify(&self, metadata: &MetadataMap, caller: Option<Caller>) -> Result<NodeId, Refusal> {
        let me = self.0.channels.identity();
        let ready = me.keyring.ready();
        let proven = caller.and_then(|caller| caller.proven);
        // A CA may have been forgotten since the connection was made.
        let proven = proven.filter(|proven| ready.roots.believes(proven.authority));
        if self.0.channels.certified() && proven.is_none() {
            return Err(Refusal::NoCertificate);
        }
        let text = |name: &'static str| {
            metadata.get(name).and_then(|v| v.to_str().ok()).ok_or(Refusal::Missing(name))
        };
        let cluster: ClusterId = text(CLUSTER)?.parse().map_err(|_| Refusal::Missing(CLUSTER))?;
        if cluster != me.cluster {
            return Err(Refusal::OtherCluster { theirs: cluster, ours: me.cluster });
        }
        let sender: NodeId = text(SENDER)?.parse().map_err(|_| Refusal::Missing(SENDER))?;
        let target: NodeId = text(TARGET)?.parse().map_err(|_| Refusal::Missing(TARGET))?;
        let addr = text(ADDR)?;
        let mac = unhex(text(MAC)?).ok_or(Refusal::Missing(MAC))?;
        if addr.len() > MAX_ADDR_LEN {
            return Err(Refusal::Missing(ADDR));
        }
        let signed = signed(cluster, sender, target, addr, text(PURPOSE)?);
        // Constant in time.
        if !ready.secrets.iter().any(|secret| hmac::verify(secret, &signed, &mac).is_ok()) {
            return Err(Refusal::WrongProof { sender });
        }
        if let Some(certified) = proven.map(|proven| proven.node).filter(|node| *node != sender) {
            return Err(Refusal::AnothersCertificate { sender, certified });
        }
        if target != ANYONE && target != me.node {
            return Err(Refusal::NotMe { target, me: me.node });
        }
        if sender == ANYONE {
            return Err(Refusal::Missing(SENDER));
        }
        if self.0.removed.get().is_some_and(|removed| removed(sender)) {
            return Err(Refusal::Removed { sender });
        }
        if sender != me.node {
            self.0.channels.learn(sender, addr);
        }
        Ok(sender)
    }
}

impl tonic::service::Interceptor for Verifier {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = request.extensions().get::<Option<Caller>>().copied().flatten();
        match self.verify(request.metadata(), caller) {
            Ok(sender) => {
                request.extensions_mut().insert(PeerId(sender));
                Ok(request)
            }
            Err(refusal) => {
                let from = Caller::shown(&request);
                if let Some(suppressed) = self.0.log.permit() {
                    warn!(%from, suppressed, "refused a call to the peer port: {refusal}");
                }
                Err(refusal.into())
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("no credentials of this cluster ({0} is missing or malformed)")]
    Missing(&'static str),
    #[error("the caller has shown no certificate of this cluster; without one a node can only join")]
    NoCertificate,
    #[error("the caller says that it is node {sender:016x}, its certificate is that of {certified:016x}")]
    AnothersCertificate { sender: NodeId, certified: NodeId },
    #[error("the caller belongs to cluster {theirs}, this node to {ours}")]
    OtherCluster { theirs: ClusterId, ours: ClusterId },
    #[error("node {sender:016x} does not know the cluster's secret")]
    WrongProof { sender: NodeId },
    #[error("the call is for node {target:016x}, this is {me:016x}")]
    NotMe { target: NodeId, me: NodeId },
    #[error(
        "node {sender:016x} was removed from this cluster; empty its data folder and join it again with a new token"
    )]
    Removed { sender: NodeId },
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Removed { .. } => {
                let mut status = Self::failed_precondition(refusal.to_string());
                status.metadata_mut().insert(REMOVED, MetadataValue::from_static("1"));
                status
            }
            // Not the caller's fault: an address was taken over by another node of the cluster.
            Refusal::NotMe { .. } => Self::unavailable(refusal.to_string()),
            _ => Self::unauthenticated(refusal.to_string()),
        }
    }
}

/// What the proof covers, unambiguously.
fn signed(cluster: ClusterId, sender: NodeId, target: NodeId, addr: &str, purpose: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + addr.len());
    bytes.extend_from_slice(b"rookery peer call\x01");
    bytes.extend_from_slice(&cluster.0);
    bytes.extend_from_slice(&sender.to_be_bytes());
    bytes.extend_from_slice(&target.to_be_bytes());
    bytes.extend_from_slice(&(addr.len() as u64).to_be_bytes());
    bytes.extend_from_slice(addr.as_bytes());
    bytes.extend_from_slice(purpose.as_bytes());
    bytes
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

pub(super) fn unhex(s: &str) -> Option<Vec<u8>> {
    if !s.len().is_multiple_of(2) || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).ok()).collect()
}

/// Lets one event through per interval and counts the rest.
pub(crate) struct RateLimit {
    interval_ms: u64,
    state: Mutex<(Option<env::Instant>, u64)>,
}

impl RateLimit {
    pub(crate) fn new(interval_ms: u64) -> Self {
        Self { interval_ms, state: Mutex::new((None, 0)) }
    }

    /// `Some(how many were held back since the last)` when this one may pass.
    pub(crate) fn permit(&self) -> Option<u64> {
        let now = env::now();
        let mut state = self.state.lock();
        let pass = state
            .0
            .is_none_or(|last| now.saturating_duration_since(last).as_millis() as u64 >= self.interval_ms);
        if pass {
            state.0 = Some(now);
            Some(std::mem::take(&mut state.1))
        } else {
            state.1 += 1;
            None
        }
    }
}
