//! Start and stop of a node: the only place that knows all the others.

mod access;
mod control;
mod descriptors;
mod disk;
mod drain;
mod error;
mod host;
mod member;
mod messages;
mod metrics;
mod node;
mod nodes;
mod overload;
mod service_manager;
mod settings;

use std::future::Future;
use std::io::{IsTerminal as _, stdin};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

pub use disk::Disk;
pub use error::StartError;
pub use member::{Member, Parts};
pub use node::{Ended, Node};
pub use overload::Overload;

use crate::admin::{self, Hosts};
use crate::auth::Network;
use crate::config::Config;
use crate::env;
use crate::net::{Acceptor, Bound, Kind, ListenerOptions, OriginPolicy, ProxySources};
use crate::store::{DataDir, Identity};

/// Threads of the runtime that consensus, gRPC and `apply` have to themselves.
const CONSENSUS_THREADS: usize = 2;
/// How long clients that are left may take to be told that the node stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Everything a node listens on, bound before anything is started.
struct Listeners {
    mqtt: Vec<Bound>,
    api: TcpListener,
    peer: TcpListener,
}

/// Runs one node until `shutdown` completes.
///
/// # Errors
/// [`StartError`]: nothing was started, or the node has left its cluster.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), StartError> {
    let loops = std::thread::available_parallelism().map_or(1, usize::from);
    let listeners = bind(&config, loops).await?;
    let dir = DataDir::new(&config.node.data_dir);
    let identity = open_identity(&dir).await?;
    let consensus = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONSENSUS_THREADS)
        .thread_name("consensus")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let handle = consensus.handle().clone();
    let ended = live(config, dir, identity, listeners, handle, loops, shutdown).await;
    // Nothing in it has to be waited for any more, and a runtime must not be waited for here.
    consensus.shutdown_background();
    ended
}

/// From the start of the node to its end.
async fn live(
    config: Config,
    dir: DataDir,
    identity: Arc<Identity>,
    listeners: Listeners,
    consensus: Handle,
    loops: usize,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let info = node::describe(&config, &listeners.mqtt, &listeners.api, &listeners.peer)?;
    info!(
        node = info.name,
        id = format!("{:016x}", identity.node_id()),
        epoch = identity.epoch(),
        mqtt = info.mqtt_addr,
        ws = info.ws_addr,
        api = info.api_addr,
        peer = info.peer_addr,
        "starting"
    );
    let acceptors = listeners.mqtt.iter().filter_map(|bound| bound.options().acceptor.clone()).collect();
    reload_at_hangup(acceptors)?;
    let bound = (listeners.mqtt, listeners.peer);
    let node = Node::new(config, dir, identity, info, consensus, loops, bound);
    let (api_stop, api_stopped) = tokio::sync::oneshot::channel::<()>();
    let hosts = Hosts(vec![node.config().advertised_peer().host]);
    let api = env::spawn(admin::serve(listeners.api, Arc::new(node.clone()), hosts, async {
        // Dropped or sent: both mean stop.
        let _ = api_stopped.await;
    }));
    node.resume().await?;
    service_manager::started();
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        why = node.ended() => match why {
            Ended::Left => Ok(()),
            Ended::Forgotten(why) => Err(StartError::Removed(why)),
            Ended::Failed(why) => Err(StartError::Change(why)),
        },
    };
    info!("stopping");
    service_manager::stopping();
    node.stop(LAST_WORDS).await;
    drop(api_stop);
    if let Ok(Err(error)) = api.await {
        tracing::warn!(%error, "the HTTP API ended");
    }
    ended
}

/// Binds every address, so that one in use is reported before anything else happens.
async fn bind(config: &Config, loops: usize) -> Result<Listeners, StartError> {
    let mut mqtt = Vec::new();
    let (tcp, ws) = (&config.listeners.tcp, &config.listeners.ws);
    if let Some(address) = tcp.bind {
        let options = ListenerOptions {
            durability: tcp.durability,
            share: Arc::new(tcp.share()),
            proxies: proxies(tcp.proxy_protocol, &tcp.proxy_trusted),
            ..ListenerOptions::new(Kind::Tcp)
        };
        mqtt.push(Bound::new(address, options, "listeners.tcp.bind", loops)?);
    }
    if let Some(address) = ws.bind {
        let options = ListenerOptions {
            durability: ws.durability,
            share: Arc::new(ws.share()),
            proxies: proxies(ws.proxy_protocol, &ws.proxy_trusted),
            origins: Arc::new(OriginPolicy(ws.allowed_origins.clone())),
            ..ListenerOptions::new(Kind::WebSocket)
        };
        mqtt.push(Bound::new(address, options, "listeners.ws.bind", loops)?);
    }
    for (address, section, key, kind, tls) in config.listeners.encrypted() {
        let files = tls.files(section);
        let acceptor = env::blocking(move || Acceptor::load(files, kind)).await?;
        let options = ListenerOptions {
            acceptor: Some(acceptor),
            durability: tls.durability,
            share: Arc::new(tls.share()),
            proxies: proxies(tls.proxy_protocol, &tls.proxy_trusted),
            origins: Arc::new(OriginPolicy(tls.allowed_origins.clone())),
            ..ListenerOptions::new(kind)
        };
        let bound = Bound::new(address, options, key, loops)?;
        info!(address = %bound.address(), "{section} is offered");
        mqtt.push(bound);
    }
    let tcp = async |address, key| {
        TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, key, source })
    };
    let api = tcp(config.api.bind, "api.bind").await?;
    let peer = tcp(config.cluster.bind, "cluster.bind").await?;
    Ok(Listeners { mqtt, api, peer })
}

fn proxies(used: bool, trusted: &[Network]) -> Option<ProxySources> {
    used.then(|| ProxySources(trusted.to_owned()))
}

/// Reads the certificates again at every SIGHUP. Connections stay. On a terminal and without an
/// encrypted listener the signal means what it means to other programs, the end of the terminal;
/// from a service manager it never means the end.
fn reload_at_hangup(acceptors: Vec<Arc<Acceptor>>) -> Result<(), StartError> {
    if acceptors.is_empty() && stdin().is_terminal() {
        return Ok(());
    }
    let mut hangups = signal(SignalKind::hangup()).map_err(StartError::Runtime)?;
    env::spawn(async move {
        while hangups.recv().await.is_some() {
            if acceptors.is_empty() {
                info!("no listener has certificates to be read again");
            }
            for acceptor in &acceptors {
                let (acceptor, section) = (acceptor.clone(), acceptor.section());
                match env::blocking(move || acceptor.reload()).await {
                    Ok(()) => info!("{section}: the certificates were read again"),
                    Err(error) => error!(%error, "the certificates read before stay in use"),
                }
            }
        }
    });
    Ok(())
}

async fn open_identity(dir: &DataDir) -> Result<Arc<Identity>, StartError> {
    let dir = dir.clone();
    let identity = env::blocking(move || Identity::open(&dir)).await.map_err(StartError::Open)?;
    if identity.is_forgotten() {
        return Err(StartError::Removed(format!("node {:016x} is no member any more", identity.node_id())));
    }
    Ok(Arc::new(identity))
}

/// The path for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
