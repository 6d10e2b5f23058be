//! One simulated node: the whole broker, on a disk that forgets what was not synced.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rookery::auth::Access;
use rookery::broker::{Front, LapseRules};
use rookery::peer::{self, ClusterId, Secret};
use rookery::raft::{self, Change, NodeConfig, Snapshots};
use rookery::server::{Member, Parts};
use rookery::session::{Context, Limits};
use rookery::state::{NodeId, NodeInfo};
use rookery::store::{Identity, LogStore, MemoryDisk, MemorySync};
use tokio::runtime::Handle;
use turmoil::net::TcpListener;

use super::network::{connector, incoming};

const MQTT_PORT: u16 = 1883;
const PEER_PORT: u16 = 17883;
/// What is not synced when the machine loses power is what the last moments brought.
const DISK_SYNC: Duration = Duration::from_millis(3);

/// A node's machine: what outlives its crashes.
pub struct Machine {
    pub number: usize,
    pub id: NodeId,
    disk: MemoryDisk,
    /// The running life; `None` while it is down.
    member: Mutex<Option<Arc<Member>>>,
}

impl Machine {
    /// `number`: from 1.
    pub fn new(number: usize) -> Arc<Self> {
        let disk = MemoryDisk::default();
        let id = Identity::in_memory(&disk).node_id();
        Arc::new(Self { number, id, disk, member: Mutex::default() })
    }

    pub fn host(&self) -> String {
        host(self.number)
    }

    pub fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Power is lost: to be called before the host is stopped.
    pub fn lose_power(&self) {
        self.disk.crash();
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            name: self.host(),
            peer_addr: format!("{}:{PEER_PORT}", self.host()),
            mqtt_addr: format!("{}:{MQTT_PORT}", self.host()),
            ..NodeInfo::default()
        }
    }

    fn as_peer(&self) -> peer::Member {
        peer::Member { node: self.id, name: self.host(), peer_addr: self.info().peer_addr }
    }

    /// One life of the node. The first machine of `all` founds the cluster when it has not yet.
    ///
    /// # Errors
    /// Whatever would end the process.
    pub async fn run(self: Arc<Self>, all: Vec<Arc<Machine>>) -> turmoil::Result {
        let others = || all.iter().filter(|m| m.id != self.id);
        let member = Member::start(Parts {
            identity: Arc::new(Identity::in_memory(&self.disk)),
            cluster: ClusterId([7; 16]),
            secret: Secret::new([8; 32]),
            info: self.info(),
            consensus: NodeConfig { snapshot_every: 500, keep_log: 200, ..NodeConfig::default() },
            log: LogStore::in_memory(&self.disk, MemorySync::After(DISK_SYNC)),
            snapshots: Snapshots::in_memory(&self.disk),
            stock: Arc::default(),
            connector: connector(),
            known: others().map(|m| (m.id, m.info().peer_addr)).collect(),
            lapse: LapseRules::default(),
            disk: Arc::default(),
            runtime: Handle::current(),
        })
        .await?;
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = Some(member.clone());
        let peers = TcpListener::bind(("0.0.0.0", PEER_PORT)).await?;
        tokio::spawn(peer::serve(member.routes(), incoming(peers), std::future::pending()));
        tokio::spawn(trace_applied(self.number, member.raft.clone()));
        if self.number == 1 && member.raft.initialize(self.as_peer()).await? {
            let (raft, joining) = (member.raft.clone(), others().map(|m| m.as_peer()).collect::<Vec<_>>());
            tokio::spawn(raft::scoped(async move {
                for peer in joining {
                    while raft.change(Change::Add(peer.clone())).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }));
        }
        member.begin_life().await?;
        let context =
            Context::new(Limits::default(), Arc::new(Front::new(member.broker.clone(), Access::default())));
        let clients = TcpListener::bind(("0.0.0.0", MQTT_PORT)).await?;
        loop {
            let (stream, from) = clients.accept().await?;
            tokio::spawn(rookery::net::serve(stream, from.to_string(), context.clone()));
        }
    }
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
