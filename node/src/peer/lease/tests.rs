use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::*;
use crate::env;
use crate::peer::testing::{Network, Proxy};

/// Quicker than the real ones.
const TIMES: LeaseTimes = LeaseTimes { lease_ms: 1200, fence_ms: 900, renew_ms: 100, settle_ms: 600 };

/// A consensus that always agrees with the test.
struct World {
    state: Mutex<State>,
    downs: watch::Sender<Vec<Down>>,
    leases: Vec<OnceLock<Arc<Lease>>>,
}

struct State {
    term: u64,
    /// When the term began.
    since_ms: u64,
    leader: NodeId,
    has_quorum: bool,
    term_applied: bool,
    committed: LogIndex,
    live: Vec<Live>,
    /// Per node.
    epochs: Vec<Epoch>,
    rounds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Down {
    node: NodeId,
    epoch: Epoch,
    term: u64,
    /// The node could still acknowledge when it was declared down.
    was_valid: bool,
}

struct Host {
    world: Arc<World>,
    id: NodeId,
}

impl LeaseHost for Host {
    fn me(&self) -> (NodeId, Epoch) {
        (self.id, self.world.state.lock().epochs[self.id as usize - 1])
    }

    fn leader(&self) -> Option<NodeId> {
        Some(self.world.state.lock().leader)
    }

    fn leading(&self) -> Option<u64> {
        let state = self.world.state.lock();
        (state.leader == self.id).then_some(state.term)
    }

    fn heard_leaders(&self, _: u64) -> Option<u64> {
        Some(self.world.state.lock().since_ms)
    }

    fn term_applied(&self) -> bool {
        self.world.state.lock().term_applied
    }

    fn committed(&self) -> LogIndex {
        self.world.state.lock().committed
    }

    fn live(&self) -> Vec<Live> {
        self.world.state.lock().live.clone()
    }

    fn quorum_round(&self) -> BoxFuture<'static, bool> {
        let mut state = self.world.state.lock();
        state.rounds += 1;
        let leads = state.leader == self.id && state.has_quorum;
        async move {
            tokio::task::yield_now().await;
            leads
        }
        .boxed()
    }

    fn propose_down(&self, node: NodeId, epoch: Epoch, term: u64) {
        let was_valid = self.world.lease(node).is_valid();
        self.world.downs.send_modify(|downs| downs.push(Down { node, epoch, term, was_valid }));
    }
}

impl World {
    fn lease(&self, node: NodeId) -> &Arc<Lease> {
        self.leases[node as usize - 1].get().unwrap()
    }

    /// Commits one entry, which nobody has applied yet.
    fn commit(&self) -> LogIndex {
        let mut state = self.state.lock();
        state.committed += 1;
        state.committed
    }

    fn lead(&self, node: NodeId) {
        let mut state = self.state.lock();
        state.leader = node;
        state.term += 1;
        state.since_ms = env::boot_ms();
    }

    async fn downs(&self, n: usize) -> Vec<Down> {
        soon(self.downs.subscribe().wait_for(|downs| downs.len() >= n)).await.unwrap().clone()
    }
}

struct Cluster {
    world: Arc<World>,
    /// Between each node and node 1.
    to_leader: Vec<Arc<Proxy>>,
    stop: Vec<watch::Sender<bool>>,
    _network: Network,
}

impl Cluster {
    /// Three nodes, led by node 1, all live in epoch 1 since index 1.
    async fn start(times: LeaseTimes) -> Self {
        let network = Network::of(3).await;
        let state = State {
            term: 1,
            since_ms: env::boot_ms(),
            leader: 1,
            has_quorum: true,
            term_applied: true,
            committed: 1,
            live: (1..=3).map(|node| Live { node, epoch: 1, up_at: 1 }).collect(),
            epochs: vec![1; 3],
            rounds: 0,
        };
        let world = Arc::new(World {
            state: Mutex::new(state),
            downs: watch::channel(Vec::new()).0,
            leases: (0..3).map(|_| OnceLock::new()).collect(),
        });
        let (mut to_leader, mut stop) = (Vec::new(), Vec::new());
        for (id, channels) in (1..).zip(&network.channels) {
            let proxy = Proxy::to(network.proxies[0].addr).await;
            channels.learn(1, &proxy.addr.to_string());
            to_leader.push(proxy);
            let (stop_sender, stopped) = watch::channel(false);
            let host = Arc::new(Host { world: world.clone(), id });
            let lease = Lease::start(host, Arc::new(channels.clone()), times, stopped);
            lease.applied(1, false);
            let service = lease.service().into_server();
            network.serve(id, Network::server().add_service(network.guard(id, service)));
            assert!(world.leases[id as usize - 1].set(lease).is_ok());
            stop.push(stop_sender);
        }
        Self { world, to_leader, stop, _network: network }
    }

