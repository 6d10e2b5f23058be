//! Rule 10, time. The replicated clock advances by the leader's monotonic elapsed time; after a full
//! restart it jumps at most to the median of a quorum's wall clocks (all its cases: `state`, test
//! `wall`). A claim evaluates deadlines itself, so a late sweep never takes a resumed session.

use super::*;

const DAY_MS: u64 = 86_400_000;

fn connect(client_id: &str) -> Connect<'_> {
    Connect { client_id, clean_start: false, session_expiry_s: KEPT, ..Connect::new(Version::V5) }
}

/// All nodes stop for a day. The first ones that are back let nobody in before it is known that all
/// were down, and for how long: a session that ended its connection in between would lose the day.
/// Fails if `may_acknowledge` does not ask for the time.
#[tokio::test]
async fn nobody_is_let_in_before_it_is_known_how_long_all_were_down() {
    let mut bench = Bench::start(3).await;
    bench.tick(A, 5_000);
    bench.wall_ms += 5_000;
    let mut leaving = bench.connected(B, &connect("leaving")).await;
    leaving.lose();
    bench.settle().await;
    for node in [A, B, C] {
        bench.restart(node);
    }
    bench.wall_ms += DAY_MS;
    for node in [A, B] {
        bench.begin_life(node);
        bench.commit(node);
    }
    for node in [A, B] {
        bench.apply(node, bench.last());
        bench.commit(node);
    }
    for node in [A, B] {
        bench.apply(node, bench.last());
        assert!(bench.broker(node).is_alive());
        assert_eq!(bench.dial(node, &connect("early")).take(), ["CONNACK 88"]);
    }
    assert_eq!(bench.broker(A).state().clock_ms(), 5_000, "C may have been there all the time");
    bench.begin_life(C);
    bench.settle().await;
    for node in [A, B, C] {
        assert_eq!(bench.broker(node).state().clock_ms(), 5_000 + DAY_MS);
    }
    let mut client = bench.connected(A, &connect("early")).await;
    assert!(client.take().is_empty());
    let claim = Claim {
        client: "leaving".into(),
        clean_start: false,
        expiry_s: KEPT,
        will: None,
        receive_maximum: 1,
    };
    let outcome = bench.outcome(A, Command::Claim(claim)).await;
    assert!(matches!(outcome, crate::state::Outcome::Claimed { session_present: false, .. }));
}

/// One node restarts while the others go on. They say so as soon as they see it come back, whatever
/// the wall clocks say, and let clients in all the time. Fails if `carry_out` does not answer a
/// NodeUp.
#[tokio::test]
async fn who_sees_a_node_come_back_says_that_time_went_on() {
    let mut bench = Bench::start(3).await;
    bench.restart(B);
    bench.wall_ms += DAY_MS;
    bench.begin_life(B);
    let index = bench.commit(B);
    for node in [A, B] {
        bench.apply(node, index);
    }
    assert!(matches!(bench.waiting(A)[..], [Command::WallClock { .. }]));
    assert_eq!(bench.dial(B, &connect("b")).take(), ["CONNACK 88"]);
    let mut other = bench.dial(A, &connect("a"));
    let answer = bench.commit(A);
    bench.apply(A, answer);
    assert_eq!(other.take(), ["CONNACK 00"]);
    bench.apply(B, answer);
    bench.settle().await;
    bench.connected(B, &connect("b")).await;
    assert_eq!(bench.broker(A).state().clock_ms(), 0);
}

/// A session's time is over, and the leader proposes to sweep it. Before that is committed the
/// client comes back: the claim finds the session ended, begins a new one, and the sweep leaves
/// that alone. Fails if `State::claim` does not settle first what is due.
#[tokio::test]
async fn a_late_sweep_takes_no_session_that_began_since() {
    let mut bench = Bench::start(2).await;
    let mut client = bench.subscriber(B, "c", KEPT, "t", Q1).await;
    client.lose();
    bench.settle().await;
    bench.tick(A, 101_000);
    bench.settle().await;
    assert_eq!(bench.sweep(A), 1);
    let _back = bench.dial(B, &connect("c"));
    let claimed = bench.commit(B);
    bench.apply(B, claimed);
    assert!(bench.broker(B).state().subscriptions("c").is_empty(), "the old one has ended");
    let swept = bench.commit(A);
    for node in [A, B] {
        bench.apply(node, swept);
        let owner = bench.broker(node).state().owner("c").map(|(owner, ..)| owner);
        assert_eq!(owner, Some(B));
    }
}

/// The client came back in time; the sweep that a leader proposed meanwhile is committed when the
/// deadline of the time before would have passed. Two guards, of which either is enough: `own` takes
/// the deadline away, and `State::expire` asks for the owner.
#[tokio::test]
async fn a_late_sweep_takes_no_resumed_session() {
    let mut bench = Bench::start(2).await;
    let mut client = bench.subscriber(B, "c", KEPT, "t", Q1).await;
    client.lose();
    bench.settle().await;
    bench.tick(A, 99_000);
    bench.settle().await;
    let mut back = bench.connected(B, &connect("c")).await;
    bench.tick(A, 2_000);
    bench.propose(A, Command::Sweep { clients: vec!["c".into()], routes: vec![] });
    bench.settle().await;
    assert!(!back.is_closed());
    assert_eq!(bench.broker(A).state().subscriptions("c").len(), 1);
}

/// A leader that is cut off goes on measuring and cannot commit; its successor measures the same
/// time. What the first had proposed is committed when it is back: no more than one step of it may
/// count twice. Fails if `steward` proposes a tick while one is under way.
#[tokio::test]
async fn a_leader_that_cannot_commit_heaps_up_no_time() {
    let mut bench = Bench::start(2).await;
    tokio::time::pause();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let steward = tokio::spawn(bench.broker(A).clone().steward(|| Some(Vec::new()), stopped));
    let ticks = |bench: &Bench| {
        let waiting = bench.waiting(A);
        let elapsed = waiting.iter().filter_map(|command| match command {
            Command::Tick { elapsed_ms } => Some(*elapsed_ms),
            _ => None,
        });
        elapsed.collect::<Vec<u64>>()
    };
    for _ in 0..40 {
        tokio::time::advance(std::time::Duration::from_millis(250)).await;
        tokio::task::yield_now().await;
    }
    let heaped = ticks(&bench);
    assert_eq!(heaped.len(), 1, "{heaped:?}");
    assert!(heaped[0] <= 1_000);
    let index = bench.commit(A);
    bench.apply(A, index);
    tokio::time::advance(std::time::Duration::from_millis(250)).await;
    tokio::task::yield_now().await;
    assert_eq!(ticks(&bench).len(), 1, "and the next one when it is applied");
    steward.abort();
}
