//! A cluster whose state and log grow: snapshots, restarts, and sessions that come and go.
//!
//! `scripts/growth` does the same with a million sessions, and prints the figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::growth::{Arenas, Grown, churn};
use cluster_tests::load::Sessions;
use cluster_tests::mqtt::{Client, Options};
use cluster_tests::traffic::{Collector, Traffic};
use cluster_tests::wait::within;

const DRAIN: Duration = Duration::from_secs(60);

/// The least that a node can be told: a node that is away soon needs a snapshot.
const SMALL: &str = "snapshot_log_bytes = 1048576\nkept_log_bytes = 1048576\n";

/// The longest that publishers may be without an acknowledgement while another node is down or
/// catches up. Far below what an election would take them, far above what a busy machine does.
const GAP: Duration = Duration::from_secs(2);

/// Looks at how long the publishers are without any acknowledgement, until told to stop.
fn longest_gap(traffic: &Traffic, stop: &AtomicBool) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, (traffic.acked(), Instant::now()));
    let _ = within(Duration::from_secs(300), || {
        let acked = traffic.acked();
        longest = longest.max(last.1.elapsed());
        if acked > last.0 {
            last = (acked, Instant::now());
        }
        stop.load(Ordering::Relaxed).then_some(())
    });
    longest
}

#[test]
fn a_follower_far_behind_catches_up_by_snapshot_while_the_others_serve() {
    let mut cluster = Cluster::start_with(3, SMALL);
    let (leader, away) = (cluster.leader(), cluster.follower(&[]));
    let third = cluster.follower(&[away]);
    let serving = [cluster.mqtt(leader), cluster.mqtt(third)];
    let brokers = cluster.mqtt_all();
    let crowd = Sessions { brokers, prefix: fresh("crowd"), expiry_s: 3600, at_work: 64 };
    crowd.make(0..1_000).expect("the sessions are made");

    // A session whose client leaves, and whose queue fills while the follower is down.
    let (options, topic) = (Options::v5(&fresh("absent")).persistent(), fresh("absent"));
    let mut absent = Client::connect(cluster.mqtt(away), &options).expect("connects");
    assert_eq!(absent.subscribe(&[(&topic, 1)]).expect("SUBACK"), [1]);
    absent.disconnect().expect("leaves");

    let prefixes = [fresh("load"), fresh("load")];
    let mut collectors = prefixes.each_ref().map(|prefix| Collector::subscribe(cluster.mqtt(leader), prefix));
    let traffic: Vec<Traffic> =
        prefixes.iter().zip(serving).map(|(prefix, at)| Traffic::start(prefix, &[at], 1)).collect();
    traffic.iter().for_each(|traffic| traffic.wait_more(50));

    let (stop, mut texts) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        let watches: Vec<_> =
            traffic.iter().map(|traffic| scope.spawn(|| longest_gap(traffic, &stop))).collect();
        cluster.kill9(away);
        let mut publisher = Client::connect(serving[1], &Options::v5(&fresh("pub"))).expect("connects");
        let (bulk, retained) = ("x".repeat(60_000), fresh("retained"));
        for number in 0..200 {
            let text = format!("{number} {bulk}");
            assert_eq!(publisher.retain(&retained, &text, 1).expect("acknowledged"), 0);
            if number % 10 == 0 {
                assert_eq!(publisher.publish(&topic, &text, 1).expect("acknowledged"), 0);
                texts.push(text);
            }
        }
        crowd_of(&serving, &crowd).make(1_000..1_500).expect("the sessions are made");
        cluster.restart(away);
        traffic.iter().for_each(|traffic| traffic.wait_more(50));
        stop.store(true, Ordering::Relaxed);
        for watch in watches {
            let gap = watch.join().expect("a watch that ends");
            println!("longest time without an acknowledgement: {gap:?}");
            assert!(gap < GAP, "no acknowledgement for {gap:?}");
        }
    });
    assert_eq!(cluster.metric(away, "rookery_snapshots_received_total"), 1.0, "it caught up by snapshot");

    // The follower has what the others have, and serves it.
    let mut absent = Client::connect(cluster.mqtt(away), &options).expect("connects");
    assert!(absent.session_present);
    let got = absent.texts(texts.len(), DRAIN).expect("all there");
    assert!(got == texts, "{} messages, others than were published", got.len());
    for number in [0, 999, 1_000, 1_499] {
        let client = Client::connect(cluster.mqtt(away), &crowd.options(number)).expect("connects");
        assert!(client.session_present, "session {number}");
        client.disconnect().expect("leaves");
    }
    for (traffic, collector) in traffic.into_iter().zip(&mut collectors) {
        let acked = traffic.stop();
        collector.expect_all(&acked, &[cluster.mqtt(away)], DRAIN);
    }
    let sessions = |i| cluster.metric(i, "rookery_persistent_sessions");
    assert_eq!(sessions(away), 1_503.0);
    assert_eq!(sessions(leader), 1_503.0);
}

/// The same sessions, made at other nodes.
fn crowd_of(brokers: &[std::net::SocketAddr], crowd: &Sessions) -> Sessions {
    Sessions { brokers: brokers.to_vec(), ..crowd.clone() }
}

#[test]
fn a_restart_brings_every_session_back_from_snapshot_and_log() {
    let mut grown = Grown::make(10_000);
    let restarted = grown.restart();
    println!("{restarted:?}");
}

#[test]
fn memory_does_not_grow_with_sessions_that_are_over() {
    let churned = churn(Arenas::One, 8, 3_000);
    churned.samples.iter().for_each(|sample| println!("{sample:?}"));
    let growth = churned.bytes_per_session(2);
    // What a session leaves behind is its name at least, and would be eighty bytes and more.
    assert!(growth < 40.0, "{growth:.1} B of memory for each session that came and went");
}