    fn lease(&self, node: NodeId) -> &Arc<Lease> {
        self.world.lease(node)
    }

    async fn all_valid(&self) {
        eventually(|| (1..=3).all(|node| self.lease(node).is_valid())).await;
    }

    /// All nodes apply the log, as an entry that somebody waits for.
    fn apply(&self, index: LogIndex, nodes: &[NodeId]) {
        nodes.iter().for_each(|node| self.lease(*node).applied(index, true));
    }

    fn wait_for(&self, node: NodeId, index: LogIndex) -> oneshot::Receiver<bool> {
        let (done, told) = oneshot::channel();
        self.lease(node).when_applied_everywhere(
            index,
            Box::new(move |everywhere| {
                let _ = done.send(everywhere);
            }),
        );
        told
    }
}

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

async fn eventually(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Watches that something holds for a while.
async fn throughout(ms: u64, mut what: impl FnMut() -> bool) {
    let until_ms = env::boot_ms() + ms;
    while env::boot_ms() < until_ms {
        assert!(what());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn the_default_times_keep_the_promise_with_the_default_election() {
    let times = LeaseTimes::default();
    // Lease of the old leader 400 ms and a random time-out of up to 400 ms.
    assert!(times.are_consistent());
    assert_eq!(times.worst_ms(800), 2000);
    assert_eq!(times.worst_ms(1000), 2100);
    assert!(!LeaseTimes { fence_ms: 1600, ..times }.are_consistent());
    assert!(!LeaseTimes { renew_ms: 800, ..times }.are_consistent());
}

#[tokio::test]
async fn leases_are_granted_and_kept() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    throughout(1500, || (1..=3).all(|node| cluster.lease(node).is_valid())).await;
    assert!(cluster.world.downs.borrow().is_empty());
    // 3 nodes renew 10 times a second; a round serves all that came before it.
    assert!(cluster.world.state.lock().rounds < 100);
}

#[tokio::test]
async fn a_silent_node_is_fenced_and_then_declared_down_once() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    cluster.to_leader[2].block();
    let downs = cluster.world.downs(1).await;
    assert_eq!(downs, [Down { node: 3, epoch: 1, term: 1, was_valid: false }]);
    // It comes back before its end is committed: too late.
    cluster.to_leader[2].unblock();
    throughout(1500, || !cluster.lease(3).is_valid()).await;
    assert_eq!(cluster.world.downs.borrow().len(), 1);
    assert!(cluster.lease(1).is_valid() && cluster.lease(2).is_valid());

    // Its end and its next life are applied everywhere.
    cluster.lease(3).end_life(1);
    {
        let mut state = cluster.world.state.lock();
        state.committed = 10;
        state.live[2] = Live { node: 3, epoch: 2, up_at: 10 };
        state.epochs[2] = 2;
    }
    cluster.apply(10, &[1, 2, 3]);
    cluster.lease(3).poke();
    cluster.all_valid().await;
}

#[tokio::test]
async fn without_a_quorum_everybody_is_fenced_and_nobody_declared_down() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    cluster.world.state.lock().has_quorum = false;
    eventually(|| (1..=3).all(|node| !cluster.lease(node).is_valid())).await;
    throughout(1200, || (1..=3).all(|node| !cluster.lease(node).is_valid())).await;
    assert!(cluster.world.downs.borrow().is_empty());
    cluster.world.state.lock().has_quorum = true;
    cluster.all_valid().await;
    assert!(cluster.world.downs.borrow().is_empty());
}

#[tokio::test]
async fn a_new_leader_takes_over_without_a_gap() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    for leader in [2, 3, 1] {
        cluster.world.lead(leader);
        throughout(1000, || (1..=3).all(|node| cluster.lease(node).is_valid())).await;
    }
    assert!(cluster.world.downs.borrow().is_empty());
}

