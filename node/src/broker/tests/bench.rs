//! Whole brokers that share a log by hand. The test decides when a node's commands are committed,
//! when each node applies what, when a lease lapses, and when forward frames arrive; nothing of
//! that happens by itself, so that every interleaving can be walked step by step.
//!
//! Forward frames go over real connections, through a [`Proxy`] in front of each node that can hold
//! or break them; they move only while the test awaits something.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::auth::Access;
use crate::broker::{Applier, FromPeers, Front, LapseRules, Permissions, Wiring};
use crate::peer::forward::{ForwardConfig, Forwarder};
use crate::peer::lease::Lease;
use crate::peer::testing::{Network, Proxy};
use crate::raft::{Abandoned, Applied, Done, Propose, Replica};
use crate::session::testing::{MemoryLink, encoded, packets};
use crate::session::{Conn, Context, Flow, Inbound, Limits, turn};
use crate::sharing::Sharing;
use crate::state::{At, NodeInfo, NodeStatus, Outcome, Pack, State};

/// The term of everything, unless a test says otherwise.
pub const TERM: u64 = 1;
/// For frames to arrive; far above what they take.
const SOON: Duration = Duration::from_secs(20);

/// A node's commands on their way to the log, as its proposer keeps them.
#[derive(Default)]
struct Hand(Mutex<Commands>);

#[derive(Default)]
struct Commands {
    /// Epoch and next sequence.
    open: Option<(Epoch, u64)>,
    waiting: Vec<(Command, Done)>,
    /// In the log and not applied here.
    sent: VecDeque<(u64, Vec<Done>)>,
}

impl Propose for Hand {
    fn propose(&self, command: Command, done: Done) {
        let mut commands = self.0.lock();
        if commands.open.is_some() {
            return commands.waiting.push((command, done));
        }
        drop(commands);
        done(Err(Abandoned));
    }

    fn is_congested(&self) -> bool {
        false
    }
}

pub struct Node {
    pub id: NodeId,
    pub broker: Arc<Broker>,
    pub lease: Arc<Lease>,
    pub forwarder: Arc<Forwarder>,
    /// How often a new life was asked for.
    pub reborn: Arc<AtomicUsize>,
    hand: Arc<Hand>,
    context: Arc<Context>,
    applied: LogIndex,
    /// Takes no part in [`Bench::settle`].
    pub paused: bool,
}

pub struct Bench {
    nodes: Vec<Node>,
    /// Entry `i` has the index `i + 1`.
    log: Vec<(u64, Pack)>,
    network: Network,
    /// What the nodes' wall clocks show.
    pub wall_ms: u64,
    patience_ms: u64,
    _shutdown: watch::Sender<bool>,
}

impl Bench {
    /// Nodes that live, hold leases, and have applied all there is. Nobody waits for a lease that is
    /// away.
    pub async fn start(nodes: u64) -> Self {
        Self::with_patience(nodes, 0).await
    }

    /// As [`Bench::start`], but requests wait so long for a lease; `Broker::look_at_lease` when a test says so.
    pub async fn with_patience(nodes: u64, patience_ms: u64) -> Self {
        let network = Network::of(nodes).await;
        let (shutdown, stop) = watch::channel(false);
        let mut bench = Self {
            nodes: Vec::new(),
            log: Vec::new(),
            network,
            wall_ms: 1_000_000,
            patience_ms,
            _shutdown: shutdown,
        };
        for id in 1..=nodes {
            let channels = Arc::new(bench.network.channels[id as usize - 1].clone());
            let forwarder = Forwarder::start(ForwardConfig::default(), id, channels, stop.clone());
            forwarder.after_acks(Box::new(session::flush));
            bench.add(id, forwarder);
            let node = &bench.nodes[id as usize - 1];
            let sink = Arc::new(FromPeers(node.broker.clone()));
            let service = node.forwarder.service(sink, node.lease.applied_watch()).into_server();
            bench.network.serve(id, Network::server().add_service(bench.network.guard(id, service)));
        }
        for id in 1..=nodes {
            bench.begin_life(id);
        }
        bench.settle().await;
        bench
    }

