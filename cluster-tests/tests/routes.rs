//! SUBACK means: a publish to any node from now on reaches this subscriber.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options, Props, Publish, Version, subscribe};

const ROUNDS: usize = 10_000;

/// Rounds run side by side, each on connections of its own.
const WORKERS: usize = 16;

/// A QoS 0 publish that was sent has nothing to wait for on its way but the peer's stream.
const ARRIVES: Duration = Duration::from_secs(5);

/// Subscribes to fresh filters on one node, and the instant SUBACK is in, publishes on another.
fn work(cluster: &Cluster, worker: usize, next: &AtomicUsize, missed: &AtomicUsize) {
    let (to, from) = (worker % 3, (worker + 1 + worker / 3 % 2) % 3);
    let qos = (worker % 2) as u8;
    let mut subscriber =
        Client::connect(cluster.mqtt(1 + to), &Options::v5(&fresh("sub"))).expect("connects");
    let mut publisher =
        Client::connect(cluster.mqtt(1 + from), &Options::v5(&fresh("pub"))).expect("connects");
    loop {
        let round = next.fetch_add(1, Ordering::Relaxed);
        if round >= ROUNDS {
            return;
        }
        let topic = format!("route/{round}");
        // Every third with a wildcard: the two kinds live in different indexes.
        let filter = if round.is_multiple_of(3) { format!("{topic}/+") } else { format!("{topic}/x") };
        subscriber.subscribe(&[(&filter, qos)]).expect("SUBACK");
        let id = if qos > 0 { publisher.take_id() } else { 0 };
        let message = Publish {
            topic: format!("{topic}/x"),
            payload: round.to_string().into_bytes(),
            qos,
            retain: false,
            dup: false,
            id,
            props: Props::default(),
        };
        publisher.send_publish(&message).expect("sent");
        match subscriber.recv(ARRIVES) {
            Ok(got) => assert_eq!(got.text(), round.to_string()),
            Err(Error::Timeout) => {
                missed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("n{}: {error}", 1 + to),
        }
        if qos > 0 {
            assert_eq!(publisher.next_puback(ARRIVES).expect("PUBACK").code, 0);
        }
        if round.is_multiple_of(2) {
            subscriber.unsubscribe(&[&filter]).expect("UNSUBACK");
        }
    }
}

#[test]
fn a_publish_on_another_node_after_suback_is_never_missed() {
    let cluster = Arc::new(Cluster::start(3));
    let (next, missed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (cluster, next, missed) = (Arc::clone(&cluster), Arc::clone(&next), Arc::clone(&missed));
            std::thread::spawn(move || work(&cluster, worker, &next, &missed))
        })
        .collect();
    let ended: Vec<_> = workers.into_iter().map(std::thread::JoinHandle::join).collect();
    assert!(ended.iter().all(Result::is_ok), "a worker failed");
    assert_eq!(missed.load(Ordering::Relaxed), 0, "missed of {ROUNDS}");
}

#[test]
fn a_second_subscriber_on_the_node_waits_for_the_route_too() {
    let cluster = Cluster::start(3);
    let connect = |node| Client::connect(cluster.mqtt(node), &Options::v5(&fresh("c"))).expect("connects");
    let (mut first, mut second, mut publisher) = (connect(1), connect(1), connect(2));
    for round in 0..200 {
        let topic = fresh("second");
        let with = Props::default();
        // Both on their way at once: the second finds a route that is being added.
        first.send(&subscribe(Version::V5, 1, &[(&topic, 0)], &with)).expect("sent");
        second.subscribe(&[(&topic, 0)]).expect("SUBACK");
        publisher.publish(&topic, round.to_string(), 0).expect("sent");
        assert_eq!(second.recv(ARRIVES).expect("not missed").text(), round.to_string());
        // It may have subscribed after the publish, so only its SUBACK is certain.
        assert_eq!(first.await_suback(1).expect("SUBACK"), [0]);
    }
}
