//! One node as a process: what it has on disk and what it listens on. It is of no cluster, or a
//! [`Member`] of one.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::access::access;
use super::descriptors;
use super::disk::{self, Disk};
use super::drain;
use super::error::StartError;
use super::member::{Member, Parts};
use super::metrics::NodeCollector;
use super::overload::{self, Overload, Watched};
use super::shown;
use crate::admin;
use crate::auth::Chain;
use crate::broker::{Front, LapseRules};
use crate::config::Config;
use crate::env;
use crate::net::{self, Bound, Kind};
use crate::peer::{self, ClusterId, Connector, Grant, JoinToken, Keyring, Save, StepError};
use crate::raft::{NodeConfig, Snapshots};
use crate::session::{self, Context, Counters};
use crate::state::{FEATURE_LEVEL, NodeId, NodeInfo, Stock};
use crate::store::{ClusterKeys, DataDir, Identity, KnownPeer, LogOptions, LogStore, OpenError, QueueFiles};

/// Between two attempts to join through the configured seeds.
const JOIN_RETRY: Duration = Duration::from_secs(1);
/// Between two looks at whether all clients have gone.
const GONE_LOOK: Duration = Duration::from_millis(10);
/// A planned stop waits this long for its farewell to be committed.
const FAREWELL: Duration = Duration::from_secs(1);

/// What this node says of itself to the others.
///
/// # Errors
/// A listener has no address.
pub fn describe(
    config: &Config,
    mqtt: &[Bound],
    api: &TcpListener,
    peer: &TcpListener,
) -> Result<NodeInfo, StartError> {
    let shown = |address| config.advertised(address).to_string();
    let mut info = NodeInfo {
        name: config.node_name(),
        api_addr: shown(api.local_addr().map_err(StartError::Runtime)?),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_level: FEATURE_LEVEL,
        limits: (&config.limits).into(),
        sharing: (&config.shared).into(),
        server_reference: config.node.server_reference.clone(),
        connections_max: descriptors::room_for_clients(config.limits.max_connections),
        ..NodeInfo::default()
    };
    info.limits.queue.when_full = config.mqtt.session_queue_full;
    for bound in mqtt.iter().filter(|bound| bound.options().acceptor.is_none()) {
        match bound.options().kind {
            Kind::Tcp => info.mqtt_addr = shown(bound.address()),
            Kind::WebSocket => info.ws_addr = shown(bound.address()),
        }
    }
    let bound = peer.local_addr().map_err(StartError::Runtime)?;
    info.peer_addr = match &config.cluster.advertise {
        Some(address) => address.to_string(),
        None => shown(bound),
    };
    Ok(info)
}

/// Why a node goes no further, other than being told to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It left its cluster, as an operator wanted.
    Left,
    /// Its cluster removed it.
    Forgotten(String),
    Failed(String),
}

/// One node.
pub struct Node {
    config: Config,
    dir: DataDir,
    identity: Arc<Identity>,
    info: NodeInfo,
    runtime: Handle,
    loops: usize,
    member: RwLock<Option<Arc<Member>>>,
    /// Forming or joining a cluster happens once at a time.
    forming: tokio::sync::Mutex<()>,
    listeners: Mutex<Option<(Vec<Bound>, TcpListener)>>,
    mqtt: OnceLock<Arc<net::Server>>,
    context: OnceLock<Arc<Context>>,
    chain: OnceLock<Chain>,
    disk: Arc<Disk>,
    overload: Arc<Overload>,
    listening: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    ended: watch::Sender<Option<Ended>>,
    registry: OnceLock<Registry>,
}

