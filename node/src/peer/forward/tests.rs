use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rookery_proto::peer::lane_request::Part;
use rookery_proto::peer::{LaneHello, LaneRequest};
use tokio::sync::watch;

use super::*;
use crate::mqtt::QoS;
use crate::peer::Channels;
use crate::peer::testing::{Network, Proxy};
use crate::state::Epoch;

const A: NodeId = 1;
const B: NodeId = 2;
const C: NodeId = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    from: NodeId,
    lane: u16,
    topic: String,
    payload: Vec<u8>,
    share: Option<String>,
}

/// Keeps what was delivered.
struct Recorder {
    got: Mutex<Vec<Got>>,
    flushed: watch::Sender<usize>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { got: Mutex::default(), flushed: watch::channel(0).0 }
    }
}

impl Sink for Recorder {
    fn deliver(&self, from: NodeId, lane: u16, publication: &Publication<'_>, share: Option<Share<'_>>) {
        self.got.lock().push(Got {
            from,
            lane,
            topic: publication.topic.to_owned(),
            payload: publication.payload.to_owned(),
            share: share.map(|share| share.filter.to_owned()),
        });
    }

    fn flush(&self) {
        self.flushed.send_replace(self.got.lock().len());
    }
}

impl Recorder {
    async fn count(&self, n: usize) {
        soon(self.flushed.subscribe().wait_for(|flushed| *flushed >= n)).await.unwrap();
    }

    /// Numbers in the payloads of a lane.
    fn numbers(&self, from: NodeId, lane: u16) -> Vec<u64> {
        let got = self.got.lock();
        let mine = got.iter().filter(|g| g.from == from && g.lane == lane);
        mine.map(|g| u64::from_be_bytes(g.payload[..8].try_into().unwrap())).collect()
    }
}

/// Completions in the order of the calls.
#[derive(Clone)]
struct Dones {
    called: watch::Sender<Vec<(u64, Result<(), PeerGone>)>>,
}

impl Dones {
    fn new() -> Self {
        Self { called: watch::channel(Vec::new()).0 }
    }

    fn done(&self, number: u64) -> Option<Done> {
        let called = self.called.clone();
        Some(Box::new(move |result| called.send_modify(|c| c.push((number, result)))))
    }

    async fn count(&self, n: usize) -> Vec<(u64, Result<(), PeerGone>)> {
        soon(self.called.subscribe().wait_for(|c| c.len() >= n)).await.unwrap().clone()
    }

    fn so_far(&self) -> usize {
        self.called.borrow().len()
    }
}

struct Node {
    forwarder: Arc<Forwarder>,
    sink: Arc<Recorder>,
    applied: watch::Sender<LogIndex>,
}

struct Cluster {
    nodes: Vec<Node>,
    proxies: Vec<Arc<Proxy>>,
    channels: Vec<Channels>,
    _shutdown: watch::Sender<bool>,
}

impl Cluster {
    /// Nodes that do not know of each other's lives yet.
    async fn asleep(nodes: u64, config: ForwardConfig) -> Self {
        let network = Network::of(nodes).await;
        let (shutdown, stop) = watch::channel(false);
        let nodes = (1..=nodes)
            .map(|id| {
                let channels = network.channels[id as usize - 1].clone();
                let forwarder = Forwarder::start(config, id, Arc::new(channels), stop.clone());
                let sink = Arc::new(Recorder::default());
                let (applied, watched) = watch::channel(0);
                let service = forwarder.service(sink.clone(), watched).into_server();
                network.serve(id, Network::server().add_service(network.guard(id, service)));
                Node { forwarder, sink, applied }
            })
            .collect();
        let Network { channels, proxies, .. } = network;
        Self { nodes, proxies, channels, _shutdown: shutdown }
    }

    /// All live in epoch 1.
    async fn start(nodes: u64, config: ForwardConfig) -> Self {
        let cluster = Self::asleep(nodes, config).await;
        for node in 1..=nodes {
            cluster.up(node, 1);
        }
        cluster
    }

    /// The first life of all, of which `silent` knows nothing but its own: it calls nobody, and so
    /// tells nobody where it really is.
    fn all_up_but_heard_by(&self, silent: NodeId) {
        for node in 1..=self.nodes.len() as NodeId {
            let told = (1..).zip(&self.nodes).filter(|(id, _)| *id != silent || node == silent);
            told.for_each(|(_, n)| n.forwarder.peer_up(node, 1));
        }
    }

