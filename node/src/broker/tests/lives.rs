//! Rule 4, NodeUp and NodeDown. A start proposes NodeUp (node, epoch), which is at once NodeDown of
//! its older epochs; listeners open, and `apply`'s local effects begin, only after it has applied
//! locally. The live set that a command at index i waits for is the epochs up at i. NodeDown itself
//! is O(1); the leader's paced sweeps fire wills and free state.

use super::*;

fn claim(client: &str, topic: &str) -> Command {
    let message = Publication {
        topic,
        payload: b"gone",
        properties: &[],
        qos: Q1,
        retain: false,
        expires_at_ms: 0,
        publisher: client,
    };
    let will = crate::state::Will { message: message.to_message(), expiry_s: None, delay_s: 0 };
    Command::Claim(Claim {
        client: client.into(),
        clean_start: true,
        expiry_s: 0,
        will: Some(will),
        receive_maximum: 10,
    })
}

/// B begins a new life. Its start is proposed, committed, applied on A: until B itself has applied
/// it, B lets nobody in and carries nothing out. Fails if `expect_life` leaves `alive` as it is, or
/// `begin_life` is not waited for.
#[tokio::test]
async fn nobody_is_let_in_before_the_start_is_applied_here() {
    let mut bench = Bench::start(2).await;
    let connect = Connect { client_id: "c", ..Connect::new(Version::V5) };
    bench.begin_life(B);
    assert_eq!(bench.dial(B, &connect).take(), ["CONNACK 88"]);
    let index = bench.commit(B);
    bench.apply(A, index);
    assert_eq!(bench.status(A, B).epoch, 2);
    assert_eq!(bench.dial(B, &connect).take(), ["CONNACK 88"]);
    assert!(bench.waiting(B).is_empty(), "nothing was claimed");
    bench.settle().await;
    bench.connected(B, &connect).await;
}

/// B restarts before anybody missed it. For A everything of the old life is over when A applies the
/// start: the owner of the session, the route of the clean one; and B's late commands of the old
/// life are void. Fails if `State::node_up` does not end the older life.
#[tokio::test]
async fn a_start_ends_everything_of_the_life_before() {
    let mut bench = Bench::start(2).await;
    let _clean = bench.subscriber(B, "clean", 0, "t", Q1).await;
    let _kept = bench.client(B, "kept", KEPT).await;
    let mut publisher = bench.client(A, "publisher", 0).await;
    bench.begin_life(B);
    let index = bench.commit(B);
    assert!(bench.broker(A).state().owner("kept").is_some());
    bench.apply(A, index);
    assert!(bench.broker(A).state().owner("kept").is_none());
    publisher.publish("t", "x", Q1);
    assert_eq!(publisher.take(), ["PUBACK 1 10"], "nobody is there");
}

/// A SUBACK on A waits for those that are up at its index. B, which is up and silent, holds it up;
/// its end releases it. Fails if `announce` does not wait for `when_applied_everywhere`.
#[tokio::test]
async fn a_suback_waits_for_the_lives_that_are_up() {
    let mut bench = Bench::start(3).await;
    let mut client = bench.client(A, "c", 0).await;
    bench.node_mut(B).paused = true;
    client.subscribe("t", Q1);
    bench.settle().await;
    assert!(client.take().is_empty(), "B has not applied it");
    bench.declare_down(C, B, 1);
    bench.settle().await;
    assert_eq!(client.take(), ["SUBACK 1"]);
    // Its next life has applied all that before it lets anybody in: nobody waits for it.
    client.subscribe("u", Q1);
    bench.settle().await;
    assert_eq!(client.take(), ["SUBACK 2"]);
}

/// B dies with more clients than one sweep names. Its end costs one entry and fires nothing; each
/// sweep of the leader does a bounded part, and each will fires once. Fails if `State::node_down`
/// settled the clients itself.
#[tokio::test]
async fn the_end_of_a_life_is_cheap_and_its_wills_are_paced() {
    let mut bench = Bench::start(2).await;
    let _watcher = bench.subscriber(A, "watcher", KEPT, "wills/#", Q1).await;
    let clients = SWEEP_MAX + 100;
    for i in 0..clients {
        bench.propose(B, claim(&format!("c{i}"), &format!("wills/{i}")));
    }
    bench.settle().await;
    bench.node_mut(B).paused = true;
    let queued = |bench: &Bench| bench.broker(A).state().client("watcher").expect("a session").queued;
    bench.declare_down(A, B, 1);
    bench.settle().await;
    assert_eq!(queued(&bench), 0);
    assert_eq!(bench.sweep(A), SWEEP_MAX);
    bench.settle().await;
    assert_eq!(queued(&bench), SWEEP_MAX);
    assert_eq!(bench.sweep(A), 100);
    assert_eq!(bench.sweep(A), 100, "twice, as by a leader and its successor");
    bench.settle().await;
    assert_eq!(queued(&bench), clients);
    assert_eq!(bench.sweep(A), 0);
}

/// A leader declares B down; before the entry is committed another leads, which has renewed B's
/// lease. Proposed again in the new term, it is void. Fails if `State::command` does not compare
/// terms.
#[tokio::test]
async fn the_end_of_a_life_that_a_later_leader_commits_is_void() {
    let mut bench = Bench::start(2).await;
    let mut client = bench.client(B, "c", 0).await;
    bench.declare_down(A, B, 1);
    let index = bench.commit_in(A, bench::TERM + 1);
    for node in [A, B] {
        bench.apply(node, index);
    }
    assert!(bench.status(A, B).up && !client.is_closed());
}