impl Node {
    pub fn new(
        config: Config,
        dir: DataDir,
        identity: Arc<Identity>,
        info: NodeInfo,
        runtime: Handle,
        loops: usize,
        (mqtt, peer): (Vec<Bound>, TcpListener),
    ) -> Arc<Self> {
        let node = Arc::new(Self {
            config,
            dir,
            identity,
            info,
            runtime,
            loops,
            member: RwLock::new(None),
            forming: tokio::sync::Mutex::new(()),
            listeners: Mutex::new(Some((mqtt, peer))),
            mqtt: OnceLock::new(),
            context: OnceLock::new(),
            chain: OnceLock::new(),
            disk: Arc::default(),
            overload: Arc::default(),
            listening: watch::channel(false).0,
            stopping: watch::channel(false).0,
            ended: watch::channel(None).0,
            registry: OnceLock::new(),
        });
        let mut registry = admin::registry();
        registry.register_collector(Box::new(NodeCollector(Arc::downgrade(&node))));
        let _ = node.registry.set(registry);
        node
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    pub fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.identity.cluster_id().map(ClusterId)
    }

    pub fn member(&self) -> Option<Arc<Member>> {
        self.member.read().clone()
    }

    pub fn counters(&self) -> Option<&Counters> {
        self.context.get().map(|context| &context.counters)
    }

