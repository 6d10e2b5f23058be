//! Nodes of one process that talk over real loopback connections, in the clear, through proxies that a
//! test can cut.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Router, Server};

use super::{
    Authority, CONNECTION_WINDOW_BYTES, Channels, ClusterId, Connector, Identity, KEEP_ALIVE_INTERVAL,
    KEEP_ALIVE_TIMEOUT, Keyring, STREAM_WINDOW_BYTES, Verifier,
};
use crate::env;
use crate::state::NodeId;

/// The cluster of all tests that need only one.
pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Its authority.
pub(crate) fn authority() -> Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::generate(CLUSTER).unwrap()).clone()
}

/// One of its members.
pub(crate) fn identity(node: NodeId, advertised: &str) -> Identity {
    identity_by(authority(), node, advertised)
}

/// A node that has its certificate of `authority`.
pub(crate) fn identity_by(authority: Authority, node: NodeId, advertised: &str) -> Identity {
    let keyring = Keyring::in_memory(CLUSTER, node, authority).unwrap();
    Identity { cluster: CLUSTER, node, advertised: advertised.to_owned(), keyring }
}

/// Forwards connections until told otherwise.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    mode: watch::Sender<Mode>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Mode {
    /// Connections of an older generation are cut.
    generation: u64,
    open: bool,
    /// Connections made before this last changed carry nothing any more, but stay.
    freezes: u64,
    /// What comes waits, and nothing is lost.
    held: bool,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode { generation: 0, open: true, freezes: 0, held: false });
        env::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let mut modes = modes.clone();
                let Mode { generation, open, freezes, .. } = *modes.borrow();
                if !open {
                    continue;
                }
                connections.spawn(async move {
                    let mut client = client;
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    let mut frozen = modes.clone();
                    let (there, back) = (modes.clone(), modes.clone());
                    let carry = async {
                        let (from_client, to_client) = client.split();
                        let (from_server, to_server) = server.split();
                        let both = async {
                            tokio::try_join!(
                                carry(from_client, to_server, there),
                                carry(from_server, to_client, back)
                            )
                        };
                        tokio::select! {
                            _ = both => return,
                            _ = frozen.wait_for(|m| m.freezes != freezes) => {}
                        }
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        () = carry => {}
                        _ = modes.wait_for(|m| m.generation != generation) => {}
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Arc::new(Self { addr, mode })
    }

    /// Ends all connections; new ones are taken.
    pub(crate) fn cut(&self) {
        self.mode.send_modify(|m| m.generation += 1);
    }

    /// Ends all connections and takes no new ones.
    pub(crate) fn block(&self) {
        self.mode.send_modify(|m| {
            m.generation += 1;
            m.open = false;
        });
    }

    pub(crate) fn unblock(&self) {
        self.mode.send_modify(|m| m.open = true);
    }

    /// What is sent from now on, either way, is on its way until [`Self::release`]: shorter than
    /// [`KEEP_ALIVE_TIMEOUT`].
    pub(crate) fn hold(&self) {
        self.mode.send_modify(|m| m.held = true);
    }

    pub(crate) fn release(&self) {
        self.mode.send_modify(|m| m.held = false);
    }

    /// Connections go silent without an end, as when a cable is pulled; new ones work.
    pub(crate) fn freeze(&self) {
        self.mode.send_modify(|m| m.freezes += 1);
    }
}

/// One way of a connection, from its beginning to the end of what comes.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let len = from.read(&mut bytes).await?;
        if len == 0 {
            return to.shutdown().await;
        }
        // Without the other end there is nobody to hold it.
        let _ = modes.wait_for(|m| !m.held).await;
        to.write_all(&bytes[..len]).await?;
    }
}

/// The identities, addresses and listeners of nodes `1..=n`.
pub(crate) struct Network {
    pub(crate) channels: Vec<Channels>,
    /// In front of each node.
    pub(crate) proxies: Vec<Arc<Proxy>>,
    listeners: Mutex<Vec<Option<TcpListener>>>,
}

impl Network {
    pub(crate) async fn of(nodes: u64) -> Self {
        let (mut channels, mut proxies, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
        for node in 1..=nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let proxy = Proxy::to(listener.local_addr().unwrap()).await;
            let advertised = proxy.addr.to_string();
            let connector = Connector::plain(|endpoint| endpoint.connect_lazy());
            channels.push(Channels::new(identity(node, &advertised), connector, Handle::current()));
            proxies.push(proxy);
            listeners.push(Some(listener));
        }
        for from in &channels {
            for (to, proxy) in (1..).zip(&proxies) {
                from.learn(to, &proxy.addr.to_string());
            }
        }
        Self { channels, proxies, listeners: Mutex::new(listeners) }
    }

    /// Verifies the callers of `node`.
    pub(crate) fn guard<S>(&self, node: NodeId, service: S) -> InterceptedService<S, Verifier> {
        InterceptedService::new(service, Verifier::new(self.channels[node as usize - 1].clone()))
    }

    /// Serves on the node's listener.
    pub(crate) fn serve(&self, node: NodeId, router: Router) {
        let listener = self.listeners.lock()[node as usize - 1].take().unwrap();
        env::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    }

    pub(crate) fn server() -> Server {
        Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
    }
}