    fn add(&mut self, id: NodeId, forwarder: Arc<Forwarder>) {
        let broker = Broker::new(Arc::default());
        let (lease, hand) = (Lease::in_hand(), Arc::new(Hand::default()));
        let reborn = Arc::new(AtomicUsize::new(0));
        let count = reborn.clone();
        broker.wire(Wiring {
            me: id,
            proposer: hand.clone(),
            forwarder: forwarder.clone(),
            lease: lease.clone(),
            // A test decides when there is a lease.
            lapse: LapseRules { patience_ms: self.patience_ms, ..LapseRules::default() },
            permissions: Permissions::default(),
            disk_is_short: Box::new(|| false),
            runtime: tokio::runtime::Handle::current(),
            sharing: Sharing::default(),
            rebirth: Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
        });
        let front = Front::new(broker.clone(), Access::new(false));
        let context = Context::new(Limits::default(), Arc::new(front));
        let node = Node { id, broker, lease, forwarder, reborn, hand, context, applied: 0, paused: false };
        self.nodes.push(node);
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize - 1]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    pub fn broker(&self, id: NodeId) -> &Arc<Broker> {
        &self.node(id).broker
    }

    /// In front of the node.
    pub fn proxy(&self, id: NodeId) -> &Proxy {
        &self.network.proxies[id as usize - 1]
    }

    /// A new life: commands of the one before are abandoned, the start is proposed. It begins when
    /// the node applies it; the lease is granted, as to any live node.
    pub fn begin_life(&mut self, id: NodeId) {
        let node = self.node(id);
        let epoch = node.broker.epoch() + 1;
        node.broker.expect_life(epoch);
        let abandoned = {
            let mut commands = node.hand.0.lock();
            commands.open = Some((epoch, 0));
            let waiting = std::mem::take(&mut commands.waiting);
            let sent = std::mem::take(&mut commands.sent);
            sent.into_iter()
                .flat_map(|(_, dones)| dones)
                .chain(waiting.into_iter().map(|(_, done)| done))
                .collect::<Vec<_>>()
        };
        abandoned.into_iter().for_each(|done| done(Err(Abandoned)));
        let info = NodeInfo { name: format!("n{id}"), ..NodeInfo::default() };
        self.propose(id, Command::NodeUp { info });
        self.node(id).lease.grant();
    }

    /// A new process on what is on the disk: nothing but the log. It has not begun its life, and
    /// no frames reach it.
    pub fn restart(&mut self, id: NodeId) {
        let epoch = self.broker(id).epoch();
        let old = self.nodes.remove(id as usize - 1);
        self.add(id, old.forwarder);
        let new = self.nodes.pop().expect("just added");
        new.broker.expect_life(epoch);
        self.nodes.insert(id as usize - 1, new);
        self.apply(id, old.applied);
    }

    pub fn propose(&self, id: NodeId, command: Command) {
        self.node(id).hand.propose(command, Box::new(|_| {}));
    }

    /// What the node has proposed and nobody has committed.
    pub fn waiting(&self, id: NodeId) -> Vec<Command> {
        self.node(id).hand.0.lock().waiting.iter().map(|(command, _)| command.clone()).collect()
    }

    /// Commits all that the node has proposed, as one entry. Index of the last entry of the log.
    pub fn commit(&mut self, id: NodeId) -> LogIndex {
        self.commit_in(id, TERM)
    }

    pub fn commit_in(&mut self, id: NodeId, term: u64) -> LogIndex {
        let pack = {
            let mut commands = self.node(id).hand.0.lock();
            let Some((epoch, seq)) = commands.open else { return self.last() };
            let waiting = std::mem::take(&mut commands.waiting);
            if waiting.is_empty() {
                return self.last();
            }
            commands.open = Some((epoch, seq + 1));
            let (mut pack, dones): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            commands.sent.push_back((seq, dones));
            for command in &mut pack {
                if let Command::WallClock { wall_ms } = command {
                    *wall_ms = self.wall_ms;
                }
            }
            Pack { origin: id, epoch, seq, commands: pack }
        };
        self.log.push((term, pack));
        self.last()
    }

    /// Index of the last entry.
    pub fn last(&self) -> LogIndex {
        self.log.len() as LogIndex
    }

