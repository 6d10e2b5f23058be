//! A subscription gets all retained messages, however many there are and however slowly its client
//! takes them, and nobody else waits for that.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{AckKind, Client, Options, Prop, Props, Publish, Version, prop, publish};
use cluster_tests::wait;

const COUNT: usize = 100_000;

/// Retained publishes that a publisher has in flight.
const IN_FLIGHT: usize = 1000;

/// For a message to come to a client that waits for it, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(60);

/// What a crowd of clients beside it may cost a message on a machine with few cores.
const CROWDED: Duration = Duration::from_millis(250);

fn topic(i: usize) -> String {
    format!("plant/{}/{}/{i}", i % 7, i % 1000)
}

/// The QoS at which the message was published.
fn qos(i: usize) -> u8 {
    if i.is_multiple_of(20) { 2 } else { 1 }
}

fn retained(i: usize, id: u16) -> Publish {
    let (topic, payload) = (topic(i), i.to_string().into());
    Publish { topic, payload, qos: qos(i), retain: true, dup: false, id, props: Props::default() }
}

fn connect(cluster: &Cluster, node: usize, options: &Options) -> Client {
    Client::connect(cluster.mqtt(node), options).expect("connects")
}

/// Retains a message on so many topics, from all nodes at once.
fn retain_all(cluster: &Cluster) {
    thread::scope(|scope| {
        for node in 1..=3 {
            scope.spawn(move || {
                let mut client = connect(cluster, node, &Options::v311(&fresh("loader")));
                let mine: Vec<usize> = (node - 1..COUNT).step_by(3).collect();
                for some in mine.chunks(IN_FLIGHT) {
                    let open: Vec<_> = some.iter().map(|i| (*i, client.take_id())).collect();
                    let packets = open.iter().map(|(i, id)| publish(Version::V311, &retained(*i, *id)));
                    client.send(&packets.collect::<Vec<_>>().concat()).expect("sent");
                    // They come in the order of the publishes.
                    for (i, id) in &open {
                        let kind = if qos(*i) == 2 { AckKind::PubRec } else { AckKind::PubAck };
                        assert_eq!(client.await_ack(kind, *id).expect("acknowledged"), 0);
                    }
                    for (_, id) in open.iter().filter(|(i, _)| qos(*i) == 2) {
                        client.send_ack(AckKind::PubRel, *id).expect("sent");
                        client.await_ack(AckKind::PubComp, *id).expect("released");
                    }
                }
            });
        }
    });
}

/// A subscriber of everything.
struct Reader {
    name: &'static str,
    node: usize,
    qos: u8,
    options: Options,
    /// Messages that it takes between two pauses.
    pace: usize,
    /// Where it goes on, after half of them.
    moves_to: Option<usize>,
}

impl Reader {
    /// Takes what there is, each message once but for what QoS 1 may repeat after a move.
    fn run(self, cluster: &Cluster) -> Duration {
        let mut client = connect(cluster, self.node, &self.options);
        let began = Instant::now();
        assert_eq!(client.subscribe(&[("#", self.qos)]).expect("SUBACK"), [self.qos]);
        let (mut seen, mut moves_to) = (BTreeSet::new(), self.moves_to);
        while seen.len() < COUNT {
            let message =
                client.recv(SOON).unwrap_or_else(|e| panic!("{}: {e} after {}", self.name, seen.len()));
            if message.topic.starts_with("ping/") {
                continue;
            }
            assert!(message.retain, "{}: {}", self.name, message.topic);
            let i: usize = message.text().parse().expect("a number");
            assert_eq!((message.topic, message.qos), (topic(i), self.qos.min(qos(i))), "{}", self.name);
            // Only what was open when the client moved may come again.
            let repeats = self.moves_to != moves_to && message.dup;
            assert!(seen.insert(i) || repeats, "{}: {i} twice", self.name);
            if seen.len().is_multiple_of(self.pace) {
                wait::pause();
            }
            if let Some(node) = moves_to.filter(|_| seen.len() == COUNT / 2) {
                let received = client.crash();
                client = connect(cluster, node, &self.options);
                assert!(client.session_present);
                client.received = received;
                moves_to = None;
            }
        }
        began.elapsed()
    }
}

/// Sends messages to and fro between two nodes, one at a time, while `going`; the times they take.
fn ping_pong(cluster: &Cluster, topic: &str, going: &AtomicBool) -> Vec<Duration> {
    let mut sink = connect(cluster, 1, &Options::v5(&fresh("sink")));
    let mut source = connect(cluster, 2, &Options::v5(&fresh("source")));
    sink.subscribe(&[(topic, 0)]).expect("SUBACK");
    let mut times = Vec::new();
    while going.load(Ordering::Relaxed) {
        let sent = Instant::now();
        source.publish(topic, "x", 0).expect("sent");
        sink.recv(SOON).expect("a message");
        times.push(sent.elapsed());
    }
    times
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn all_of_them_come_to_every_subscriber_while_others_keep_their_latency() {
    let cluster = Cluster::start(3);
    let began = Instant::now();
    retain_all(&cluster);
    println!("{COUNT} messages retained in {:.1?}", began.elapsed());

    let going = AtomicBool::new(true);
    let quiet = thread::scope(|scope| {
        let pair = scope.spawn(|| ping_pong(&cluster, "ping/quiet", &going));
        wait::pass(Duration::from_secs(1));
        going.store(false, Ordering::Relaxed);
        pair.join().expect("ends")
    });

    let clean = || Options::v5(&fresh("clean"));
    let kept = || Options::v5(&fresh("kept")).persistent();
    let fast =
        |name, node, qos, options| Reader { name, node, qos, options, pace: usize::MAX, moves_to: None };
    let small_window = clean().prop(prop::RECEIVE_MAXIMUM, Prop::U16(20));
    let readers = [
        fast("clean at QoS 0", 1, 0, clean()),
        fast("clean at QoS 2", 2, 2, clean()),
        fast("persistent at QoS 0", 3, 0, kept()),
        Reader { moves_to: Some(3), ..fast("persistent at QoS 2, moving", 1, 2, kept()) },
        Reader { pace: 1000, ..fast("clean at QoS 0, slow", 3, 0, clean()) },
        Reader { pace: 1000, ..fast("clean at QoS 1 with a small window", 2, 1, small_window) },
    ];
    going.store(true, Ordering::Relaxed);
    let busy = thread::scope(|scope| {
        let pair = scope.spawn(|| ping_pong(&cluster, "ping/busy", &going));
        let readers = readers.map(|reader| {
            let cluster = &cluster;
            scope.spawn(move || (reader.name, reader.run(cluster)))
        });
        let ended: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        going.store(false, Ordering::Relaxed);
        for reader in ended {
            let (name, took) = reader.expect("a reader failed");
            println!("{name}: {took:.1?}");
        }
        pair.join().expect("ends")
    });
    let (quiet, busy) = (p99(quiet), p99(busy));
    println!("99 % of the others' messages within {quiet:.1?} when quiet, {busy:.1?} meanwhile");
    assert!(busy <= 10 * quiet + CROWDED, "{quiet:?} when quiet, {busy:?} meanwhile");
}
