//! Rule 2, routes have states: absent, adding (index), live, removing. Every SUBACK, the second
//! local subscriber's too, waits until the filter is live on all live nodes. Count change and
//! proposal happen under one lock; what was handed to the proposer is never cancelled.

use super::*;

/// Of subscribing and unsubscribing, on each thread.
const ROUNDS: usize = 500;

/// Two clients of B subscribe to the same filter, the second while the announcement of the first is
/// applied on B and not on A. There is one announcement, and both SUBACKs wait for A. Fails if
/// `Local::subscribe` holds the wait only for the first (`if change == RouteChange::None`).
#[tokio::test]
async fn the_second_local_subscriber_waits_like_the_first() {
    let mut bench = Bench::start(2).await;
    let mut first = bench.client(B, "first", 0).await;
    let mut second = bench.client(B, "second", 0).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    first.subscribe("t", Q1);
    let index = bench.commit(B);
    bench.apply(B, index);
    second.subscribe("t", Q1);
    assert!(bench.waiting(B).is_empty(), "announced once");
    bench.report();
    assert!(first.take().is_empty() && second.take().is_empty());
    // What a SUBACK would have promised does not hold yet.
    publisher.publish("t", "lost", Q1);
    assert_eq!(publisher.take(), ["PUBACK 1 10"]);

    bench.apply(A, index);
    assert!(first.take().is_empty() && second.take().is_empty(), "B has not heard of it");
    bench.report();
    assert_eq!((first.take(), second.take()), (vec!["SUBACK 1".into()], vec!["SUBACK 1".into()]));
    publisher.publish("t", "x", Q1);
    assert_eq!(first.wait(1).await, ["PUBLISH t x q1 id 1"]);
    assert_eq!(second.wait(1).await, ["PUBLISH t x q1 id 1"]);

    // Live is live: a third one waits for nobody.
    let mut third = bench.client(B, "third", 0).await;
    third.subscribe("t", Q0);
    assert_eq!(third.take(), ["SUBACK 1"]);
}

/// A client subscribes, leaves and subscribes again before the first announcement is applied
/// anywhere. Nothing that was proposed is taken back, and the first announcement does not make the
/// third live: between the two the filter is withdrawn. Fails if `Local::live` does not compare
/// generations.
#[tokio::test]
async fn an_announcement_that_was_withdrawn_makes_nothing_live() {
    let mut bench = Bench::start(2).await;
    let mut client = bench.client(B, "c", 0).await;
    client.subscribe("t", Q1);
    let added = bench.commit(B);
    client.unsubscribe("t");
    client.subscribe("t", Q1);
    assert!(matches!(bench.waiting(B)[..], [Command::RouteRemove { .. }, Command::RouteAdd { .. }]));
    assert_eq!(client.take(), ["SUBACK 1", "UNSUBACK 2"]);
    for node in [A, B] {
        bench.apply(node, added);
    }
    bench.report();
    assert!(client.take().is_empty());
    bench.settle().await;
    assert_eq!(client.take(), ["SUBACK 3"]);
    assert_eq!(bench.broker(A).state().route_nodes("t").as_slice(), [B]);
}

/// The last subscriber leaves while another comes, over and over and on two threads at once.
/// Announcements and withdrawals reach the log in turn, and what it says in the end is what is true
/// on B. Fails, by chance, if `withdraw` proposes after releasing the index's lock.
#[tokio::test]
async fn the_log_ends_with_what_is_true_however_changes_race() {
    let mut bench = Bench::start(2).await;
    for wanted in [false, true] {
        let mut clients = [bench.client(B, "one", 0).await, bench.client(B, "two", 0).await];
        let mut answered = std::thread::scope(|scope| {
            let threads = clients.each_mut().map(|client| {
                scope.spawn(move || {
                    let mut answered = 0;
                    for _ in 0..ROUNDS {
                        client.subscribe("t", Q0);
                        client.unsubscribe("t");
                        answered += client.take().len();
                    }
                    if wanted {
                        client.subscribe("t", Q0);
                    }
                    answered
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        });
        // Nothing is answered twice, and what had to wait for its turn has had it.
        while answered != [2 * ROUNDS + usize::from(wanted); 2] {
            bench.settle().await;
            for (client, answered) in clients.iter_mut().zip(&mut answered) {
                *answered += client.take().len();
            }
        }
        bench.settle().await;
        let changes: Vec<bool> = bench
            .commands()
            .filter_map(|command| match command {
                Command::RouteAdd { .. } => Some(true),
                Command::RouteRemove { .. } => Some(false),
                _ => None,
            })
            .collect();
        assert!(changes.windows(2).all(|pair| pair[0] != pair[1]), "each undoes the one before");
        let routed = !bench.broker(A).state().route_nodes("t").is_empty();
        assert_eq!(routed, wanted);
        assert_eq!(bench.broker(B).local_filters(), usize::from(wanted));
    }
}

/// A persistent session's subscription is in the log as a whole: its SUBACK waits for all live
/// nodes as well, also when the session had it before.
#[tokio::test]
async fn a_persistent_subscription_waits_for_every_live_node() {
    let mut bench = Bench::start(2).await;
    let mut kept = bench.client(B, "kept", KEPT).await;
    for id in 1..=2 {
        kept.subscribe("t", Q1);
        let index = bench.commit(B);
        bench.apply(B, index);
        bench.report();
        assert!(kept.take().is_empty());
        bench.apply(A, index);
        bench.report();
        assert_eq!(kept.take(), [format!("SUBACK {id}")]);
    }
}
