//! Rule 5, declared down but alive. A node that learns of its own NodeDown closes all its
//! connections (0x8B; 3.x: close) and returns under a new epoch; a lease regained before NodeDown
//! committed merely unfences.

use super::*;

/// B was silent for too long and is declared down; then it goes on, and applies that. Fails if
/// `carry_out` ignores its own `NodeDown`.
#[tokio::test]
async fn who_learns_of_its_end_closes_all_connections_and_comes_back() {
    let mut bench = Bench::start(2).await;
    let mut clean = bench.subscriber(B, "clean", 0, "t", Q1).await;
    let mut kept = bench.subscriber(B, "kept", KEPT, "t", Q1).await;
    let old = Connect { client_id: "old", ..Connect::new(Version::V311) };
    let mut old = bench.connected(B, &old).await;
    let mut publisher = bench.client(A, "publisher", 0).await;

    bench.declare_down(A, B, 1);
    let index = bench.commit(A);
    bench.apply(A, index);
    assert!(!clean.is_closed(), "it does not know yet");
    publisher.publish("t", "while away", Q1);
    bench.settle().await;
    assert_eq!(publisher.take(), ["PUBACK 1 00"], "queued for the persistent session");
    for client in [&mut clean, &mut kept] {
        assert_eq!(client.take(), ["DISCONNECT 8b"], "and nothing after its end");
        assert!(client.is_closed());
    }
    assert!(old.take().is_empty() && old.is_closed());
    assert_eq!(bench.node(B).reborn.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(!bench.node(B).lease.is_valid() && bench.broker(B).clients().is_empty());
    assert_eq!(bench.broker(B).local_filters(), 0);

    bench.begin_life(B);
    bench.settle().await;
    assert_eq!(bench.status(A, B).epoch, 2);
    let mut kept = bench.client(B, "kept", KEPT).await;
    bench.settle().await;
    assert_eq!(kept.take(), ["PUBLISH t while away q1 id 1"]);
    // The clean session's route has not come back with it.
    assert!(bench.broker(A).state().route_nodes("t").is_empty());
}

/// What B proposed in its old life and what stands behind its NodeDown in the log changes nothing,
/// and nobody is told that it did; what stands before it counts.
#[tokio::test]
async fn what_comes_after_the_end_in_the_log_is_void() {
    for before in [true, false] {
        let mut bench = Bench::start(3).await;
        let mut kept = bench.subscriber(C, "kept", KEPT, "t", Q1).await;
        let mut publisher = bench.client(B, "publisher", 0).await;
        publisher.publish("t", "x", Q1);
        bench.declare_down(A, B, 1);
        let order = if before { [B, A] } else { [A, B] };
        for node in order {
            bench.commit(node);
        }
        bench.settle().await;
        let told = publisher.take();
        assert_eq!(told.contains(&"PUBACK 1 00".into()), before, "{told:?}");
        assert_eq!(told.last().map(String::as_str), Some("DISCONNECT 8b"));
        assert_eq!(kept.take().len(), usize::from(before));
    }
}

/// The loop of a connection on B has read several publishes, and stands still between two of them while
/// B's life ends and the next begins. Those before are void, and the client sends them again; what comes
/// after them in the same bytes must not overtake them in the new life. Fails if `close_all` does not end
/// the publisher's order.
#[tokio::test]
async fn what_was_read_in_a_life_is_not_published_in_the_next() {
    for path in ["logged", "direct"] {
        let mut bench = Bench::start(3).await;
        let expiry_s = if path == "logged" { KEPT } else { 0 };
        let mut subscriber = bench.subscriber(C, "subscriber", expiry_s, "t", Q1).await;
        let publisher = bench.client(B, "publisher", 0).await;
        let conn = publisher.conn.clone();
        bench.declare_down(A, B, 1);
        bench.settle().await;
        bench.begin_life(B);
        bench.settle().await;
        assert!(bench.broker(B).is_alive());
        let rest = Publication {
            topic: "t",
            payload: b"x",
            properties: &[],
            qos: Q1,
            retain: false,
            expires_at_ms: 0,
            publisher: "publisher",
        };
        session::turn(|| bench.broker(B).publish_from(&conn, &rest, None, 1));
        bench.settle().await;
        assert!(subscriber.take().is_empty(), "{path}");
    }
}

/// B's lease lapses and comes back before anybody has committed its end: its connections stay, and
/// go on where they were. Fails if the lapse of a lease alone ended a life.
#[tokio::test]
async fn a_lease_regained_in_time_costs_no_connection() {
    let mut bench = Bench::start(2).await;
    let mut kept = bench.subscriber(B, "kept", KEPT, "t", Q1).await;
    let mut clean = bench.subscriber(B, "clean", 0, "t", Q0).await;
    bench.node(B).lease.lapse();
    // QoS 0 goes on among its own clients meanwhile.
    clean.publish("t", "meanwhile", Q0);
    assert_eq!(clean.take(), ["PUBLISH t meanwhile q0 id 0"]);
    kept.take();
    bench.node(B).lease.grant();
    bench.settle().await;
    clean.publish("t", "after", Q1);
    bench.settle().await;
    assert_eq!(clean.take(), ["PUBLISH t after q0 id 0", "PUBACK 2 00"]);
    assert_eq!(kept.take(), ["PUBLISH t after q1 id 1"]);
    assert_eq!(bench.node(B).reborn.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(bench.status(A, B).epoch, 1);
}