    /// All that was ever committed.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.log.iter().flat_map(|(_, pack)| &pack.commands)
    }

    /// The node applies the log up to `upto`.
    pub fn apply(&mut self, id: NodeId, upto: LogIndex) {
        while self.node(id).applied < upto {
            let node = self.node_mut(id);
            node.applied += 1;
            let index = node.applied;
            let (term, pack) = self.log[index as usize - 1].clone();
            let node = self.node(id);
            let pack = Pack::decode(&pack.encode()).expect("what was encoded");
            let (origin, epoch, seq) = (pack.origin, pack.epoch, pack.seq);
            turn(|| {
                let applier = Applier(node.broker.clone());
                let outcomes = applier.apply(index, term, pack).expect("known commands");
                let dones = {
                    let mut commands = node.hand.0.lock();
                    let mine = origin == id && commands.open.is_some_and(|(mine, _)| mine == epoch);
                    let is_next = mine && commands.sent.front().is_some_and(|(next, _)| *next == seq);
                    if is_next && outcomes.is_some() { commands.sent.pop_front() } else { None }
                };
                let dones = dones.into_iter().flat_map(|(_, dones)| dones);
                for (done, outcome) in dones.zip(outcomes.into_iter().flatten()) {
                    done(Ok(Applied { at: At { index, origin, epoch }, outcome }));
                }
            });
        }
    }

    /// The leader tells every node what all live ones have applied.
    pub fn report(&self) {
        let newest = self.nodes.iter().max_by_key(|node| node.applied).expect("a node");
        let live: Vec<NodeId> = newest.broker.state().live_nodes().map(|(node, ..)| node).collect();
        let min = live.iter().map(|id| self.node(*id).applied).min().unwrap_or(0);
        self.nodes.iter().for_each(|node| node.lease.learn(min));
    }

    /// Commits and applies everything on all nodes but the paused ones, until nothing is left.
    pub async fn settle(&mut self) {
        loop {
            let active: Vec<NodeId> = self.nodes.iter().filter(|n| !n.paused).map(|n| n.id).collect();
            for id in &active {
                self.commit(*id);
            }
            for id in &active {
                self.apply(*id, self.last());
            }
            self.report();
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            if active.iter().all(|id| self.waiting(*id).is_empty()) {
                return;
            }
        }
    }

    pub fn tick(&self, id: NodeId, elapsed_ms: u64) {
        self.propose(id, Command::Tick { elapsed_ms });
    }

    /// The leader proposes what is due, as much as it does at a time; how many clients that are.
    pub fn sweep(&self, id: NodeId) -> usize {
        let due = {
            let state = self.broker(id).state();
            state.due(state.clock_ms(), &mut SweepCursor::default(), SWEEP_MAX)
        };
        let count = due.clients.len();
        self.propose(id, Command::Sweep { clients: due.clients, routes: due.routes });
        count
    }

    pub fn declare_down(&self, by: NodeId, node: NodeId, epoch: Epoch) {
        self.broker(by).declare_down(node, epoch, TERM);
    }

    /// The outcome of a command that a node proposes by itself, applied by all.
    pub async fn outcome(&mut self, id: NodeId, command: Command) -> Outcome {
        let got = Arc::new(Mutex::new(None));
        let slot = got.clone();
        let done: Done = Box::new(move |result| *slot.lock() = Some(result));
        self.node(id).hand.propose(command, done);
        self.settle().await;
        let result = got.lock().take().expect("applied");
        result.expect("not abandoned").outcome
    }

    pub fn status(&self, on: NodeId, node: NodeId) -> NodeStatus {
        self.broker(on).state().node(node).expect("a known node")
    }

    pub fn snapshot(&self, of: NodeId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.broker(of).state().freeze().write(&mut bytes).expect("memory takes it");
        bytes
    }

    /// The node gets a snapshot of `of` in place of the entries that it has not applied.
    pub fn install(&mut self, id: NodeId, of: NodeId) {
        let (bytes, index) = (self.snapshot(of), self.node(of).applied);
        let node = self.node_mut(id);
        node.applied = index;
        turn(|| Applier(node.broker.clone()).install(index, &mut bytes.as_slice())).expect("a snapshot");
    }

    /// A client that has sent its CONNECT.
    pub fn dial(&self, id: NodeId, connect: &Connect<'_>) -> Client {
        let context = self.node(id).context.clone();
        let link = MemoryLink::new(context);
        let conn = Conn::new(link.clone());
        let inbound = Inbound::new(0);
        let mut client = Client {
            conn,
            inbound,
            link,
            version: connect.version,
            wakes: 0,
            got: Vec::new(),
            over: false,
            next_id: 0,
        };
        client.send(&encoded(|out| encode::connect(out, connect).expect("fits")));
        client
    }

    /// A 5.0 client that is in; its session, if it keeps one, was not there before.
    pub async fn client(&mut self, id: NodeId, name: &str, expiry_s: u32) -> Client {
        let connect = Connect {
            client_id: name,
            clean_start: false,
            session_expiry_s: expiry_s,
            ..Connect::new(Version::V5)
        };
        self.connected(id, &connect).await
    }

    pub async fn connected(&mut self, id: NodeId, connect: &Connect<'_>) -> Client {
        let mut client = self.dial(id, connect);
        self.settle().await;
        client.attend();
        assert_eq!(client.got.remove(0), "CONNACK 00", "{}", connect.client_id);
        client
    }

    /// A client that is in, with one subscription that everybody knows of.
    pub async fn subscriber(
        &mut self,
        id: NodeId,
        name: &str,
        expiry_s: u32,
        filter: &str,
        qos: QoS,
    ) -> Client {
        let mut client = self.client(id, name, expiry_s).await;
        let packet_id = client.subscribe(filter, qos);
        self.settle().await;
        assert_eq!(client.take(), [format!("SUBACK {packet_id}")], "{name}");
        client
    }
}

