//! Rule 3, leases, as far as the broker keeps it: a node checks its lease after matching,
//! immediately before each acknowledgement. How leases are granted, refused and given up is walked
//! in `peer::lease`, with a driven table (`table`, its proptest included), with leaders and quorums
//! that do as the test says (`tests`), and for what counts from when at the node in `client`.

use super::*;

/// A's client publishes at QoS 1 to B's subscriber. While the frame is under way A's lease lapses;
/// B takes the frame over and says so. A must not acknowledge: it may have been declared down, and
/// the subscriber may be elsewhere by now. Fails if `Broker::acknowledge` does not ask the lease.
#[tokio::test]
async fn a_forward_that_is_taken_over_is_not_acknowledged_without_a_lease() {
    let mut bench = Bench::start(2).await;
    let mut reader = bench.subscriber(B, "reader", 0, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    bench.proxy(B).hold();
    publisher.publish("t", "x", Q1);
    bench.node(A).lease.lapse();
    bench.proxy(B).release();
    assert_eq!(reader.wait(1).await, ["PUBLISH t x q1 id 1"]);
    eventually(|| bench.node(A).forwarder.stats().queued_bytes == 0).await;
    assert!(!publisher.take().contains(&"PUBACK 1 00".into()));
}

/// A's client publishes at QoS 1 to B's subscriber, then something retained, which must not overtake
/// the first. The frame is taken over while A's lease is away, of which nobody knew when the second was
/// read. With the lease back it goes on. Fails if `Broker::drain_held` puts it back and nothing more.
#[tokio::test]
async fn what_waited_for_a_forward_goes_on_with_the_lease() {
    let mut bench = Bench::with_patience(2, u64::from(u32::MAX)).await;
    let mut reader = bench.subscriber(B, "reader", 0, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    bench.proxy(B).hold();
    publisher.publish("t", "x", Q1);
    publisher.retain("u", "y", Q1);
    bench.node(A).lease.lapse();
    bench.proxy(B).release();
    assert_eq!(reader.wait(1).await, ["PUBLISH t x q1 id 1"]);
    eventually(|| bench.node(A).forwarder.stats().queued_bytes == 0).await;
    assert!(publisher.take().is_empty());
    assert!(bench.waiting(A).is_empty());
    bench.node(A).lease.grant();
    bench.broker(A).look_at_lease();
    session::flush();
    assert_eq!(publisher.wait(1).await, ["PUBACK 1 00"]);
    assert!(matches!(&bench.waiting(A)[..], [Command::Publish { message, .. }] if &*message.topic == "u"));
}

/// A's client has three publishes on their way when A's lease lapses for too long. The first is refused,
/// the others are read when the lease is back. A client that sends all three again, as most do, would
/// find them before the first. Fails if `Broker::refuses` asks for the lease alone.
#[tokio::test]
async fn nothing_overtakes_what_was_refused() {
    let mut bench = Bench::start(1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    bench.node(A).lease.lapse();
    publisher.publish("t", "first", Q1);
    bench.node(A).lease.grant();
    publisher.retain("t", "second", Q1);
    publisher.publish("t", "third", Q1);
    assert_eq!(publisher.wait(3).await, ["PUBACK 1 80", "PUBACK 2 80", "PUBACK 3 80"]);
    assert!(bench.waiting(A).is_empty());
}

/// B's subscription is applied everywhere, but B learns of it only when its lease has lapsed, as
/// after a pause: it may have been declared down meanwhile, its route gone, and a SUBACK would
/// promise what no node keeps. With the lease regained the SUBACK leaves; with the life over it
/// never does. Fails without the check in `peer::lease`, `tell_ready`.
#[tokio::test]
async fn a_suback_waits_for_a_lease() {
    for (expiry_s, regained) in [(0, false), (0, true), (KEPT, false), (KEPT, true)] {
        let mut bench = Bench::start(2).await;
        let mut client = bench.client(B, "c", expiry_s).await;
        client.subscribe("t", Q1);
        let index = bench.commit(B);
        for node in [A, B] {
            bench.apply(node, index);
        }
        bench.node(B).lease.lapse();
        bench.report();
        assert!(client.take().is_empty());
        if regained {
            bench.node(B).lease.grant();
            assert_eq!(client.take(), ["SUBACK 1"]);
        } else {
            bench.declare_down(A, B, 1);
            bench.settle().await;
            assert_eq!(client.take(), ["DISCONNECT 8b"]);
        }
    }
}

/// The PUBACK of a retained message likewise.
#[tokio::test]
async fn the_acknowledgement_of_a_retained_message_waits_for_a_lease() {
    let mut bench = Bench::start(2).await;
    let mut client = bench.client(B, "c", 0).await;
    client.retain("t", "x", Q1);
    let index = bench.commit(B);
    for node in [A, B] {
        bench.apply(node, index);
    }
    bench.node(B).lease.lapse();
    bench.report();
    assert!(client.take().is_empty());
    bench.node(B).lease.grant();
    assert_eq!(client.take(), ["PUBACK 1 00"]);
}

/// B's claim is committed. Before B applies it, B's lease lapses, and a client with the same id is
/// let in on A. B must not say CONNACK when it gets that far, although its own log, so far, says
/// that the client id is its. Fails without the check in `connect_from`'s completion.
#[tokio::test]
async fn no_connack_without_a_lease() {
    let mut bench = Bench::start(2).await;
    let connect = Connect { client_id: "c", ..Connect::new(Version::V5) };
    let mut late = bench.dial(B, &connect);
    let claimed = bench.commit(B);
    bench.node_mut(B).paused = true;
    let mut owner = bench.connected(A, &connect).await;
    bench.node(B).lease.lapse();
    bench.apply(B, claimed);
    assert!(!late.take().contains(&"CONNACK 00".into()), "there would be two");
    bench.node_mut(B).paused = false;
    bench.node(B).lease.grant();
    bench.settle().await;
    assert!(!late.take().contains(&"CONNACK 00".into()));
    let current = bench.broker(A).state().owner("c").map(|(node, ..)| node);
    assert_eq!(current, Some(A));
    assert!(!owner.is_closed());
}

/// What a persistent session's queue holds is sent under a lease only: another node may own it.
/// Fails if `Broker::pump` does not ask.
#[tokio::test]
async fn stored_messages_wait_for_a_lease() {
    let mut bench = Bench::start(2).await;
    let mut kept = bench.subscriber(B, "kept", KEPT, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    bench.node(B).lease.lapse();
    publisher.publish("t", "x", Q1);
    bench.settle().await;
    assert_eq!(publisher.take(), ["PUBACK 1 00"]);
    assert!(kept.take().is_empty());
    bench.node(B).lease.grant();
    session::turn(|| bench.broker(B).pump_all());
    assert_eq!(kept.take(), ["PUBLISH t x q1 id 1"]);
}
