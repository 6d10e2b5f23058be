//! A node that is of a cluster: consensus, broker, forward streams and lease, wired together.
//! Nothing here knows sockets or files, so that a simulation runs the very same thing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tracing::{error, info};

use super::disk::Disk;
use super::drain;
use super::error::StartError;
use super::host::Host;
use crate::broker::{Applier, Broker, LapseRules, Permissions, Wiring};
use crate::env;
use crate::peer::forward::{ForwardConfig, Forwarder};
use crate::peer::lease::{Lease, LeaseTimes};
use crate::peer::{self, Channels, Connector, Keyring, Verifier};
use crate::raft::{self, Machine, NodeConfig, Proposer, RaftLog, Snapshots};
use crate::session;
use crate::state::{LogIndex, NodeId, NodeInfo, Stock};
use crate::store::{Identity, LogStore};

/// Between two attempts to begin a new life on a disk that refuses.
const REBIRTH_PAUSE: Duration = Duration::from_secs(1);

/// What a member is made of.
pub struct Parts {
    pub identity: Arc<Identity>,
    pub keyring: Keyring,
    /// How others see this node.
    pub info: NodeInfo,
    pub consensus: NodeConfig,
    pub log: LogStore,
    pub snapshots: Snapshots,
    /// Where queued messages are.
    pub stock: Arc<Stock>,
    pub connector: Connector,
    /// Other members and where they were last, by node id.
    pub known: Vec<(NodeId, String)>,
    /// What is done without a lease.
    pub lapse: LapseRules,
    /// What clients may do that no rule says anything of.
    pub permissions: Permissions,
    pub disk: Arc<Disk>,
    /// Where consensus, gRPC and `apply` run.
    pub runtime: Handle,
}

/// A running member.
pub struct Member {
    pub broker: Arc<Broker>,
    pub raft: raft::Node,
    pub channels: Channels,
    pub forwarder: Arc<Forwarder>,
    pub lease: Arc<Lease>,
    info: NodeInfo,
    identity: Arc<Identity>,
    verifier: Verifier,
    stop: watch::Sender<bool>,
    /// Lives begin one at a time.
    rebirth: Mutex<()>,
}

