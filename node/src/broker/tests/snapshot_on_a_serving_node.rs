//! Rule 6, a snapshot installed on a serving node equals a restart: fence, close, new epoch, NodeUp.

use super::*;

/// B serves and falls behind; what it has missed was delivered by `apply` to others and is lost to
/// B's connections: a logged publish for its clean subscriber, a takeover of its client. B gets a
/// snapshot instead of the entries. Fails if `Applier::install` does not end the life.
#[tokio::test]
async fn who_skips_entries_begins_anew() {
    let mut bench = Bench::start(3).await;
    let mut clean = bench.subscriber(B, "clean", 0, "t", Q1).await;
    let mut taken = bench.client(B, "taken", KEPT).await;
    let mut kept = bench.subscriber(B, "kept", KEPT, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;

    bench.node_mut(B).paused = true;
    let _new_owner = bench.client(C, "taken", KEPT).await;
    publisher.publish("t", "missed", Q1);
    bench.settle().await;
    bench.install(B, A);
    for client in [&mut clean, &mut taken, &mut kept] {
        assert_eq!(client.take(), ["DISCONNECT 8b"]);
        assert!(client.is_closed());
    }
    assert!(!bench.node(B).lease.is_valid());
    assert_eq!(bench.node(B).reborn.load(std::sync::atomic::Ordering::Relaxed), 1);
    let connect = Connect { client_id: "early", ..Connect::new(Version::V5) };
    assert_eq!(bench.dial(B, &connect).take(), ["CONNACK 88"]);

    bench.node_mut(B).paused = false;
    bench.begin_life(B);
    bench.settle().await;
    assert_eq!(bench.status(A, B).epoch, 2);
    assert!(bench.broker(A).state().route_nodes("t").is_empty(), "of the life before");
    let mut kept = bench.client(B, "kept", KEPT).await;
    bench.settle().await;
    assert_eq!(kept.take(), ["PUBLISH t missed q1 id 1 dup"], "nothing of a session is lost");
    let owner = bench.broker(B).state().owner("taken").map(|(node, ..)| node);
    assert_eq!(owner, Some(C));
    assert!(bench.snapshot(A) == bench.snapshot(B));
    assert!(bench::state_of(&bench.snapshot(B)).knows_the_time(B));
}

/// B starts, and is so far behind that it gets a snapshot in which its start is committed already: it
/// will never apply that, and serves nobody unless it begins anew. Fails if `Applier::install` looks
/// only at whether this life has begun here.
#[tokio::test]
async fn who_skips_its_own_start_begins_anew() {
    let mut bench = Bench::start(3).await;
    bench.begin_life(B);
    let index = bench.commit(B);
    bench.apply(A, index);
    assert_eq!(bench.status(A, B).epoch, 2);
    bench.node_mut(B).paused = true;
    bench.install(B, A);
    assert_eq!(bench.node(B).reborn.load(std::sync::atomic::Ordering::Relaxed), 1);

    bench.node_mut(B).paused = false;
    bench.begin_life(B);
    bench.settle().await;
    assert_eq!(bench.status(A, B).epoch, 3);
    let _served = bench.client(B, "served", 0).await;
}
