//! One simulated node: the whole broker, on a disk that forgets what was not synced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rookery::auth::Access;
use rookery::broker::{Front, LapseRules, Permissions};
use rookery::env::simulated::{self, HostClock};
use rookery::peer::{self, Authority, ClusterId, Keyring, Secret};
use rookery::raft::{self, Change, NodeConfig, Snapshots};
use rookery::server::{Member, Parts};
use rookery::session::{Context, Limits};
use rookery::state::limits::{NodeLimits, QueueLimits};
use rookery::state::{FEATURE_LEVEL, NodeId, NodeInfo};
use rookery::store::{Identity, LogStore, MemoryDisk, MemorySync};
use tokio::runtime::Handle;
use tonic::codegen::http::{HeaderValue, Response, header};
use tonic::service::Routes;
use tower::util::MapResponseLayer;
use turmoil::net::TcpListener;

use super::network::{connector, incoming};
use super::scenario::Scenario;
use super::world::World;

const MQTT_PORT: u16 = 1883;
const PEER_PORT: u16 = 17883;
const CLUSTER: ClusterId = ClusterId([7; 16]);
/// How often a leader looks for what the operator wants.
const WISH_PAUSE: Duration = Duration::from_millis(100);

/// Messages that a persistent session may have waiting: more than most ever have, less than a flood
/// brings.
pub const QUEUE_MESSAGES: u32 = 600;

/// The machines that form the cluster; any others may join it later.
pub const FOUNDERS: usize = 3;
/// All machines.
pub const MACHINES: usize = 5;

/// A node's machine: what outlives its crashes.
pub struct Machine {
    pub number: usize,
    pub id: NodeId,
    pub clock: Arc<HostClock>,
    disk: MemoryDisk,
    sync: MemorySync,
    consensus: NodeConfig,
    /// It may be a member.
    admitted: AtomicBool,
    /// It has left the cluster for good.
    gone: AtomicBool,
    /// The running life; `None` while it is down.
    member: Mutex<Option<Arc<Member>>>,
}

impl Machine {
    /// `number`: from 1.
    pub fn new(number: usize, scenario: &Scenario) -> Arc<Self> {
        let disk = MemoryDisk::default();
        let Scenario { snapshot_every, keep_log, sync_ms, .. } = *scenario;
        Arc::new(Self {
            number,
            id: Identity::in_memory(&disk).node_id(),
            clock: Arc::default(),
            disk,
            sync: MemorySync::After(Duration::from_millis(sync_ms)),
            consensus: NodeConfig { snapshot_every, keep_log, ..NodeConfig::default() },
            admitted: AtomicBool::new(number <= FOUNDERS),
            gone: AtomicBool::new(false),
            member: Mutex::default(),
        })
    }

    pub fn host(&self) -> String {
        host(self.number)
    }

    pub fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its node may speak for the cluster now.
    pub fn has_lease(&self) -> bool {
        let member = self.member();
        member.is_some_and(|member| simulated::by_clock(&self.clock, || member.broker.may_acknowledge()))
    }

    /// Power is lost: to be called before the host is stopped.
    pub fn lose_power(&self) {
        self.disk.crash();
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Its node starts and asks to be let in.
    pub fn admit(&self) {
        self.admitted.store(true, Ordering::Relaxed);
    }

    pub fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }

    /// It never comes back.
    pub fn retire(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            name: self.host(),
            peer_addr: format!("{}:{PEER_PORT}", self.host()),
            mqtt_addr: format!("{}:{MQTT_PORT}", self.host()),
            limits: NodeLimits {
                queue: QueueLimits { messages: QUEUE_MESSAGES, ..QueueLimits::default() },
                ..NodeLimits::default()
            },
            feature_level: FEATURE_LEVEL,
            ..NodeInfo::default()
        }
    }

    pub fn as_peer(&self) -> peer::Member {
        peer::Member { node: self.id, name: self.host(), peer_addr: self.info().peer_addr }
    }

    /// One life of the node. The first machine founds the cluster when it has not yet.
    ///
    /// # Errors
    /// Whatever would end the process.
    pub async fn run(self: Arc<Self>, world: World) -> turmoil::Result {
        simulated::use_clock(self.clock.clone());
        while !self.is_admitted() {
            tokio::time::sleep(WISH_PAUSE).await;
        }
        let others = world.machines().iter().filter(|m| m.id != self.id);
        let member = Member::start(Parts {
            identity: Arc::new(Identity::in_memory(&self.disk)),
            keyring: Keyring::in_memory(CLUSTER, self.id, authority())?,
            info: self.info(),
            consensus: self.consensus.clone(),
            log: LogStore::in_memory(&self.disk, self.sync),
            snapshots: Snapshots::in_memory(&self.disk),
            stock: Arc::default(),
            connector: connector(),
            known: others.map(|m| (m.id, m.info().peer_addr)).collect(),
            lapse: LapseRules::default(),
            permissions: Permissions::default(),
            disk: Arc::default(),
            runtime: Handle::current(),
        })
        .await?;
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = Some(member.clone());
        let peers = TcpListener::bind(("0.0.0.0", PEER_PORT)).await?;
        tokio::spawn(peer::serve(undated(member.routes()), incoming(peers), std::future::pending()));
        tokio::spawn(trace_applied(self.number, member.raft.clone()));
        tokio::spawn(raft::scoped(operate(member.raft.clone(), world.clone())));
        if self.number == 1 && member.raft.initialize(self.as_peer()).await? {
            for founder in &world.machines()[1..FOUNDERS] {
                world.wish(Change::Add(founder.as_peer()), usize::MAX);
            }
        }
        drop(member.begin_life());
        member.broker.begun().await;
        let context =
            Context::new(Limits::default(), Arc::new(Front::new(member.broker.clone(), Access::default())));
        let clients = TcpListener::bind(("0.0.0.0", MQTT_PORT)).await?;
        loop {
            let (stream, from) = clients.accept().await?;
            tokio::spawn(rookery::net::serve(stream, from.to_string(), context.clone()));
        }
    }
}

/// Carries out what the operator wants, while this node leads.
async fn operate(raft: raft::Node, world: World) {
    loop {
        tokio::time::sleep(WISH_PAUSE).await;
        if let Some(change) = world.next_wish().filter(|_| raft.is_leader()) {
            let outcome = raft.change(change.clone()).await;
            super::trace(&format!("{change:?}: {outcome:?}"));
            world.tried(&change, outcome.is_ok());
        }
    }
}

/// Answers would tell the time of the real clock, which takes more or fewer bytes in another run.
fn undated(routes: Routes) -> Routes {
    const DATE: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
    let dated = MapResponseLayer::new(|mut response: Response<_>| {
        response.headers_mut().insert(header::DATE, DATE);
        response
    });
    Routes::from(routes.into_axum_router().layer(dated))
}

/// Only its secret is ever used, and is the same in all runs: the simulated network is not encrypted.
fn authority() -> Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let made = || Authority::new(CLUSTER, &Secret::new([8; 32])).expect("randomness");
    AUTHORITY.get_or_init(made).clone()
}

pub fn host(number: usize) -> String {
    format!("n{number}")
}

/// Where clients connect to.
pub fn mqtt_address(number: usize) -> (String, u16) {
    (host(number), MQTT_PORT)
}

async fn trace_applied(number: usize, raft: raft::Node) {
    let mut applied = raft.applied_changes();
    loop {
        let index = *applied.borrow_and_update();
        super::trace(&format!("n{number} applied {index}"));
        if applied.changed().await.is_err() {
            return;
        }
    }
}