#[tokio::test]
async fn a_leader_grants_nothing_before_it_has_applied_its_own_term() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    cluster.world.state.lock().term_applied = false;
    cluster.world.lead(2);
    eventually(|| (1..=3).all(|node| !cluster.lease(node).is_valid())).await;
    cluster.world.state.lock().term_applied = true;
    cluster.all_valid().await;
    assert!(cluster.world.downs.borrow().is_empty());
}

#[tokio::test]
async fn who_does_not_apply_is_fenced_and_declared_down() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    let index = cluster.world.commit();
    cluster.apply(index, &[1, 2]);
    let told = cluster.wait_for(2, index);
    let downs = cluster.world.downs(1).await;
    assert_eq!(downs, [Down { node: 3, epoch: 1, term: 1, was_valid: false }]);
    // Once that is applied, it holds up nobody any more.
    cluster.world.state.lock().live.pop();
    assert!(soon(told).await.unwrap());
    assert!(cluster.lease(1).is_valid() && cluster.lease(2).is_valid());
}

#[tokio::test]
async fn an_entry_is_applied_everywhere_when_the_last_live_node_has_applied_it() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    let index = cluster.world.commit();
    cluster.apply(index, &[1, 2]);
    let mut told: Vec<_> = (1..=2).map(|node| cluster.wait_for(node, index)).collect();
    throughout(300, || cluster.lease(1).min_applied() < index).await;
    assert!(told.iter_mut().all(|t| t.try_recv().is_err()));
    cluster.apply(index, &[3]);
    for told in told {
        assert!(soon(told).await.unwrap());
    }
    let known = cluster.wait_for(2, index).try_recv();
    assert_eq!(known, Ok(true), "told at once what is known already");
}

#[tokio::test]
async fn a_new_life_is_waited_for_from_its_beginning_on() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    cluster.stop[2].send_replace(true);
    {
        let mut state = cluster.world.state.lock();
        state.committed = 20;
        state.live[2] = Live { node: 3, epoch: 2, up_at: 15 };
    }
    cluster.apply(20, &[1, 2]);
    assert!(soon(cluster.wait_for(2, 14)).await.unwrap());
    let mut later = cluster.wait_for(2, 15);
    throughout(300, || later.try_recv().is_err()).await;
}

#[tokio::test]
async fn the_end_of_a_life_tells_those_who_wait() {
    let cluster = Cluster::start(TIMES).await;
    cluster.all_valid().await;
    let index = cluster.world.commit();
    let told = cluster.wait_for(2, index);
    cluster.lease(2).end_life(1);
    assert!(!cluster.lease(2).is_valid());
    assert!(!soon(told).await.unwrap());
    throughout(300, || !cluster.lease(2).is_valid()).await;

    let told = cluster.wait_for(3, index);
    cluster.stop[2].send_replace(true);
    assert!(!soon(told).await.unwrap());
}

#[tokio::test]
async fn a_broken_connection_to_the_leader_costs_no_lease() {
    let cluster = Cluster::start(LeaseTimes::default()).await;
    cluster.all_valid().await;
    let index = cluster.world.commit();
    cluster.apply(index, &[1, 2, 3]);
    cluster.to_leader[1].cut();
    assert!(soon(cluster.wait_for(2, index)).await.unwrap());
    throughout(500, || cluster.lease(2).is_valid()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_everybody_is_quick() {
    let cluster = Cluster::start(LeaseTimes::default()).await;
    cluster.all_valid().await;
    for asker in [1, 2] {
        let mut took_us = Vec::new();
        for _ in 0..300 {
            let index = cluster.world.commit();
            let began = std::time::Instant::now();
            cluster.apply(index, &[1, 2, 3]);
            assert!(soon(cluster.wait_for(asker, index)).await.unwrap());
            took_us.push(began.elapsed().as_micros());
        }
        took_us.sort_unstable();
        let (p50, p99) = (took_us[150], took_us[297]);
        println!("applied everywhere, asked on node {asker} of 3, led by 1: p50 {p50} us, p99 {p99} us");
        assert!(p50 < 50_000, "not by the next renewal");
    }
}
