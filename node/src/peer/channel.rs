//! The address book and the connections to the other nodes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tracing::{error, info, warn};

use super::auth::{ANYONE, BadAddress, Credentials, Identity, Purpose, REMOVED, RateLimit};
use super::connection::{PeerStream, warn_of_rejection};
use super::keyring::Keyring;
use super::tls;
use crate::state::NodeId;

/// Largest message on a peer connection, bytes, in either direction.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// HTTP/2 flow control window of one stream, bytes.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 flow control window of one connection, bytes.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Without keep-alive a stream over a silently dropped connection would hang for ever.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests that may wait for a connection.
const CHANNEL_QUEUE: usize = 4096;
const REFUSED_LOG_INTERVAL_MS: u64 = 10_000;

/// A connection that proves on every call who is calling.
pub type PeerChannel = InterceptedService<Channel, Credentials>;

/// How connections are made, each when it is first used.
#[derive(Clone)]
pub struct Connector {
    connect: Connect,
    /// Both sides show certificates.
    certified: bool,
}

type Connect = Arc<dyn Fn(Endpoint, NodeId) -> Channel + Send + Sync>;

impl Connector {
    /// Over the system's network, encrypted.
    pub fn new(keyring: &Keyring) -> Self {
        let keyring = keyring.clone();
        let connect = move |endpoint: Endpoint, whom| {
            let keyring = keyring.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |to| dial(keyring.clone(), to, whom)))
        };
        Self { connect: Arc::new(connect), certified: true }
    }

    /// As [`Self::new`], and counts the attempts.
    #[cfg(test)]
    pub(crate) fn counting(keyring: &Keyring, dials: Arc<std::sync::atomic::AtomicUsize>) -> Self {
        let keyring = keyring.clone();
        let connect = move |endpoint: Endpoint, whom| {
            let (keyring, dials) = (keyring.clone(), dials.clone());
            endpoint.connect_with_connector_lazy(tower::service_fn(move |to| {
                dials.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                dial(keyring.clone(), to, whom)
            }))
        };
        Self { connect: Arc::new(connect), certified: true }
    }

    /// Over a network that nobody else is on, such as a simulated one: in the clear, and callers prove
    /// themselves by the secret alone.
    pub fn plain(connect: impl Fn(Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        Self { connect: Arc::new(move |endpoint, _| connect(endpoint)), certified: false }
    }
}

/// One attempt at a connection to the node `whom`, or to any of the cluster. What only an operator can
/// help is logged.
pub(super) async fn dial(keyring: Keyring, to: Uri, whom: NodeId) -> io::Result<TokioIo<PeerStream>> {
    let dialled = PeerStream::dial(&keyring, to, whom).await;
    if let Err(error) = &dialled
        && tls::rejected(error)
        && let Some(suppressed) = keyring.log().permit()
    {
        warn_of_rejection(whom, suppressed, error);
    }
    dialled.map(TokioIo::new)
}

/// Where the other nodes are, and up to two connections to each: one for consensus, and one for
/// bulk, so that large transfers never delay a heartbeat. Cheap to clone.
#[derive(Clone)]
pub struct Channels(Arc<Inner>);

struct Inner {
    me: Identity,
    connector: Connector,
    /// Where the connections' tasks run, whoever asks for one first.
    runtime: Handle,
    peers: RwLock<HashMap<NodeId, Peer>>,
    book: watch::Sender<u64>,
    removed: watch::Sender<Option<String>>,
    refusals: RateLimit,
}

struct Peer {
    addr: String,
    trust: Trust,
    consensus: Option<PeerChannel>,
    bulk: Option<PeerChannel>,
}

impl Channels {
    /// The connections' tasks run on `runtime`.
    pub fn new(me: Identity, connector: Connector, runtime: Handle) -> Self {
        Self(Arc::new(Inner {
            me,
            connector,
            runtime,
            peers: RwLock::default(),
            book: watch::channel(0).0,
            removed: watch::channel(None).0,
            refusals: RateLimit::new(REFUSED_LOG_INTERVAL_MS),
        }))
    }

    pub fn identity(&self) -> &Identity {
        &self.0.me
    }

    /// The node is at `addr` now (host:port), as it said itself. Replaces what was known and the
    /// connections to it.
    pub fn learn(&self, node: NodeId, addr: &str) {
        self.note(node, addr, Trust::Itself);
    }

    /// The node is at `addr`, as another member said, or as this node's disk remembers it;
    /// believed unless the node itself has said otherwise.
    pub fn relay(&self, node: NodeId, addr: &str) {
        self.note(node, addr, Trust::Another);
    }

    /// The node was at `addr` when it became a member; believed only while nothing better is
    /// known.
    pub fn suggest(&self, node: NodeId, addr: &str) {
        if !self.0.peers.read().contains_key(&node) {
            self.note(node, addr, Trust::Membership);
        }
    }

    fn note(&self, node: NodeId, addr: &str, trust: Trust) {
        if node == self.0.me.node || node == ANYONE || addr.is_empty() {
            return;
        }
        let news = |p: &Peer| p.trust < trust || (p.trust == trust && p.addr != addr);
        if self.0.peers.read().get(&node).is_some_and(|p| !news(p)) {
            return;
        }
        let mut peers = self.0.peers.write();
        match peers.get_mut(&node) {
            Some(known) if !news(known) => return,
            Some(known) if known.addr == addr => {
                known.trust = trust;
                return;
            }
            Some(known) => info!("node {node:016x} moved from {} to {addr}", known.addr),
            None => {}
        }
        peers.insert(node, Peer { addr: addr.to_owned(), trust, consensus: None, bulk: None });
        drop(peers);
        self.0.book.send_modify(|n| *n += 1);
    }