    /// What only goes from one of these to the other.
    async fn between(&self, from: NodeId, to: NodeId) -> Arc<Proxy> {
        let proxy = Proxy::to(self.proxy(to).addr).await;
        self.channels[from as usize - 1].learn(to, &proxy.addr.to_string());
        proxy
    }

    /// The beginning of a life, applied everywhere.
    fn up(&self, node: NodeId, epoch: Epoch) {
        self.nodes.iter().for_each(|n| n.forwarder.peer_up(node, epoch));
    }

    fn down(&self, node: NodeId, epoch: Epoch) {
        self.nodes.iter().for_each(|n| n.forwarder.peer_down(node, epoch));
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize - 1]
    }

    fn proxy(&self, id: NodeId) -> &Proxy {
        &self.proxies[id as usize - 1]
    }
}

impl Node {
    fn send(
        &self,
        to: NodeId,
        lane: u16,
        number: u64,
        qos: QoS,
        done: Option<Done>,
    ) -> Result<(), SendError> {
        self.send_after(0, to, lane, number, qos, done)
    }

    fn send_after(
        &self,
        barrier: LogIndex,
        to: NodeId,
        lane: u16,
        number: u64,
        qos: QoS,
        done: Option<Done>,
    ) -> Result<(), SendError> {
        let payload = number.to_be_bytes();
        let frame = Frame { publication: publication(&payload, qos), barrier, share: None };
        self.forwarder.send(to, lane, frame, done)
    }
}

fn publication(payload: &[u8], qos: QoS) -> Publication<'_> {
    Publication {
        topic: "a/b",
        payload,
        properties: &[],
        qos,
        retain: false,
        expires_at_ms: 0,
        publisher: "p",
    }
}

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

/// Polls what has no event to wait for.
async fn eventually(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_lane_keeps_its_order_and_every_completion_is_called() {
    let cluster = Cluster::start(3, ForwardConfig::default()).await;
    let dones = Dones::new();
    const FRAMES: u64 = 500;
    for number in 0..FRAMES {
        for lane in 0..4 {
            for (from, to) in [(A, B), (A, 3), (3, B)] {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number as usize % 3];
                let done = if qos == QoS::AtMostOnce { None } else { dones.done(number) };
                cluster.node(from).send(to, lane, number, qos, done).unwrap();
            }
        }
    }
    cluster.node(B).sink.count(FRAMES as usize * 8).await;
    cluster.node(3).sink.count(FRAMES as usize * 4).await;
    for lane in 0..4 {
        for (from, to) in [(A, B), (A, 3), (3, B)] {
            let numbers = cluster.node(to).sink.numbers(from, lane);
            assert!(numbers.iter().copied().eq(0..FRAMES), "lane {lane} from {from} to {to}: {numbers:?}");
        }
    }
    let expected = (0..FRAMES).filter(|n| n % 3 != 0).count() * 12;
    let called = dones.count(expected).await;
    assert_eq!(called.len(), expected);
    assert!(called.iter().all(|(_, result)| result.is_ok()));
    eventually(|| cluster.node(A).forwarder.stats().queued_bytes == 0).await;
    assert_eq!(cluster.node(B).forwarder.stats().received, FRAMES * 8);
}

