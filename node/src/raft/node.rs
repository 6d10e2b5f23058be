//! One node's part in consensus: the only face that the rest of the node sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::storage::RaftLogStorage;
use openraft::{ChangeMembers, Config, Instant, ReadPolicy, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::growth::{LogGrowth, SnapshotStats};
use super::heard::Heard;
use super::membership;
use super::network::Network;
use super::proposer::{Proposer, Route};
use super::scope::scoped;
use super::status::Status;
use super::transfer;
use super::types::{PeerNode, TypeConfig};
use super::upkeep::{self, Seen};
use super::{Consensus, Machine};
use crate::env;
use crate::peer::{Channels, Member};
use crate::state::{LogIndex, NodeId};

/// Entries in one append message at most; together with the log's own bound on bytes this stays
/// far below the largest message.
pub const MAX_APPEND_ENTRIES: u64 = 64;
/// Entries purged from the log at a time.
const PURGE_BATCH: u64 = 256;
/// How long a change of leadership may take before it is reported as failed.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);
/// The planned stop of a leader waits this long for its successor.
const STOP_TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a membership change that met another one is tried again.
const CHANGE_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long a membership change waits for another one to end.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The leader says so often that it is alive, milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing waits the largest election time-out and then a random one
    /// in between, milliseconds.
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// A snapshot is made when the log since the last one has grown by its size and by this, bytes.
    pub snapshot_log_bytes: u64,
    /// And after so many entries in any case.
    pub snapshot_every: u64,
    /// Bytes of log that stay, though a snapshot has them, for followers that lag.
    pub kept_log_bytes: u64,
    /// And entries before the last snapshot, at most.
    pub keep_log: u64,
    /// Learners are promoted while there are fewer voters; 3 or 5.
    pub voters: usize,
    /// Where a snapshot is received; `None`: in memory.
    pub incoming_dir: Option<PathBuf>,
    /// Peer addresses (host:port) to ask while no leader is known.
    pub seeds: Vec<String>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 200,
            election_max_ms: 400,
            snapshot_log_bytes: 64 << 20,
            snapshot_every: 250_000,
            kept_log_bytes: 64 << 20,
            keep_log: 250_000,
            voters: 3,
            incoming_dir: None,
            seeds: Vec::new(),
        }
    }
}

/// Consensus could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the timings of consensus do not fit together: {0}")]
    Config(String),
    #[error("consensus cannot start from what is on disk: {0}")]
    Storage(String),
    #[error("the runtime of consensus stopped")]
    Runtime,
}

/// A change of membership or leadership was not made, or not certainly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("the cluster has no leader at present")]
    NoLeader,
    /// Ask the leader, if one is named.
    #[error("this node does not lead")]
    NotLeader(Option<NodeId>),
    #[error("{0}")]
    Refused(String),
    /// A part of it was done; asked again, it goes on.
    #[error("{0}")]
    Unfinished(String),
    #[error("it is not known whether the change was made: {0}")]
    Unknown(String),
    #[error("consensus has stopped on this node")]
    Stopped,
}

/// One node's part in consensus. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    config: NodeConfig,
    me: NodeId,
    raft: Consensus,
    growth: Arc<LogGrowth>,
    heard: Arc<Heard>,
    channels: Channels,
    proposer: Proposer,
    route: watch::Receiver<Route>,
    leader: watch::Receiver<Option<NodeId>>,
    members: Arc<Seen>,
    runtime: Handle,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What operators should know of this node.
    trouble: Mutex<Option<String>>,
    /// One change of membership at a time.
    changing: tokio::sync::Mutex<()>,
}

/// Between two looks at whether consensus has stopped.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);

