//! Rule 9, shared subscriptions. A QoS ≥ 1 publish that matches a group with any persistent member is
//! logged, and `apply` picks the member deterministically. QoS 1 of a member whose session ended is
//! reassigned; QoS 2 never; an error acknowledgement discards. In clean-only groups reassignment
//! covers the loss of a connection, not of the node after it took over.

use super::*;

const GROUP: &str = "$share/g/t";

/// Of the two, the one that got it and the other.
fn split<'a>(one: &'a mut Client, two: &'a mut Client) -> (&'a mut Client, &'a mut Client, Vec<String>) {
    let (of_one, of_two) = (one.take(), two.take());
    assert_eq!(of_one.len() + of_two.len(), 1, "{of_one:?} {of_two:?}");
    if of_two.is_empty() { (one, two, of_one) } else { (two, one, of_two) }
}

/// One member is persistent, one clean, on two nodes; the nodes apply the publishes at very
/// different times. Each message reaches one member, and all nodes agree on which. Fails if
/// `match_publish` did not take a group with a durable member for logged, or if `pick` used
/// anything but the state.
#[tokio::test]
async fn every_node_picks_the_same_member() {
    let mut bench = Bench::start(3).await;
    let mut kept = bench.subscriber(B, "kept", KEPT, GROUP, Q1).await;
    let mut clean = bench.subscriber(C, "clean", 0, GROUP, Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    for n in 0..10 {
        publisher.publish("t", &n.to_string(), Q1);
        assert!(matches!(bench.waiting(A)[..], [Command::Publish { .. }]), "logged");
        let index = bench.commit(A);
        // B falls behind, C does not.
        bench.apply(C, index);
    }
    bench.settle().await;
    let (of_kept, of_clean) = (kept.take(), clean.take());
    assert_eq!((of_kept.len(), of_clean.len()), (5, 5), "{of_kept:?} {of_clean:?}");
    assert_eq!(publisher.take().len(), 10);
    assert!(bench.snapshot(A) == bench.snapshot(B) && bench.snapshot(A) == bench.snapshot(C));
}

/// A member's session ends with a delivery that it has not acknowledged: at QoS 1 another member
/// gets it, at QoS 2 nobody [MQTT-4.8.2-5]. Fails if `State::end` does not reassign, or
/// `into_reassignable` takes QoS 2 that was sent.
#[tokio::test]
async fn what_an_ended_session_leaves_goes_to_another_member_at_qos_1_only() {
    for qos in [Q1, Q2] {
        let mut bench = Bench::start(3).await;
        let mut one = bench.subscriber(B, "one", KEPT, GROUP, Q2).await;
        let mut two = bench.subscriber(C, "two", KEPT, GROUP, Q2).await;
        let mut publisher = bench.client(A, "publisher", 0).await;
        publisher.publish("t", "x", qos);
        bench.settle().await;
        publisher.take();
        let (holder, other, _) = split(&mut one, &mut two);
        let name = holder.conn.client().to_owned();
        let claim = Claim {
            client: name.as_str().into(),
            clean_start: true,
            expiry_s: 0,
            will: None,
            receive_maximum: 1,
        };
        bench.outcome(A, Command::Claim(claim)).await;
        assert_eq!(holder.take(), ["DISCONNECT 8e"]);
        assert_eq!(other.take().len(), usize::from(qos == Q1), "{qos:?}");
    }
}

/// A member's connection is lost and its session stays: the delivery stays with it, and its client
/// gets it again wherever it comes back.
#[tokio::test]
async fn what_a_session_that_stays_holds_is_not_reassigned() {
    let mut bench = Bench::start(3).await;
    let mut one = bench.subscriber(B, "one", KEPT, GROUP, Q1).await;
    let mut two = bench.subscriber(C, "two", KEPT, GROUP, Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    publisher.publish("t", "x", Q1);
    bench.settle().await;
    let (holder, other, got) = split(&mut one, &mut two);
    holder.lose();
    bench.settle().await;
    assert!(other.take().is_empty());
    let name = holder.conn.client().to_owned();
    let mut back = bench.client(A, &name, KEPT).await;
    bench.settle().await;
    assert_eq!(back.take(), [format!("{} dup", got[0])]);
}

/// A member refuses a message: nobody else gets it [MQTT-4.8.2-6].
#[tokio::test]
async fn an_error_acknowledgement_discards() {
    let mut bench = Bench::start(3).await;
    let mut one = bench.subscriber(B, "one", KEPT, GROUP, Q1).await;
    let mut two = bench.subscriber(C, "two", KEPT, GROUP, Q1).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    publisher.publish("t", "x", Q1);
    bench.settle().await;
    let (holder, other, _) = split(&mut one, &mut two);
    let refusal =
        session::testing::encoded(|out| encode::puback(out, Version::V5, 1, ReasonCode::UnspecifiedError));
    holder.send(&refusal);
    bench.broker(A).flush_progress();
    [B, C].iter().for_each(|node| bench.broker(*node).flush_progress());
    bench.settle().await;
    assert!(other.take().is_empty());
    let name = holder.conn.client().to_owned();
    holder.lose();
    bench.settle().await;
    let queued = bench.broker(A).state().client(&name).expect("a session").queued;
    assert_eq!(queued, 0);
}

/// In a group of clean members only, what a lost connection has not acknowledged at QoS 1 goes to
/// another member, on this node or the next. Fails if `ended_from` does not reassign.
#[tokio::test]
async fn a_lost_connection_of_a_clean_group_is_covered() {
    for qos in [Q1, Q2] {
        let mut bench = Bench::start(2).await;
        let mut one = bench.subscriber(A, "one", 0, GROUP, Q2).await;
        let mut two = bench.subscriber(B, "two", 0, GROUP, Q2).await;
        let mut publisher = bench.client(A, "publisher", 0).await;
        publisher.publish("t", "x", qos);
        publisher.wait(1).await;
        let (holder, other, _) = split(&mut one, &mut two);
        holder.lose();
        bench.settle().await;
        if qos == Q1 {
            assert_eq!(other.wait(1).await, ["PUBLISH t x q1 id 1"]);
        } else {
            assert!(other.take().is_empty());
        }
    }
}