#[tokio::test]
async fn everything_about_a_frame_arrives() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let payload = vec![9; 1 << 20];
    let frame = Frame {
        publication: publication(&payload, QoS::ExactlyOnce),
        barrier: 0,
        share: Some(Share::new("$share/g/a/+")),
    };
    cluster.node(A).forwarder.send(B, 5, frame, None).unwrap();
    cluster.node(B).sink.count(1).await;
    let expected = Got { from: A, lane: 1, topic: "a/b".into(), payload, share: Some("$share/g/a/+".into()) };
    assert_eq!(cluster.node(B).sink.got.lock()[..], [expected]);

    let payload = vec![0; MAX_FRAME_BYTES];
    let frame = Frame { publication: publication(&payload, QoS::AtLeastOnce), barrier: 0, share: None };
    assert_eq!(cluster.node(A).forwarder.send(B, 0, frame, None), Err(SendError::TooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_larger_than_any_message_survives_a_broken_connection() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let (a, b) = (cluster.node(A), cluster.node(B));
    let dones = Dones::new();
    a.send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    dones.count(1).await;
    let mut payload: Vec<u8> =
        (0..crate::peer::MAX_MESSAGE_BYTES + (8 << 20)).map(|n| (n % 251) as u8).collect();
    payload[..8].copy_from_slice(&2u64.to_be_bytes());
    let frame = Frame { publication: publication(&payload, QoS::AtLeastOnce), barrier: 0, share: None };
    a.forwarder.send(B, 0, frame, dones.done(2)).unwrap();
    assert_eq!(a.send(B, 0, 3, QoS::AtLeastOnce, None), Err(SendError::Congested), "while it waits");
    cluster.proxy(B).cut();
    dones.count(2).await;
    a.send(B, 0, 3, QoS::AtLeastOnce, dones.done(3)).unwrap();
    assert!(dones.count(3).await.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(b.sink.numbers(A, 0), [1, 2, 3]);
    assert!(b.sink.got.lock()[1].payload == payload);
    eventually(|| a.forwarder.stats().queued_bytes == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_lose_and_repeat_nothing() {
    let cluster = Cluster::start(2, ForwardConfig { batch_bytes: 256, ..ForwardConfig::default() }).await;
    let dones = Dones::new();
    let mut sent = 0;
    for round in 0..8 {
        for _ in 0..300 {
            let qos = if sent % 4 == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            let done = (qos != QoS::AtMostOnce).then(|| dones.done(sent)).flatten();
            cluster.node(A).send(B, 0, sent, qos, done).unwrap();
            sent += 1;
        }
        // At another point of the stream each time.
        cluster.node(B).sink.count(300 * round + 7 * round).await;
        cluster.proxy(B).cut();
    }
    cluster.node(B).sink.count(sent as usize).await;
    let numbers = cluster.node(B).sink.numbers(A, 0);
    assert!(numbers.iter().copied().eq(0..sent), "{numbers:?}");
    let called = dones.count(sent as usize * 3 / 4).await;
    assert!(called.iter().map(|(n, _)| *n).eq((0..sent).filter(|n| n % 4 != 0)), "completed in order");
    assert!(called.iter().all(|(_, result)| result.is_ok()));
}

#[tokio::test]
async fn a_silent_connection_is_replaced() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    cluster.node(A).send(B, 0, 0, QoS::AtLeastOnce, None).unwrap();
    cluster.node(B).sink.count(1).await;
    cluster.proxy(B).freeze();
    let dones = Dones::new();
    for number in 1..100 {
        cluster.node(A).send(B, 0, number, QoS::AtLeastOnce, dones.done(number)).unwrap();
    }
    dones.count(99).await;
    assert!(cluster.node(B).sink.numbers(A, 0).iter().copied().eq(0..100));
}

#[tokio::test]
async fn the_end_of_the_receivers_life_gives_back_what_it_did_not_acknowledge() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let dones = Dones::new();
    cluster.node(A).send(B, 0, 0, QoS::AtLeastOnce, dones.done(0)).unwrap();
    dones.count(1).await;
    cluster.proxy(B).block();
    for number in 1..5 {
        cluster.node(A).send(B, 0, number, QoS::AtLeastOnce, dones.done(number)).unwrap();
    }
    cluster.down(B, 1);
    let expected: Vec<_> = (0..5).map(|n| (n, if n == 0 { Ok(()) } else { Err(PeerGone) })).collect();
    assert_eq!(*dones.called.borrow(), expected, "before peer_down returns");
    assert_eq!(cluster.node(A).send(B, 0, 5, QoS::AtLeastOnce, None), Err(SendError::PeerGone));
    assert!(!cluster.node(A).forwarder.is_up(B));

    cluster.proxy(B).unblock();
    cluster.up(B, 2);
    cluster.node(A).send(B, 0, 6, QoS::AtLeastOnce, dones.done(6)).unwrap();
    assert_eq!(dones.count(6).await[5], (6, Ok(())));
    assert_eq!(cluster.node(B).sink.numbers(A, 0), [0, 6]);
    // Late news about the old life change nothing.
    cluster.down(B, 1);
    cluster.up(B, 1);
    assert!(cluster.node(A).forwarder.is_up(B));
}

#[tokio::test]
async fn a_newer_life_ends_the_older() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    cluster.proxy(B).block();
    let dones = Dones::new();
    cluster.node(A).send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    cluster.up(B, 2);
    assert_eq!(*dones.called.borrow(), [(1, Err(PeerGone))]);
    cluster.proxy(B).unblock();
    cluster.node(A).send(B, 0, 2, QoS::AtLeastOnce, dones.done(2)).unwrap();
    dones.count(2).await;
    assert_eq!(cluster.node(B).sink.numbers(A, 0), [2]);
}

#[tokio::test]
async fn the_end_of_the_senders_life_gives_back_everything() {
    let cluster = Cluster::start(3, ForwardConfig::default()).await;
    let dones = Dones::new();
    for node in [B, 3] {
        cluster.proxy(node).block();
        cluster.node(A).send(node, 0, node, QoS::ExactlyOnce, dones.done(node)).unwrap();
    }
    cluster.down(A, 1);
    let mut called = dones.called.borrow().clone();
    called.sort_by_key(|(n, _)| *n);
    assert_eq!(called, [(B, Err(PeerGone)), (3, Err(PeerGone))]);
    assert_eq!(cluster.node(A).send(B, 0, 5, QoS::AtLeastOnce, None), Err(SendError::PeerGone));

    cluster.proxy(B).unblock();
    cluster.up(A, 2);
    cluster.node(A).send(B, 0, 6, QoS::AtLeastOnce, dones.done(6)).unwrap();
    dones.count(3).await;
    assert_eq!(cluster.node(B).sink.numbers(A, 0), [6]);
}

#[tokio::test]
async fn who_was_declared_down_is_not_listened_to() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let dones = Dones::new();
    cluster.node(A).send(B, 0, 0, QoS::AtLeastOnce, dones.done(0)).unwrap();
    dones.count(1).await;
    // The receiver has applied the end of the sender's life; the sender has not.
    cluster.node(B).forwarder.peer_down(A, 1);
    cluster.node(A).send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    eventually(|| !cluster.node(A).forwarder.is_up(B)).await;
    assert_eq!(dones.so_far(), 1);
    cluster.down(A, 1);
    assert_eq!(dones.count(2).await[1], (1, Err(PeerGone)));
    cluster.up(A, 2);
    cluster.node(A).send(B, 0, 2, QoS::AtLeastOnce, dones.done(2)).unwrap();
    dones.count(3).await;
    assert_eq!(cluster.node(B).sink.numbers(A, 0), [0, 2]);
}