    /// How clients are judged, once they are.
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.get()
    }

    pub fn registry(&self) -> Option<&Registry> {
        self.registry.get()
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    pub fn overload(&self) -> &Overload {
        &self.overload
    }

    /// Clients were let in once.
    pub fn has_started(&self) -> bool {
        self.mqtt.get().is_some()
    }

    pub fn is_listening(&self) -> bool {
        *self.listening.borrow()
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Takes part in the cluster that this node is of, or joins the one that the configuration
    /// names.
    ///
    /// # Errors
    /// What is on disk cannot be used, or the configured token is none.
    pub async fn resume(self: &Arc<Self>) -> Result<(), StartError> {
        if let Some(cluster) = self.identity.cluster_id() {
            let keyring = self.saved_keyring(ClusterId(cluster))?;
            let known = self.identity.peers().into_iter().map(|(id, peer)| (id, peer.peer_addr)).collect();
            return self.take_part(keyring, known).await.map(drop);
        }
        let Some(path) = &self.config.cluster.token_file else {
            info!("this node is of no cluster yet: `rookery cluster init` or `rookery cluster join`");
            return Ok(());
        };
        let token = std::fs::read_to_string(path)
            .map_err(|source| StartError::TokenFile { path: shown(path), source })?;
        let mut token: JoinToken = token.parse()?;
        let seeds: Vec<String> = self.config.cluster.seeds.iter().map(ToString::to_string).collect();
        if !seeds.is_empty() {
            token.seeds = seeds;
        }
        let node = self.clone();
        env::spawn(async move { node.join_until_member(token).await });
        Ok(())
    }

    async fn join_until_member(self: Arc<Self>, token: JoinToken) {
        let mut stopping = self.stopping.subscribe();
        loop {
            match self.join(&token).await {
                Ok(()) => return,
                Err(error) => warn!(%error, "not joined yet, trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(JOIN_RETRY) => {}
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Makes this node a cluster of its own. `false`: it is of one already.
    ///
    /// # Errors
    /// The disk or the system refuse.
    pub async fn init(self: &Arc<Self>) -> Result<bool, StartError> {
        let _one_at_a_time = self.forming.lock().await;
        if self.identity.cluster_id().is_some() {
            return Ok(false);
        }
        let random = |e: peer::NoRandomness| StartError::Runtime(std::io::Error::other(e));
        let cluster = ClusterId::generate().map_err(random)?;
        let grant = Grant::generate(cluster).map_err(StepError::from)?;
        let keyring = self.remember(cluster, grant).await?;
        let member = self.take_part(keyring, Vec::new()).await?;
        member.raft.initialize(self.as_peer()).await.map_err(|e| StartError::Change(e.to_string()))?;
        info!(cluster = cluster.to_string(), "formed a new cluster");
        Ok(true)
    }

    /// Joins the cluster that the token is for.
    ///
    /// # Errors
    /// It does not let this node in, or cannot be reached; the disk refuses.
    pub async fn join(self: &Arc<Self>, token: &JoinToken) -> Result<(), StartError> {
        let _one_at_a_time = self.forming.lock().await;
        match self.identity.cluster_id() {
            None => {}
            Some(cluster) if cluster == token.cluster.0 => return self.join_again(token).await,
            Some(cluster) => {
                return Err(StartError::Change(format!(
                    "this node is of cluster {}, the token is for {}; empty its data directory to move it",
                    ClusterId(cluster),
                    token.cluster
                )));
            }
        }
        let joined = peer::join(token, &self.as_peer(), &self.runtime).await?;
        let keyring = self.remember(joined.cluster, joined.grant).await?;
        let known = joined
            .members
            .into_iter()
            .filter(|member| member.node != self.id())
            .map(|member| (member.node, member.peer_addr))
            .collect();
        self.take_part(keyring, known).await?;
        info!(cluster = joined.cluster.to_string(), "joined");
        Ok(())
    }

    /// A member that was away while the cluster's CA was replaced is let in again.
    async fn join_again(&self, token: &JoinToken) -> Result<(), StartError> {
        let Some(member) = self.member() else { return Ok(()) };
        let keyring = member.channels.identity().keyring.clone();
        if keyring.authority(token.ca).is_some() {
            return Ok(());
        }
        let joined = peer::join(token, &self.as_peer(), &self.runtime).await?;
        let replaced = keyring.clone();
        env::blocking(move || replaced.replace(joined.grant)).await?;
        keyring.renew_connections().await;
        info!(ca = %token.ca, "let in again, with the cluster's new CA");
        Ok(())
    }

    fn as_peer(&self) -> peer::Member {
        peer::Member { node: self.id(), name: self.info.name.clone(), peer_addr: self.info.peer_addr.clone() }
    }

    async fn remember(&self, cluster: ClusterId, grant: Grant) -> Result<Keyring, StartError> {
        let (identity, node, save) = (self.identity.clone(), self.id(), self.saving());
        env::blocking(move || {
            let keyring = Keyring::new(cluster, node, grant, save)?;
            identity.join_cluster(cluster.0).map_err(StartError::Runtime)?;
            Ok(keyring)
        })
        .await
    }

    fn saved_keyring(&self, cluster: ClusterId) -> Result<Keyring, StartError> {
        let saved = self.identity.keys().map_or_else(Vec::new, |keys| keys.0);
        let damaged = |why| StartError::Keys { path: shown(&self.dir.keys()), why };
        Keyring::load(cluster, self.id(), &saved, self.saving()).map_err(damaged)
    }

    fn saving(&self) -> Save {
        let identity = self.identity.clone();
        Box::new(move |keys| identity.set_keys(ClusterKeys(keys.to_vec())))
    }

    /// Starts consensus and the peer listener, and opens the clients' listeners once this node's
    /// life has begun.
    async fn take_part(
        self: &Arc<Self>,
        keyring: Keyring,
        known: Vec<(NodeId, String)>,
    ) -> Result<Arc<Member>, StartError> {
        let (log, snapshots, stock, incoming) = self.open_stores().await?;
        let written = log.clone();
        let cluster_config = &self.config.cluster;
        let consensus = NodeConfig {
            heartbeat_ms: cluster_config.heartbeat_ms,
            election_min_ms: cluster_config.election_min_ms,
            election_max_ms: cluster_config.election_max_ms,
            voters: cluster_config.voters as usize,
            snapshot_log_bytes: cluster_config.snapshot_log_bytes,
            kept_log_bytes: cluster_config.kept_log_bytes,
            incoming_dir: Some(incoming),
            seeds: cluster_config.seeds.iter().map(ToString::to_string).collect(),
            ..NodeConfig::default()
        };
        let member = Member::start(Parts {
            identity: self.identity.clone(),
            keyring: keyring.clone(),
            info: self.info.clone(),
            consensus,
            log,
            snapshots,
            stock,
            connector: Connector::new(&keyring),
            known,
            disk: self.disk.clone(),
            lapse: LapseRules {
                minority: cluster_config.minority,
                patience_ms: cluster_config.lease_patience_ms,
            },
            permissions: (&self.config).into(),
            runtime: self.runtime.clone(),
        })
        .await?;
        let Some((mqtt, peer)) = self.listeners.lock().take() else {
            return Err(StartError::Change("this node is stopping".to_owned()));
        };
        let mut stopping = self.stopping.subscribe();
        let routes = member.routes();
        self.runtime.spawn(async move {
            // The listener outlives the planned stop of consensus only by the drain.
            let stopped = async move {
                let _ = stopping.wait_for(|stop| *stop).await;
            };
            if let Err(error) = peer::serve(routes, peer::incoming(peer, keyring), stopped).await {
                error!(%error, "the peer listener ended");
            }
        });
        self.member.write().replace(member.clone());
        drop(member.begin_life());
        let room = (self.dir.root().to_owned(), self.config.node.disk_free_min_bytes);
        let stop = self.stopping.subscribe();
        self.runtime.spawn(disk::watch(self.disk.clone(), room, written, member.clone(), stop));
        self.runtime.spawn(remember_peers(member.clone(), self.identity.clone()));
        self.runtime.spawn(self.clone().notice_removal(member.clone()));
        self.runtime.spawn(self.clone().notice_failure(member.clone()));
        let node = self.clone();
        let serving = member.clone();
        env::spawn(async move {
            // Clients are let in when this node has applied the start of its life.
            serving.broker.begun().await;
            if let Err(error) = node.open(&serving, mqtt).await {
                error!(%error, "cannot serve clients");
                node.ended.send_replace(Some(Ended::Failed(error.to_string())));
            }
        });
        Ok(member)
    }

    async fn open_stores(&self) -> Result<(LogStore, Snapshots, Arc<Stock>, PathBuf), StartError> {
        let (dir, owner) = (self.dir.clone(), self.id());
        let memory_bytes = self.config.limits.max_queue_memory_bytes;
        env::blocking(move || {
            let log = LogStore::open(&dir.log(), LogOptions::new(owner))?;
            let snapshots = Snapshots::in_folder(&dir.snapshots())?;
            let queues = QueueFiles::open(&dir.queues())
                .map_err(|source| OpenError::Io { path: dir.queues(), source })?;
            let stock = Arc::new(Stock::on(Arc::new(queues), memory_bytes));
            Ok((log, snapshots, stock, dir.snapshots()))
        })
        .await
        .map_err(StartError::Open)
    }

    async fn open(&self, member: &Arc<Member>, mqtt: Vec<Bound>) -> Result<(), StartError> {
        let seed = member.channels.identity().keyring.seed();
        let access = access(&self.config, &member.broker, &seed, &self.runtime).await?;
        let _ = self.chain.set(access.chain().clone());
        let front = Front::new(member.broker.clone(), access);
        let mut limits = session::Limits::from(&self.config.limits);
        limits.check_payload_format = self.config.mqtt.check_payload_format;
        limits.connections_max = self.info.connections_max;
        limits.surplus_max = descriptors::surplus(limits.connections_max);
        let context = Context::new(limits, Arc::new(front));
        let server = net::Server::start(&context, self.loops).map_err(StartError::Runtime)?;
        let _ = self.context.set(context.clone());
        for bound in mqtt {
            server.open(bound).map_err(StartError::Runtime)?;
        }
        let server = Arc::new(server);
        let watched = Watched {
            overload: self.overload.clone(),
            context,
            server: Arc::downgrade(&server),
            member: member.clone(),
            memory_max_bytes: self.config.limits.max_memory_bytes,
        };
        overload::watch(watched, &self.runtime, self.stopping.subscribe()).map_err(StartError::Runtime)?;
        let _ = self.mqtt.set(server);
        self.listening.send_replace(true);
        Ok(())
    }

    async fn notice_removal(self: Arc<Self>, member: Arc<Member>) {
        let mut removed = member.channels.removed();
        let Ok(why) = removed.wait_for(Option::is_some).await.map(|why| why.clone()) else { return };
        let wanted = member.broker.is_leaving();
        let forgotten = || Ended::Forgotten(why.unwrap_or_default());
        self.no_member(if wanted { Ended::Left } else { forgotten() }).await;
    }

    /// A node without consensus must not stay: it would neither serve nor be missed.
    async fn notice_failure(self: Arc<Self>, member: Arc<Member>) {
        let mut stopping = self.stopping.subscribe();
        let why = tokio::select! {
            why = member.raft.failed() => why,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        if !member.broker.is_stopping() {
            error!(why, "consensus has stopped on this node");
            self.end(Ended::Failed(why));
        }
    }

    /// This node is no member any more: it must not come back with this data.
    pub async fn no_member(&self, why: Ended) {
        let identity = self.identity.clone();
        if let Err(error) = env::blocking(move || identity.set_forgotten()).await {
            error!(%error, "cannot note on disk that the cluster has forgotten this node");
        }
        self.end(why);
    }

    /// The first reason counts.
    fn end(&self, why: Ended) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(why);
            first
        });
    }

    /// Completes when this node can or may not go on.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or(Ended::Left),
            Err(_) => Ended::Left,
        }
    }

    pub fn listening(&self) -> watch::Receiver<bool> {
        self.listening.subscribe()
    }

    /// A planned stop: clients go as from a node that drains, those that are left are told within
    /// `last_words`, the cluster hears a farewell, a leader hands over.
    pub async fn stop(&self, last_words: Duration) {
        if let Some(member) = self.member() {
            member.broker.stop();
            self.let_clients_go(&member).await;
        }
        let _ = tokio::task::block_in_place(|| self.mqtt.get().map(|server| server.drain(last_words)));
        self.listening.send_replace(false);
        if let Some(member) = self.member() {
            // Without it the others wait for this node's lease to run out.
            let said = tokio::time::timeout(FAREWELL, member.broker.farewell()).await;
            if said.is_err() {
                warn!("stopping without a farewell: the cluster did not commit it in time");
            }
            member.stop().await;
        }
        self.stopping.send_replace(true);
    }

    /// At the pace that is configured, but within the time that there is.
    async fn let_clients_go(&self, member: &Member) {
        let within = Duration::from_millis(self.config.drain.stop_within_ms.into());
        let clients = member.broker.clients().len();
        if clients == 0 || within.is_zero() {
            return;
        }
        member.broker.drain_to_stop(drain::rate_to_end_within(clients, self.config.drain.rate, within));
        let deadline = env::now() + within;
        while !member.broker.clients().is_empty() && env::now() < deadline {
            tokio::time::sleep(GONE_LOOK).await;
        }
    }
}

/// Keeps the address book on disk, to find the cluster again after a restart.
async fn remember_peers(member: Arc<Member>, identity: Arc<Identity>) {
    let mut changes = member.channels.changes();
    while changes.changed().await.is_ok() {
        changes.borrow_and_update();
        let names: std::collections::BTreeMap<_, _> =
            member.broker.state().nodes().into_iter().map(|n| (n.node, n.info.name)).collect();
        let peers = member
            .channels
            .known()
            .into_iter()
            .map(|(id, peer_addr)| {
                (id, KnownPeer { name: names.get(&id).cloned().unwrap_or_default(), peer_addr })
            })
            .collect();
        let identity = identity.clone();
        if let Err(error) = env::blocking(move || identity.set_peers(&peers)).await {
            warn!(%error, "cannot save the addresses of the other nodes");
        }
    }
}
