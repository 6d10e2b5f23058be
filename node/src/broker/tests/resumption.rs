//! Rule 8, resumption. `apply` accepts entries only of the origin's current epoch, opened by NodeUp
//! at sequence 0 (walked in `state`). Stream state is keyed by (sender epoch, receiver epoch, lane);
//! when either ends, unacknowledged frames are discarded and their PUBACKs complete once NodeDown or
//! NodeUp has applied at the sender. What breaks and resumes within two lives is walked in
//! `peer::forward`.

use super::*;

/// A frame for B is under way when B's life ends, by a NodeDown or by its own new start. A's
/// publisher gets its PUBACK when A applies that, not before: the subscriber is gone with B's life.
/// Fails if `Forwarder::peer_down`, or `peer_up` with a newer epoch, does not complete what waits.
#[tokio::test]
async fn a_publish_to_a_life_that_ends_is_acknowledged_when_that_is_applied() {
    for restarted in [false, true] {
        let mut bench = Bench::start(3).await;
        let _reader = bench.subscriber(B, "reader", 0, "t", Q1).await;
        let mut publisher = bench.client(A, "publisher", 0).await;
        bench.proxy(B).block();
        publisher.publish("t", "x", Q1);
        assert!(bench.waiting(A).is_empty());
        let index = if restarted {
            bench.begin_life(B);
            bench.commit(B)
        } else {
            bench.declare_down(C, B, 1);
            bench.commit(C)
        };
        bench.apply(C, index);
        assert!(publisher.take().is_empty(), "A has not applied it");
        bench.apply(A, index);
        assert_eq!(publisher.take(), ["PUBACK 1 00"], "restarted {restarted}");
    }
}

/// B's life ends and another begins while a frame of A for the old one is on the wire. It means
/// nothing in the new life: no client of it gets the message. Fails if `Inbound::begin` and
/// `end` keep the lanes, or `close_all` the index of subscriptions.
#[tokio::test]
async fn a_frame_for_an_older_life_reaches_nobody_in_the_new_one() {
    let mut bench = Bench::start(3).await;
    let _old = bench.subscriber(B, "old", 0, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    bench.proxy(B).hold();
    publisher.publish("t", "old", Q1);
    // A applies nothing of what follows: for it the frame is still under way.
    bench.node_mut(A).paused = true;
    bench.declare_down(C, B, 1);
    bench.settle().await;
    bench.begin_life(B);
    bench.settle().await;
    let mut new = bench.client(B, "new", 0).await;
    new.subscribe("t", Q1);
    bench.settle().await;
    bench.proxy(B).release();
    eventually(|| !bench.node(A).forwarder.is_up(B)).await;
    assert!(publisher.take().is_empty());
    bench.node_mut(A).paused = false;
    bench.settle().await;
    assert_eq!(publisher.take(), ["PUBACK 1 00"]);
    assert_eq!(new.take(), ["SUBACK 1"]);
    publisher.publish("t", "new", Q1);
    assert_eq!(new.wait(1).await, ["PUBLISH t new q1 id 1"]);
}

/// A's own life ends with a frame under way: its publisher is closed, and not told that it was
/// taken over.
#[tokio::test]
async fn the_end_of_the_senders_life_acknowledges_nothing() {
    let mut bench = Bench::start(2).await;
    let _reader = bench.subscriber(B, "reader", 0, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    bench.proxy(B).block();
    publisher.publish("t", "x", Q1);
    bench.node(A).lease.lapse();
    bench.declare_down(B, A, 1);
    bench.settle().await;
    let told = publisher.take();
    assert!(!told.contains(&"PUBACK 1 00".into()), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("DISCONNECT 8b"));
}