/// Polls what only arriving frames can bring about.
pub async fn eventually(what: impl Fn() -> bool) {
    let arrived = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, arrived).await.expect("in time");
}

/// A client without a socket, on one node.
pub struct Client {
    pub conn: Arc<Conn>,
    inbound: Inbound,
    link: Arc<MemoryLink>,
    version: Version,
    wakes: usize,
    got: Vec<String>,
    over: bool,
    next_id: u16,
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.inbound.begin_turn();
        let flow = turn(|| self.inbound.feed(&self.conn, bytes, 0));
        self.follow(flow);
    }

    fn follow(&mut self, mut flow: Flow) {
        while flow == Flow::Yield {
            self.inbound.begin_turn();
            flow = turn(|| self.inbound.feed(&self.conn, &[], 0));
        }
        if matches!(flow, Flow::Over | Flow::Broken(_)) {
            self.lose();
        }
    }

    /// Does what the thread that owns the connection would have done by now.
    fn attend(&mut self) {
        while !self.over && self.wakes < self.link.wakes.load(Ordering::Relaxed) {
            self.wakes = self.link.wakes.load(Ordering::Relaxed);
            let flow = turn(|| self.inbound.attend(&self.conn, 0));
            self.follow(flow);
        }
        if !self.over && turn(|| self.inbound.check(&self.conn, 0)).is_none() {
            self.lose();
        }
        let bytes = std::mem::take(&mut *self.link.bytes.lock());
        self.got.extend(packets(&bytes, self.version));
    }

    /// The socket is gone.
    pub fn lose(&mut self) {
        self.over = true;
        turn(|| self.inbound.end(&self.conn));
        self.conn.flush();
    }

    /// What has come since it was last asked, in words.
    pub fn take(&mut self) -> Vec<String> {
        self.attend();
        std::mem::take(&mut self.got)
    }

    /// Waits for frames of other nodes to bring this many packets; what has come since it was last
    /// asked.
    pub async fn wait(&mut self, count: usize) -> Vec<String> {
        let arrived = async {
            loop {
                self.attend();
                if self.got.len() >= count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, arrived).await.unwrap_or_else(|_| panic!("only {:?} came", self.got));
        std::mem::take(&mut self.got)
    }

    /// Its stream has ended.
    pub fn is_closed(&mut self) -> bool {
        self.attend();
        self.link.finished.load(Ordering::Relaxed)
    }

    fn id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    /// The packet id.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> u16 {
        let (id, version) = (self.id(), self.version);
        let options = SubOptions { qos, ..SubOptions::default() };
        let filters = [SubscribeFilter { filter, options }];
        self.send(&encoded(|out| encode::subscribe(out, version, id, 0, &filters).expect("fits")));
        id
    }

    pub fn unsubscribe(&mut self, filter: &str) -> u16 {
        let (id, version) = (self.id(), self.version);
        self.send(&encoded(|out| encode::unsubscribe(out, version, id, &[filter]).expect("fits")));
        id
    }

    pub fn publish(&mut self, topic: &str, payload: &str, qos: QoS) -> u16 {
        self.send_publish(topic, payload, qos, false)
    }

    pub fn retain(&mut self, topic: &str, payload: &str, qos: QoS) -> u16 {
        self.send_publish(topic, payload, qos, true)
    }

    fn send_publish(&mut self, topic: &str, payload: &str, qos: QoS, retain: bool) -> u16 {
        let id = if qos == QoS::AtMostOnce { 0 } else { self.id() };
        let publication = Publication {
            topic,
            payload: payload.as_bytes(),
            properties: &[],
            qos,
            retain,
            expires_at_ms: 0,
            publisher: "",
        };
        let version = self.version;
        self.send(&encoded(|out| {
            let publish = PublishOut { packet_id: id, retain, ..PublishOut::new(version, &publication) };
            encode::publish(out, &publish).expect("fits");
        }));
        id
    }

    pub fn pubrel(&mut self, id: u16) {
        let version = self.version;
        self.send(&encoded(|out| encode::pubrel(out, version, id, ReasonCode::Success)));
    }
}

/// For reading the state that a snapshot holds.
pub fn state_of(bytes: &[u8]) -> State {
    State::read(&mut &bytes[..], Arc::default()).expect("a snapshot")
}
