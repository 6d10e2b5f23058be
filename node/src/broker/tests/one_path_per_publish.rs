//! Rule 1, one path per publish. A logged publish is delivered to all its recipients, clean ones
//! too, by `apply` on their node, in the same critical section that sets the retained value. An
//! unlogged one goes by stream only, and there the owner's second match never delivers QoS ≥ 1 to a
//! persistent session. When a publisher switches paths, its order is kept by a barrier.

use super::*;

/// A clean subscriber on B and a persistent one on C match a publish on A: it goes through the log,
/// reaches each once, and nothing of it is forwarded. Fails if `Broker::plan` forgets
/// `found.must_log`, or if `Path::Log` forwards as well.
#[tokio::test]
async fn a_logged_publish_goes_by_the_log_alone() {
    let mut bench = Bench::start(3).await;
    let mut clean = bench.subscriber(B, "clean", 0, "t", Q1).await;
    let mut kept = bench.subscriber(C, "kept", KEPT, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    let sent = bench.node(A).forwarder.stats().sent;

    publisher.publish("t", "x", Q1);
    assert!(matches!(bench.waiting(A)[..], [Command::Publish { .. }]));
    let index = bench.commit(A);
    bench.apply(B, index);
    assert_eq!(clean.take(), ["PUBLISH t x q1 id 1"], "by apply, before the publisher's node has applied it");
    assert!(publisher.take().is_empty());
    bench.settle().await;
    assert_eq!(publisher.take(), ["PUBACK 1 00"]);
    assert_eq!(kept.take(), ["PUBLISH t x q1 id 1"]);
    assert!(clean.take().is_empty());
    assert_eq!(bench.node(A).forwarder.stats().sent, sent);
}

/// A retained publish is committed. A reader on B subscribes before B applies it, or after: either
/// way it gets the message once, as new or as retained. Fails if `Applier::apply` does not look
/// at this node's subscriptions.
#[tokio::test]
async fn a_subscription_gets_a_retained_publish_once_whenever_it_is_made() {
    for (expiry_s, early) in [(0, false), (0, true), (KEPT, false), (KEPT, true)] {
        let mut bench = Bench::start(2).await;
        let mut reader = bench.client(B, "reader", expiry_s).await;
        let mut publisher = bench.client(A, "publisher", 0).await;
        publisher.retain("t", "x", Q1);
        let index = bench.commit(A);
        if early {
            reader.subscribe("t", Q1);
        }
        bench.apply(B, index);
        if !early {
            reader.subscribe("t", Q1);
        }
        bench.settle().await;
        let mut got = reader.take();
        got.sort();
        assert_eq!(got, ["PUBLISH t x q1 id 1", "SUBACK 1"], "expiry {expiry_s}, early {early}");
        assert_eq!(publisher.take(), ["PUBACK 1 00"]);
    }
}

/// A matches before it knows of a persistent session's subscription on B, and forwards to B's clean
/// subscriber. The frame arrives when B knows the session: B must not deliver it to it at QoS 1, as
/// it is in no queue. After the SUBACK everything is logged. Fails if `deliver_here` takes sessions
/// at any effective QoS.
#[tokio::test]
async fn the_owners_second_match_gives_a_forward_to_no_persistent_session() {
    let mut bench = Bench::start(2).await;
    let mut clean = bench.subscriber(B, "clean", 0, "t", Q1).await;
    let mut kept = bench.client(B, "kept", KEPT).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    kept.subscribe("t", Q1);
    let index = bench.commit(B);
    bench.apply(B, index);

    publisher.publish("t", "direct", Q1);
    assert!(bench.waiting(A).is_empty(), "A knows of the clean subscriber only");
    assert_eq!(clean.wait(1).await, ["PUBLISH t direct q1 id 1"]);
    assert_eq!(publisher.wait(1).await, ["PUBACK 1 00"]);
    assert!(kept.take().is_empty());

    bench.settle().await;
    assert_eq!(kept.take(), ["SUBACK 1"]);
    publisher.publish("t", "logged", Q1);
    bench.settle().await;
    assert_eq!(kept.take(), ["PUBLISH t logged q1 id 1"]);
    assert_eq!(clean.take(), ["PUBLISH t logged q1 id 2"]);
}

/// At QoS 0 there is no queue: the second match may, and does, deliver to the sessions online.
#[tokio::test]
async fn the_owners_second_match_gives_qos_0_to_whoever_is_online() {
    let mut bench = Bench::start(2).await;
    let mut kept = bench.subscriber(B, "kept", KEPT, "t", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    publisher.publish("t", "x", Q0);
    assert!(bench.waiting(A).is_empty());
    assert_eq!(kept.wait(1).await, ["PUBLISH t x q0 id 0"]);
}

/// A publisher's first message is logged, its second direct. B has not applied the first when the
/// frame of the second arrives, and holds the lane until it has; frames of others pass. Fails if
/// `LaneRun::take` does not wait for `frame.barrier`, or `send_direct` sends 0 for it.
#[tokio::test]
async fn a_direct_publish_waits_for_the_logged_one_before_it() {
    let mut bench = Bench::start(3).await;
    let mut reader = bench.subscriber(B, "reader", 0, "#", Q1).await;
    let _kept = bench.subscriber(C, "kept", KEPT, "log", Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    let mut other = bench.client(A, "other", 0).await;

    publisher.publish("log", "1", Q1);
    let index = bench.commit(A);
    publisher.publish("direct", "2", Q1);
    assert_eq!(bench.node(A).forwarder.stats().sent, 0, "nothing leaves before it is applied on A");
    bench.apply(A, index);
    assert_eq!(publisher.take(), ["PUBACK 1 00"]);
    assert_eq!(bench.node(A).forwarder.stats().sent, 1);
    other.publish("other", "3", Q1);
    assert_eq!(reader.wait(1).await, ["PUBLISH other 3 q1 id 1"]);
    assert_eq!(other.wait(1).await, ["PUBACK 1 00"]);
    assert!(publisher.take().is_empty(), "it is not acknowledged while it is held");

    bench.apply(B, index);
    assert_eq!(reader.wait(2).await, ["PUBLISH log 1 q1 id 2", "PUBLISH direct 2 q1 id 3"]);
    assert_eq!(publisher.wait(1).await, ["PUBACK 2 00"]);
}

/// A publisher's first message is on its way to B, its second has to be logged: it is proposed once
/// B has taken the first over. The same at QoS 0, where a fence tells. Fails if
/// `PublishOrder::admits` lets `Path::Log` pass forwards, or `Broker::fence` does nothing.
#[tokio::test]
async fn a_logged_publish_waits_for_the_forwards_before_it() {
    for qos in [Q0, Q1, Q2] {
        let mut bench = Bench::start(3).await;
        let mut reader = bench.subscriber(B, "reader", 0, "#", Q0).await;
        let _kept = bench.subscriber(C, "kept", KEPT, "log", Q1).await;
        let mut publisher = bench.client(A, "publisher", 0).await;
        bench.proxy(B).hold();
        publisher.publish("direct", "1", qos);
        publisher.publish("log", "2", Q1);
        bench.settle().await;
        assert!(!publisher.take().iter().any(|got| got.starts_with("PUB")), "{qos:?}");
        assert!(reader.take().is_empty());
        bench.proxy(B).release();
        eventually(|| !bench.waiting(A).is_empty()).await;
        bench.settle().await;
        let expected = ["PUBLISH direct 1 q0 id 0", "PUBLISH log 2 q0 id 0"];
        assert_eq!(reader.wait(2).await, expected, "{qos:?}");
        assert!(publisher.take().iter().any(|got| got.starts_with("PUBACK")), "{qos:?}");
    }
}

/// QoS 2 of a persistent publisher is logged with its packet id whoever matches: sent again over
/// another node after a takeover, it is delivered once. Fails if `Broker::plan` forgets
/// `exactly_once`.
#[tokio::test]
async fn qos_2_of_a_persistent_publisher_is_delivered_once_across_a_takeover() {
    let mut bench = Bench::start(3).await;
    let mut reader = bench.subscriber(C, "reader", 0, "t", Q2).await;
    let mut first = bench.client(A, "publisher", KEPT).await;
    first.publish("t", "x", Q2);
    // Committed and applied, but A goes silent before PUBREC is seen.
    let index = bench.commit(A);
    [A, B, C].iter().for_each(|node| bench.apply(*node, index));
    assert_eq!(reader.take(), ["PUBLISH t x q2 id 1"]);
    let mut second = bench.client(B, "publisher", KEPT).await;
    assert_eq!(second.publish("t", "x", Q2), 1, "the same packet id");
    bench.settle().await;
    assert_eq!(second.take(), ["PUBREC 1 00"]);
    assert!(reader.take().is_empty());
    second.pubrel(1);
    bench.settle().await;
    assert_eq!(second.take(), ["PUBCOMP 1 00"]);
    // The id names another message now.
    second.publish("t", "y", Q2);
    bench.settle().await;
    assert_eq!(reader.take(), ["PUBLISH t y q2 id 2"]);
}