impl Node {
    /// Starts this node's part on `runtime`. `machine` tells
    /// `proposer.observer()`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start<L>(
        config: NodeConfig,
        log: L,
        machine: Machine,
        channels: Channels,
        proposer: Proposer,
        runtime: Handle,
    ) -> Result<Self, StartError>
    where
        L: RaftLogStorage<TypeConfig>,
    {
        let me = channels.identity().node;
        let raft_config = Arc::new(consensus_config(&config)?);
        if let Some(folder) = config.incoming_dir.clone() {
            let cleaned = runtime.spawn(async move { transfer::clean(&folder).await });
            let cleaned = cleaned.await.map_err(|_| StartError::Runtime)?;
            cleaned.map_err(|e| StartError::Storage(e.to_string()))?;
        }
        let heard = Arc::new(Heard::new(env::boot_ms()));
        let network = Network::new(channels.clone(), heard.clone());
        let growth = machine.growth();
        let raft = runtime
            .spawn(scoped(async move { Consensus::new(me, raft_config, network, log, machine).await }))
            .await
            .map_err(|_| StartError::Runtime)?
            .map_err(|e| StartError::Storage(e.to_string()))?;
        let members = Arc::new(Seen::default());
        let compaction =
            upkeep::Compaction { least_bytes: config.snapshot_log_bytes, kept_bytes: config.kept_log_bytes };
        let (route_sender, route) = watch::channel(Route::default());
        let (leader_sender, leader) = watch::channel(None);
        let node = Self(Arc::new(Inner {
            config,
            me,
            raft: raft.clone(),
            growth: growth.clone(),
            heard,
            channels: channels.clone(),
            proposer: proposer.clone(),
            route: route.clone(),
            leader,
            members: members.clone(),
            runtime: runtime.clone(),
            tasks: Mutex::default(),
            trouble: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
        }));
        let tasks = vec![
            runtime.spawn(scoped(upkeep::follow(
                raft.clone(),
                channels.clone(),
                members,
                route_sender,
                leader_sender,
            ))),
            runtime.spawn(scoped(upkeep::follow_applied(raft.clone(), proposer.clone()))),
            runtime.spawn(scoped(upkeep::compact(raft.clone(), growth, compaction))),
            runtime.spawn(scoped(proposer.run(raft, channels, route))),
            runtime.spawn(scoped(upkeep::tend(node.clone_weak()))),
            runtime.spawn(scoped(super::greet::run(node.clone_weak()))),
        ];
        *node.0.tasks.lock() = tasks;
        Ok(node)
    }

    pub fn id(&self) -> NodeId {
        self.0.me
    }

    pub fn channels(&self) -> &Channels {
        &self.0.channels
    }

    pub fn proposer(&self) -> &Proposer {
        &self.0.proposer
    }

    /// What operators should know of this node, told to other nodes that ask.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().clone()
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.0.trouble.lock() = trouble;
    }

    pub fn config(&self) -> &NodeConfig {
        &self.0.config
    }

    /// Makes this node a cluster of its own. `false`: it is a member of one already.
    ///
    /// # Errors
    /// Consensus has stopped.
    pub async fn initialize(&self, me: Member) -> Result<bool, ChangeError> {
        let members = BTreeMap::from([(me.node, PeerNode { name: me.name, peer_addr: me.peer_addr })]);
        let raft = self.0.raft.clone();
        match self.on_runtime(async move { raft.initialize(members).await }).await? {
            Ok(()) => Ok(true),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(false),
            Err(RaftError::APIError(e)) => Err(ChangeError::Refused(e.to_string())),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
        }
    }

    /// What this node knows about the group.
    pub fn status(&self) -> Status {
        Status::of(&self.0.raft)
    }

    /// The members, each with the newest address that is known of it.
    pub fn members(&self) -> Vec<Member> {
        let me = self.0.channels.identity();
        let address = |m: &Member| {
            if m.node == me.node { Some(me.advertised.clone()) } else { self.0.channels.address(m.node) }
        };
        let newest =
            |m: &Member| Member { peer_addr: address(m).unwrap_or_else(|| m.peer_addr.clone()), ..m.clone() };
        self.status().members().map(newest).collect()
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        *self.0.leader.borrow()
    }

    /// [`Self::leader`] and its changes.
    pub fn leader_changes(&self) -> watch::Receiver<Option<NodeId>> {
        self.0.leader.clone()
    }

    /// The present term and its leader, and their changes: a leader that was deposed and
    /// elected again shows as a change here.
    pub fn route(&self) -> watch::Receiver<Route> {
        self.0.route.clone()
    }

    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.0.me)
    }

    /// The term of the last entry applied on this node.
    pub fn applied_term(&self) -> Option<u64> {
        self.0.raft.data_metrics().borrow_watched().last_applied.map(|id| id.leader_id.term)
    }

    /// The last log position applied on this node.
    pub fn applied_index(&self) -> LogIndex {
        let by_log = upkeep::applied_by(&self.0.raft);
        by_log.max(*self.0.proposer.applied_changes().borrow())
    }

    /// [`Self::applied_index`] and its changes; entries without commands may show some
    /// milliseconds late.
    pub fn applied_changes(&self) -> watch::Receiver<LogIndex> {
        self.0.proposer.applied_changes().subscribe()
    }

    /// The last log position that this node knows to be committed.
    pub fn commit_index(&self) -> LogIndex {
        let metrics = self.0.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        metrics.local_committed.max(metrics.cluster_committed).map_or(0, |id| id.index())
    }

    /// What became of this node's snapshots.
    pub fn snapshots(&self) -> SnapshotStats {
        self.0.growth.snapshots()
    }

    /// Confirms with a quorum, in a round that begins after the call, that this node leads.
    /// Returns the position up to which everything was committed before the call; what is
    /// answered on the strength of it must wait until this node has applied that.
    ///
    /// # Errors
    /// This node does not lead, or reaches no quorum.
    pub async fn quorum_round(&self) -> Result<LogIndex, ChangeError> {
        use openraft::errors::LinearizableReadError as E;
        // A leader hears itself.
        self.0.heard.here(env::boot_ms());
        match scoped(self.0.raft.get_read_log_id(ReadPolicy::ReadIndex)).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(E::ForwardToLeader(f))) => Err(ChangeError::NotLeader(f.leader_id)),
            Err(RaftError::APIError(E::QuorumNotEnough(_))) => Err(ChangeError::NoLeader),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
        }
    }

    /// When this node leads `term`: no round of an earlier leader that a quorum answered began after
    /// this moment of `env::boot_ms`, nor did one of this leader's own. `None`: it is not known.
    pub fn heard_leaders(&self, term: u64) -> Option<u64> {
        self.0.heard.before(term)
    }

    pub(super) fn heard(&self) -> &Arc<Heard> {
        &self.0.heard
    }

    /// Whether the node was a member and is not any more. Sure only on a leader that a quorum
    /// confirmed lately, or where its membership was seen.
    pub fn is_removed(&self, node: NodeId) -> bool {
        // First who has been seen, then who is there, by the very metrics that the former was learned
        // from: the other way round, or by others, a member that has just been added would be taken
        // for one that is gone, and would forget the cluster.
        let seen = self.0.members.lock().contains(&node);
        let present = {
            let metrics = self.0.raft.server_metrics();
            let now = metrics.borrow_watched();
            now.membership_config.get_node(&node).is_some()
                || now.committed_membership_config.get_node(&node).is_some()
        };
        if present || seen {
            return !present;
        }
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_member = metrics.membership_config.get_node(&node).is_some()
            || metrics.committed_membership_config.get_node(&node).is_some();
        !is_member
            && metrics.state == ServerState::Leader
            && metrics
                .last_quorum_acked
                .is_some_and(|at| at.elapsed() < Duration::from_millis(self.0.config.election_min_ms))
    }

    /// On the leader: adds a learner, or changes the address of a member.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_learner(&self, member: Member) -> Result<(), ChangeError> {
        let _one_at_a_time = self.lock_membership().await;
        let peer = PeerNode { name: member.name, peer_addr: member.peer_addr };
        let status = self.leading()?;
        let nodes = BTreeMap::from([(member.node, peer.clone())]);
        let change = match status.members().find(|m| m.node == member.node) {
            Some(known) if known.peer_addr == peer.peer_addr && known.name == peer.name => return Ok(()),
            Some(_) => ChangeMembers::SetNodes(nodes),
            None => ChangeMembers::AddNodes(nodes),
        };
        self.0.channels.learn(member.node, &peer.peer_addr);
        self.change_membership(change, true).await?;
        info!("node {:016x} ({}) at {} is a member", member.node, peer.name, peer.peer_addr);
        Ok(())
    }

    /// On the leader: takes a node out of the cluster; a learner that has caught up inherits its
    /// vote. Nothing happens if it is no member.
    ///
    /// # Errors
    /// See [`ChangeError`]; refused if the living voters that stay would be no quorum. A leader
    /// that is to remove itself hands over first and answers `NotLeader` with its successor.
    pub async fn remove(&self, node: NodeId) -> Result<(), ChangeError> {
        let _one_at_a_time = self.lock_membership().await;
        let status = self.leading()?;
        if !status.is_member(node) {
            return Ok(());
        }
        let heir = membership::check_removal(&status, node).map_err(ChangeError::Refused)?;
        if node == self.0.me {
            if membership::successor(&status).is_none()
                && let Some(heir) = heir
            {
                self.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([heir])), true).await?;
            }
            return Err(ChangeError::NotLeader(Some(self.hand_over(None, TRANSFER_TIMEOUT).await?)));
        }
        let change = if status.is_voter(node) {
            let mut changes = vec![ChangeMembers::RemoveVoters(BTreeSet::from([node]))];
            changes.extend(heir.map(|heir| ChangeMembers::AddVoterIds(BTreeSet::from([heir]))));
            ChangeMembers::Batch(changes)
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([node]))
        };
        self.change_membership(change, false).await?;
        info!("node {node:016x} was removed from the cluster");
        Ok(())
    }

    /// On the leader: whether [`Self::remove`] would be refused now.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn check_removal(&self, node: NodeId) -> Result<(), ChangeError> {
        let status = self.leading()?;
        membership::check_removal(&status, node).map(drop).map_err(ChangeError::Refused)
    }

    /// On the leader: makes `to`, or the most advanced voter, the leader, and waits until this
    /// node sees it lead.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, ChangeError> {
        self.hand_over(to, TRANSFER_TIMEOUT).await
    }

    /// Stops consensus on this node: a leader hands over first, waiters are told that their
    /// commands' fate is unknown.
    pub async fn shutdown(&self) {
        let status = self.status();
        if status.is_leader() && status.voters.len() > 1 {
            match self.hand_over(None, STOP_TRANSFER_TIMEOUT).await {
                Ok(to) => info!("leadership went to node {to:016x}"),
                Err(e) => warn!("stopping without handing over leadership: {e}"),
            }
        }
        self.stop().await;
    }

    /// Stops consensus on this node without telling anyone, as a crash would.
    pub async fn stop(&self) {
        self.0.proposer.close();
        for task in std::mem::take(&mut *self.0.tasks.lock()) {
            task.abort();
        }
        if let Err(e) = scoped(self.0.raft.shutdown()).await {
            warn!("consensus ended badly: {e}");
        }
    }

    /// Completes when consensus has stopped on this node by itself, which it does when it cannot go
    /// on without harm; why.
    pub async fn failed(&self) -> String {
        let mut metrics = self.0.raft.metrics();
        loop {
            if let Err(fatal) = metrics.borrow_and_update().running_state.clone() {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "consensus has ended".to_owned();
            }
            // They change with every entry.
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }

    pub(super) fn raft(&self) -> &Consensus {
        &self.0.raft
    }

    pub(super) fn clone_weak(&self) -> WeakNode {
        WeakNode(Arc::downgrade(&self.0))
    }

    pub(super) async fn lock_membership(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.changing.lock().await
    }

    pub(super) fn leading(&self) -> Result<Status, ChangeError> {
        let status = self.status();
        if status.is_leader() { Ok(status) } else { Err(ChangeError::NotLeader(status.leader)) }
    }

    async fn hand_over(&self, to: Option<NodeId>, limit: Duration) -> Result<NodeId, ChangeError> {
        let status = self.leading()?;
        let to = match to {
            Some(to) if to == self.0.me => return Ok(to),
            Some(to) if !status.is_voter(to) => {
                return Err(ChangeError::Refused(format!("node {to:016x} is no voter")));
            }
            Some(to) => to,
            None => membership::successor(&status)
                .ok_or_else(|| ChangeError::Refused("there is no other living voter".to_owned()))?,
        };
        scoped(self.0.raft.trigger().transfer_leader(to)).await.map_err(|_| ChangeError::Stopped)?;
        let mut leader = self.0.leader.clone();
        let seen = leader.wait_for(|l| l.is_some_and(|l| l != self.0.me));
        match tokio::time::timeout(limit, seen).await {
            Ok(Ok(now)) => now.ok_or(ChangeError::NoLeader),
            Ok(Err(_)) => Err(ChangeError::Stopped),
            Err(_) => Err(ChangeError::Unknown(format!("node {to:016x} did not take over in time"))),
        }
    }

    pub(super) async fn change_membership(
        &self,
        change: ChangeMembers<NodeId, PeerNode>,
        retain: bool,
    ) -> Result<(), ChangeError> {
        use openraft::errors::ChangeMembershipError as E;
        let deadline = env::now() + CHANGE_TIMEOUT;
        loop {
            let (raft, change) = (self.0.raft.clone(), change.clone());
            let result = self.on_runtime(async move { raft.change_membership(change, retain).await });
            let result = tokio::time::timeout_at(deadline, result)
                .await
                .map_err(|_| ChangeError::Unknown("no quorum confirmed it in time".to_owned()))??;
            match result {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(E::InProgress(_))))
                    if env::now() < deadline =>
                {
                    tokio::time::sleep(CHANGE_RETRY_PAUSE).await;
                }
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(f))) => {
                    return Err(ChangeError::NotLeader(f.leader_id));
                }
                Err(RaftError::APIError(e @ ClientWriteError::LogEntryDiscarded(_))) => {
                    return Err(ChangeError::Unknown(e.to_string()));
                }
                Err(RaftError::APIError(e)) => return Err(ChangeError::Refused(e.to_string())),
                Err(RaftError::Fatal(_)) => return Err(ChangeError::Stopped),
            }
        }
    }

    /// Consensus calls that must not be cut short when their caller goes away, on consensus'
    /// own runtime.
    async fn on_runtime<F>(&self, future: F) -> Result<F::Output, ChangeError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.runtime.spawn(scoped(future)).await.map_err(|_| ChangeError::Stopped)
    }
}

/// Does not keep the node alive.
pub(super) struct WeakNode(std::sync::Weak<Inner>);

impl WeakNode {
    pub(super) fn get(&self) -> Option<Node> {
        self.0.upgrade().map(Node)
    }
}

fn consensus_config(config: &NodeConfig) -> Result<Config, StartError> {
    let config = Config {
        cluster_name: "rookery".to_owned(),
        heartbeat_interval: config.heartbeat_ms,
        heartbeat_min_interval: Some(config.heartbeat_ms / 2),
        election_timeout_min: config.election_min_ms,
        election_timeout_max: config.election_max_ms,
        enable_pre_vote: Some(true),
        // A leader sends entries while it still writes them. One that loses them with its power
        // and leads on in the same term would give their log ids to other entries.
        enable_leader_restore: Some(false),
        max_payload_entries: MAX_APPEND_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: config.keep_log,
        purge_batch_size: PURGE_BATCH.min(config.keep_log.max(1)),
        backoff: "20ms 50ms 100ms ..200ms".to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|e| StartError::Config(e.to_string()))
}