#[tokio::test]
async fn a_stream_waits_for_the_life_it_means() {
    let cluster = Cluster::asleep(2, ForwardConfig::default()).await;
    let a = cluster.node(A);
    a.forwarder.peer_up(A, 1);
    a.forwarder.peer_up(B, 1);
    let dones = Dones::new();
    a.send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    assert!(a.forwarder.is_up(B), "for a while, without a stream");
    // The receiver has not applied its own beginning.
    eventually(|| !a.forwarder.is_up(B)).await;
    assert_eq!(dones.so_far(), 0);
    cluster.node(B).forwarder.peer_up(B, 1);
    // It has not heard of the sender's life either, and takes its word for it.
    assert_eq!(dones.count(1).await, [(1, Ok(()))]);
    eventually(|| a.forwarder.is_up(B)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_cannot_reach_each_other_go_by_way_of_a_third() {
    const UNTIL: u64 = 3000;
    let config = ForwardConfig { grace_ms: 100, ..ForwardConfig::default() };
    let cluster = Cluster::asleep(3, config).await;
    let link = cluster.between(A, B).await;
    cluster.all_up_but_heard_by(B);
    let (a, dones) = (cluster.node(A), Dones::new());
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            a.send(B, 0, number, QoS::ExactlyOnce, dones.done(number)).unwrap();
        }
    };
    send(0..1000);
    dones.count(300).await;
    link.block();
    send(1000..2000);
    dones.count(2000).await;
    eventually(|| a.forwarder.stats().relayed_lanes == 4).await;
    assert!(a.forwarder.is_up(B));
    send(2000..2500);
    link.unblock();
    eventually(|| a.forwarder.stats().relayed_lanes == 0).await;
    send(2500..UNTIL);
    dones.count(UNTIL as usize).await;
    assert_eq!(cluster.node(B).sink.numbers(A, 0), Vec::from_iter(0..UNTIL), "once, and in order");
    assert_eq!(cluster.node(C).sink.got.lock().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_silent_under_way_is_given_up() {
    let cluster = Cluster::asleep(3, ForwardConfig::default()).await;
    let link = cluster.between(A, B).await;
    cluster.all_up_but_heard_by(B);
    let (a, dones) = (cluster.node(A), Dones::new());
    a.send(B, 0, 0, QoS::ExactlyOnce, dones.done(0)).unwrap();
    dones.count(1).await;
    link.hold();
    let began = std::time::Instant::now();
    a.send(B, 0, 1, QoS::ExactlyOnce, dones.done(1)).unwrap();
    dones.count(2).await;
    assert!(began.elapsed() < crate::peer::KEEP_ALIVE_TIMEOUT, "{:?}", began.elapsed());
    assert_eq!(a.forwarder.stats().relayed_lanes, 1);
    link.release();
    eventually(|| a.forwarder.stats().relayed_lanes == 0).await;
    a.send(B, 0, 2, QoS::ExactlyOnce, dones.done(2)).unwrap();
    dones.count(3).await;
    assert_eq!(cluster.node(B).sink.numbers(A, 0), [0, 1, 2], "what was under way comes once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_answers_nobody_is_busy_and_keeps_its_stream() {
    let config = ForwardConfig { grace_ms: 1, ..ForwardConfig::default() };
    let cluster = Cluster::start(3, config).await;
    let (a, dones) = (cluster.node(A), Dones::new());
    a.send(B, 0, 0, QoS::AtLeastOnce, dones.done(0)).unwrap();
    dones.count(1).await;
    eventually(|| a.forwarder.is_up(B)).await;
    cluster.proxy(B).hold();
    a.send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    let held = std::time::Instant::now();
    while held.elapsed() < crate::peer::KEEP_ALIVE_TIMEOUT.mul_f32(0.9) {
        assert!(a.forwarder.is_up(B), "given up after {:?}", held.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.proxy(B).release();
    dones.count(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_over_another_node_that_ends_is_replaced() {
    let config = ForwardConfig { grace_ms: 100, ..ForwardConfig::default() };
    let cluster = Cluster::asleep(4, config).await;
    let link = cluster.between(A, B).await;
    let (over_c, over_d) = (cluster.between(C, B).await, cluster.between(4, B).await);
    link.block();
    over_d.block();
    cluster.all_up_but_heard_by(B);
    let (a, dones) = (cluster.node(A), Dones::new());
    a.send(B, 0, 0, QoS::AtLeastOnce, dones.done(0)).unwrap();
    dones.count(1).await;
    over_d.unblock();
    over_c.block();
    a.send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    dones.count(2).await;
    // The end of the receiver's life is the end of its lanes, whichever way they went.
    cluster.node(B).forwarder.peer_down(B, 1);
    a.send(B, 0, 2, QoS::AtLeastOnce, dones.done(2)).unwrap();
    cluster.down(B, 1);
    assert_eq!(dones.count(3).await[2], (2, Err(PeerGone)));
    assert_eq!(cluster.node(B).sink.numbers(A, 0), [0, 1]);
}

#[tokio::test]
async fn a_lane_goes_by_way_of_one_node_at_most() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let hello = |sender| LaneHello {
        wire_version: WIRE_VERSION,
        sender_epoch: 1,
        receiver_epoch: 1,
        lane: 0,
        sender,
        receiver: C,
    };
    let mut client = way::client(cluster.channels[0].bulk(B).unwrap());
    for (sender, code) in [(4, tonic::Code::InvalidArgument), (A, tonic::Code::Unavailable)] {
        let first = LaneRequest { part: Some(Part::Hello(hello(sender))) };
        let refused = client.relay(tokio_stream::once(first)).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let config = ForwardConfig { queue_bytes: 20_000, queue_qos0_bytes: 10_000, ..ForwardConfig::default() };
    let cluster = Cluster::start(2, config).await;
    let a = cluster.node(A);
    cluster.proxy(B).block();
    eventually(|| !a.forwarder.is_up(B)).await;
    for number in 0..1000 {
        a.send(B, 0, number, QoS::AtMostOnce, None).unwrap();
    }
    let dropped = a.forwarder.stats().dropped_qos0;
    assert!(dropped > 0);
    let dones = Dones::new();
    let mut accepted = 0;
    while a.send(B, 1, accepted, QoS::AtLeastOnce, dones.done(accepted)).is_ok() {
        accepted += 1;
    }
    assert!(accepted > 50, "QoS 0 does not crowd out the rest: {accepted}");
    assert_eq!(a.send(B, 1, accepted, QoS::AtLeastOnce, None), Err(SendError::Congested));
    assert_eq!(a.forwarder.stats().congested, 2);
    assert!(a.forwarder.stats().queued_bytes < 20_000 + 100);

    cluster.proxy(B).unblock();
    dones.count(accepted as usize).await;
    cluster.node(B).sink.count((1000 - dropped + accepted) as usize).await;
    assert!(cluster.node(B).sink.numbers(A, 0).iter().copied().eq(0..1000 - dropped));
    eventually(|| a.forwarder.stats().queued_bytes == 0).await;
    a.send(B, 1, accepted, QoS::AtLeastOnce, None).unwrap();
}

#[tokio::test]
async fn a_barrier_holds_its_lane_and_no_other() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let (a, b) = (cluster.node(A), cluster.node(B));
    let dones = Dones::new();
    a.send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    a.send_after(10, B, 0, 2, QoS::AtLeastOnce, dones.done(2)).unwrap();
    a.send(B, 0, 3, QoS::AtLeastOnce, dones.done(3)).unwrap();
    // What came before the barrier is acknowledged without it.
    assert_eq!(dones.count(1).await, [(1, Ok(()))]);
    a.send(B, 1, 9, QoS::AtLeastOnce, dones.done(9)).unwrap();
    dones.count(2).await;
    b.applied.send_replace(9);
    a.send(B, 1, 10, QoS::AtLeastOnce, dones.done(10)).unwrap();
    dones.count(3).await;
    assert_eq!(b.sink.numbers(A, 0), [1]);
    b.applied.send_replace(10);
    dones.count(5).await;
    assert_eq!(b.sink.numbers(A, 0), [1, 2, 3]);
}

#[tokio::test]
async fn a_held_lane_survives_a_broken_connection() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let (a, b) = (cluster.node(A), cluster.node(B));
    let dones = Dones::new();
    a.send(B, 0, 1, QoS::AtLeastOnce, dones.done(1)).unwrap();
    a.send_after(10, B, 0, 2, QoS::AtLeastOnce, dones.done(2)).unwrap();
    a.send(B, 0, 3, QoS::AtLeastOnce, dones.done(3)).unwrap();
    dones.count(1).await;
    cluster.proxy(B).cut();
    a.send(B, 1, 9, QoS::AtLeastOnce, dones.done(9)).unwrap();
    dones.count(2).await;
    b.applied.send_replace(11);
    dones.count(4).await;
    assert_eq!(b.sink.numbers(A, 0), [1, 2, 3]);
}

#[tokio::test]
async fn held_lanes_leave_the_connection_to_the_others() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    let (a, b) = (cluster.node(A), cluster.node(B));
    let payload = vec![1; 128 << 10];
    for lane in 0..3 {
        for _ in 0..60 {
            let frame =
                Frame { publication: publication(&payload, QoS::AtLeastOnce), barrier: 10, share: None };
            a.forwarder.send(B, lane, frame, None).unwrap();
        }
    }
    let dones = Dones::new();
    for number in 0..60 {
        let frame = Frame { publication: publication(&payload, QoS::AtLeastOnce), barrier: 0, share: None };
        a.forwarder.send(B, 3, frame, dones.done(number)).unwrap();
    }
    dones.count(60).await;
    b.applied.send_replace(10);
    b.sink.count(240).await;
}

#[tokio::test]
async fn shutting_down_completes_what_waits() {
    let network = Network::of(1).await;
    let (shutdown, stop) = watch::channel(false);
    let channels = network.channels[0].clone();
    let forwarder = Forwarder::start(ForwardConfig::default(), A, Arc::new(channels), stop);
    forwarder.peer_up(A, 1);
    forwarder.peer_up(B, 1);
    let dones = Dones::new();
    let frame = Frame { publication: publication(b"x", QoS::AtLeastOnce), barrier: 0, share: None };
    forwarder.send(B, 0, frame, dones.done(1)).unwrap();
    shutdown.send_replace(true);
    assert_eq!(dones.count(1).await, [(1, Err(PeerGone))]);
}

/// Prints what one lane carries; the figure means little in a debug build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_note() {
    let cluster = Cluster::start(2, ForwardConfig::default()).await;
    const FRAMES: u64 = 50_000;
    let payload = [0; 64];
    let began = std::time::Instant::now();
    for _ in 0..FRAMES {
        let frame = Frame { publication: publication(&payload, QoS::AtLeastOnce), barrier: 0, share: None };
        cluster.node(A).forwarder.send(B, 0, frame, None).unwrap();
    }
    cluster.node(B).sink.count(FRAMES as usize).await;
    let per_s = FRAMES as f64 / began.elapsed().as_secs_f64();
    println!("one lane: {per_s:.0} frames of 64 B per second");
}