    /// The node is no member any more.
    pub fn forget(&self, node: NodeId) {
        if self.0.peers.write().remove(&node).is_some() {
            self.0.book.send_modify(|n| *n += 1);
        }
    }

    /// The node's address, if known.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.0.peers.read().get(&node).map(|p| p.addr.clone())
    }

    /// The node's address in its own words, if it has told it since this node started.
    pub fn own_word(&self, node: NodeId) -> Option<String> {
        let peers = self.0.peers.read();
        peers.get(&node).filter(|p| p.trust == Trust::Itself).map(|p| p.addr.clone())
    }

    /// Every other node with a known address, by id.
    pub fn known(&self) -> Vec<(NodeId, String)> {
        let mut all: Vec<_> = self.0.peers.read().iter().map(|(n, p)| (*n, p.addr.clone())).collect();
        all.sort_unstable();
        all
    }

    /// Changes whenever the address book does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.book.subscribe()
    }

    /// The connection for consensus; `None` while the node's address is unknown.
    pub fn consensus(&self, node: NodeId) -> Option<PeerChannel> {
        self.get(node, Purpose::Consensus)
    }

    /// The connection for everything large or frequent; `None` while the address is unknown.
    pub fn bulk(&self, node: NodeId) -> Option<PeerChannel> {
        self.get(node, Purpose::Bulk)
    }

    /// A connection of its own to an address of which the node is not known.
    ///
    /// # Errors
    /// Not an address.
    pub fn dial(&self, addr: &str) -> Result<PeerChannel, BadAddress> {
        self.connect(addr, ANYONE, Purpose::Consensus)
    }

    /// Whether callers have to show a certificate.
    pub(super) fn certified(&self) -> bool {
        self.0.connector.certified
    }

    /// Why this node was told that it is no member any more; `None` while it was not.
    pub fn removed(&self) -> watch::Receiver<Option<String>> {
        self.0.removed.subscribe()
    }

    /// Looks at a peer's refusal: a removal is published, a failed proof logged.
    pub fn note_refusal(&self, peer: NodeId, status: &Status) {
        match status.code() {
            Code::FailedPrecondition if status.metadata().contains_key(REMOVED) => {
                self.0.removed.send_if_modified(|removed| {
                    if removed.is_some() {
                        return false;
                    }
                    error!("{}", status.message());
                    *removed = Some(status.message().to_owned());
                    true
                });
            }
            Code::Unauthenticated => {
                if let Some(suppressed) = self.0.refusals.permit() {
                    warn!(suppressed, "node {peer:016x} refuses this node: {}", status.message());
                }
            }
            _ => {}
        }
    }

    fn get(&self, node: NodeId, purpose: Purpose) -> Option<PeerChannel> {
        if let Some(channel) = self.0.peers.read().get(&node)?.cached(purpose) {
            return Some(channel.clone());
        }
        let mut peers = self.0.peers.write();
        let peer = peers.get_mut(&node)?;
        if let Some(channel) = peer.cached(purpose) {
            return Some(channel.clone());
        }
        match self.connect(&peer.addr, node, purpose) {
            Ok(channel) => {
                *peer.slot(purpose) = Some(channel.clone());
                Some(channel)
            }
            Err(e) => {
                if let Some(suppressed) = self.0.refusals.permit() {
                    warn!(suppressed, "cannot reach node {node:016x}: {e}");
                }
                None
            }
        }
    }

    fn connect(&self, addr: &str, target: NodeId, purpose: Purpose) -> Result<PeerChannel, BadAddress> {
        let credentials = Credentials::new(self.0.me.clone(), target, purpose)?;
        let endpoint = endpoint(addr)?;
        let _in_runtime = self.0.runtime.enter();
        Ok(InterceptedService::new((self.0.connector.connect)(endpoint, target), credentials))
    }
}

/// Where an address comes from, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    Membership,
    Another,
    Itself,
}

impl Peer {
    fn cached(&self, purpose: Purpose) -> Option<&PeerChannel> {
        match purpose {
            Purpose::Consensus => self.consensus.as_ref(),
            Purpose::Bulk => self.bulk.as_ref(),
        }
    }

    fn slot(&mut self, purpose: Purpose) -> &mut Option<PeerChannel> {
        match purpose {
            Purpose::Consensus => &mut self.consensus,
            Purpose::Bulk => &mut self.bulk,
        }
    }
}

pub(super) fn endpoint(addr: &str) -> Result<Endpoint, BadAddress> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|_| BadAddress(addr.to_owned()))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .buffer_size(CHANNEL_QUEUE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing::identity;

    #[tokio::test]
    async fn what_a_node_says_of_itself_is_believed_most() {
        let me = identity(1, "a:1");
        let connector = Connector::new(&me.keyring);
        let channels = Channels::new(me, connector, Handle::current());
        let at = |addr: &str| Some(addr.to_owned());
        assert!(channels.consensus(2).is_none());
        channels.suggest(2, "b:1");
        assert_eq!(channels.address(2), at("b:1"));
        channels.suggest(2, "b:0");
        channels.relay(2, "b:2");
        assert_eq!((channels.address(2), channels.own_word(2)), (at("b:2"), None));
        assert!(channels.consensus(2).is_some() && channels.bulk(2).is_some());
        channels.learn(2, "b:3");
        channels.relay(2, "b:2");
        channels.suggest(2, "b:1");
        assert_eq!(channels.known(), [(2, "b:3".to_owned())]);
        assert_eq!(channels.own_word(2), at("b:3"));
        channels.learn(1, "me:1");
        assert_eq!(channels.address(1), None);
        channels.forget(2);
        assert_eq!(channels.address(2), None);
        channels.learn(3, "not an address");
        assert!(channels.consensus(3).is_none());
    }
}