impl Member {
    /// Starts consensus and all that hangs on it; clients come later, see [`Self::begin_life`].
    ///
    /// # Errors
    /// What is on disk cannot be used.
    pub async fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let runtime = parts.runtime.clone();
        let started = runtime.spawn(raft::scoped(Self::start_here(parts)));
        started.await.map_err(|e| StartError::Runtime(std::io::Error::other(e)))?
    }

    async fn start_here(parts: Parts) -> Result<Arc<Self>, StartError> {
        let me = parts.identity.node_id();
        let (stop, stopped) = watch::channel(false);
        let identity = peer::Identity {
            cluster: parts.keyring.cluster(),
            node: me,
            advertised: parts.info.peer_addr.clone(),
            keyring: parts.keyring,
        };
        let channels = Channels::new(identity, parts.connector, parts.runtime.clone());
        for (node, addr) in &parts.known {
            channels.relay(*node, addr);
        }
        let broker = Broker::new(parts.stock);
        broker.expect_life(parts.identity.epoch());
        let proposer = Proposer::new(me);
        let log = RaftLog::new(parts.log).telling(proposer.clone());
        let purged = log.purged().map_err(StartError::Runtime)?;
        let complete = proposer.observer();
        let observer: raft::Observer = Box::new(move |at, seq, outcomes| {
            // What a pack's outcomes append to outboxes is written once.
            session::turn(|| complete(at, seq, outcomes));
        });
        let machine =
            Machine::open(Arc::new(Applier(broker.clone())), parts.snapshots, purged, Some(observer))
                .map_err(StartError::Open)?;
        let raft = raft::Node::start(
            parts.consensus,
            log,
            machine,
            channels.clone(),
            proposer.clone(),
            parts.runtime.clone(),
        )
        .await?;
        let dial = Arc::new(channels.clone());
        let forwarder = Forwarder::start(ForwardConfig::default(), me, dial.clone(), stopped.clone());
        forwarder.after_acks(Box::new(session::flush));
        let host = Arc::new(Host { broker: broker.clone(), raft: raft.clone() });
        let lease = Lease::start(host, dial, LeaseTimes::default(), stopped.clone());
        let member = Arc::new(Self {
            broker: broker.clone(),
            raft: raft.clone(),
            verifier: Verifier::new(channels.clone()),
            channels,
            forwarder: forwarder.clone(),
            lease: lease.clone(),
            info: parts.info,
            identity: parts.identity,
            stop,
            rebirth: Mutex::new(()),
        });
        let reborn = Arc::downgrade(&member);
        let runtime = parts.runtime;
        let sharing = member.info.sharing.clone();
        broker.wire(Wiring {
            me,
            proposer: Arc::new(proposer),
            forwarder,
            lease: lease.clone(),
            lapse: parts.lapse,
            permissions: parts.permissions,
            disk_is_short: Box::new(move || parts.disk.is_short()),
            runtime: runtime.clone(),
            sharing,
            rebirth: Box::new(move || {
                if let Some(member) = reborn.upgrade() {
                    runtime.spawn(raft::scoped(member.next_life()));
                }
            }),
        });
        env::spawn(raft::scoped(broker.clone().steward(
            {
                let raft = raft.clone();
                move || raft.is_leader().then(|| raft.members().iter().map(|member| member.node).collect())
            },
            stopped.clone(),
        )));
        env::spawn(raft::scoped(broker.clone().tend_lapses(stopped.clone())));
        env::spawn(raft::scoped(broker.clone().send_progress(stopped.clone())));
        env::spawn(raft::scoped(broker.clone().put_queues_away(stopped.clone())));
        env::spawn(raft::scoped(drain::tend(broker, raft.clone(), stopped.clone())));
        env::spawn(raft::scoped(follow_applied(raft, lease, stopped)));
        Ok(member)
    }

    /// What the peer listener serves.
    pub fn routes(&self) -> Routes {
        let sink = Arc::new(crate::broker::FromPeers(self.broker.clone()));
        let forward = self.forwarder.service(sink, self.lease.applied_watch()).into_server();
        let lease = self.lease.service().into_server();
        raft::routes(&self.raft, &self.verifier)
            .add_service(InterceptedService::new(forward, self.verifier.clone()))
            .add_service(InterceptedService::new(lease, self.verifier.clone()))
    }

    /// Proposes the start of this node's present life; it begins, and clients may come, when that
    /// has been applied here.
    ///
    /// The returned receiver gets the log position of the start once it is applied.
    pub fn begin_life(&self) -> tokio::sync::oneshot::Receiver<LogIndex> {
        let _one_at_a_time = self.rebirth.lock();
        let epoch = self.identity.epoch();
        self.broker.expect_life(epoch);
        let begun = self.raft.proposer().reopen(epoch, self.info.clone());
        self.lease.poke();
        begun
    }

    /// The cluster declared this life over: begins another.
    async fn next_life(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        loop {
            let identity = self.identity.clone();
            match env::blocking(move || identity.advance_epoch()).await {
                Ok(epoch) => {
                    info!(epoch, "beginning a new life");
                    return drop(self.begin_life());
                }
                Err(error) => error!(%error, "cannot begin a new life: the disk refuses the next epoch"),
            }
            tokio::select! {
                () = tokio::time::sleep(REBIRTH_PAUSE) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    pub fn id(&self) -> NodeId {
        self.raft.id()
    }

    pub fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// Ends everything: a leader hands over first.
    pub async fn stop(&self) {
        self.raft.shutdown().await;
        // Fails only when nobody is left to be told.
        let _ = self.stop.send(true);
    }

    /// Ends everything as a crash would: nobody is told.
    pub async fn crash(&self) {
        let _ = self.stop.send(true);
        self.raft.stop().await;
    }
}

/// Entries without commands are applied without the broker's knowledge; leases count them too.
async fn follow_applied(raft: raft::Node, lease: Arc<Lease>, mut stop: watch::Receiver<bool>) {
    let mut applied = raft.applied_changes();
    loop {
        let index = *applied.borrow_and_update();
        lease.applied(index, false);
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
