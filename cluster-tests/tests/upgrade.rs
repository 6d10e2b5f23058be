//! Nodes are restarted one after the other, as for an upgrade, and clients of the others notice
//! nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::mqtt::{Client, Options, Version};
use cluster_tests::traffic::{Collector, Traffic};
use cluster_tests::{fresh, http, wait};

/// For everything acknowledged to reach a subscriber that is back.
const DRAIN: Duration = Duration::from_secs(60);
/// The longest that a message between two clients of one node may take while another one restarts:
/// generous towards a busy machine, and less than what a lease or an election without a farewell
/// takes.
const UNNOTICED: Duration = Duration::from_millis(1500);

/// Two clients of one node that go on talking to each other at QoS 1.
struct Pair {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration, String>>,
}

impl Pair {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let topic = fresh("pair");
        let mut subscriber =
            Client::connect(address, &Options::new(Version::V311, &fresh("left"))).expect("connects");
        subscriber.subscribe(&[(&topic, 1)]).expect("SUBACK");
        let mut publisher = Client::connect(address, &Options::v5(&fresh("right"))).expect("connects");
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let code = publisher.publish(&topic, "ping", 1).map_err(|error| error.to_string())?;
                if code != 0 {
                    return Err(format!("PUBACK {code:#04x}"));
                }
                subscriber.recv(DRAIN).map_err(|error| error.to_string())?;
                longest = longest.max(begun.elapsed());
                wait::pause();
            }
            Ok(longest)
        });
        Self { stop, thread }
    }

    /// The longest that a message took from PUBLISH to both ends.
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let talked = self.thread.join().expect("no panic");
        talked.unwrap_or_else(|error| panic!("a client of a node that was not touched noticed: {error}"))
    }
}

#[test]
fn a_rolling_restart_under_load_loses_nothing_and_clients_of_other_nodes_do_not_notice() {
    let mut cluster = Cluster::start(3);
    let addresses = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(2), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 4);
    traffic.wait_more(200);
    // The leader last, as operators do.
    let leader = cluster.leader();
    for restarted in (1..=3).filter(|i| *i != leader).chain([leader]) {
        let others: Vec<usize> = (1..=3).filter(|i| *i != restarted).collect();
        let pairs: Vec<Pair> = others.iter().map(|i| Pair::start(cluster.mqtt(*i))).collect();
        traffic.wait_more(100);
        cluster.node(restarted).signal("TERM");
        cluster.node(restarted).wait_exit();
        collector.collect(Duration::from_millis(200));
        traffic.wait_more(200);
        cluster.restart(restarted);
        traffic.wait_more(200);
        for pair in pairs {
            let longest = pair.stop();
            assert!(longest <= UNNOTICED, "a message took {longest:?} while n{restarted} restarted");
        }
        collector.collect(Duration::from_millis(200));
    }
    let acked = traffic.stop();
    collector.expect_all(&acked, &addresses, DRAIN);
}

#[test]
fn a_cluster_agrees_on_what_its_members_understand() {
    let cluster = Cluster::start(3);
    for i in 1..=3 {
        wait::eventually("a feature level", DRAIN, || {
            let (_, body) = http::get(cluster.api(i), "/api/v1/cluster").ok()?;
            let status: serde_json::Value = serde_json::from_str(&body).ok()?;
            (status["feature_level"] == 1).then_some(())
        });
    }
}
