//! Rule 7, a live owner whose stream is down for 500 ms: QoS ≥ 1 publishes for it go through the
//! log. Frames already sent may repeat at QoS 1; clean QoS 2 keeps waiting.

use super::*;

/// A and B cannot reach each other, and both reach the leader: B is live, its stream is down. What
/// A's clients publish to B's clean subscriber goes through the log, at QoS 0 not. Fails if
/// `Broker::plan` forgets `unreachable`.
#[tokio::test]
async fn publishes_for_it_go_through_the_log() {
    let mut bench = Bench::start(3).await;
    let mut reader = bench.subscriber(B, "reader", 0, "t", Q2).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    publisher.publish("t", "direct", Q1);
    assert!(bench.waiting(A).is_empty());
    assert_eq!(reader.wait(1).await, ["PUBLISH t direct q1 id 1"]);
    assert_eq!(publisher.wait(1).await, ["PUBACK 1 00"]);

    bench.proxy(B).block();
    eventually(|| !bench.node(A).forwarder.is_up(B)).await;
    publisher.publish("t", "one", Q1);
    publisher.publish("t", "two", Q2);
    bench.settle().await;
    assert_eq!(reader.take(), ["PUBLISH t one q1 id 2", "PUBLISH t two q2 id 3"]);
    assert_eq!(publisher.take(), ["PUBACK 2 00", "PUBREC 3 00"]);

    // And directly again when it is back.
    bench.proxy(B).unblock();
    eventually(|| bench.node(A).forwarder.is_up(B)).await;
    publisher.publish("t", "three", Q1);
    assert!(bench.waiting(A).is_empty());
    assert_eq!(reader.wait(1).await, ["PUBLISH t three q1 id 4"]);
}
