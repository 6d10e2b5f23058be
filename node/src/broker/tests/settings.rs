//! What operators set, while clients come and other nodes have not heard of it.

use super::*;
use crate::auth::Banned;
use crate::state::Change;

fn ban(client: &str) -> Change {
    Change::Ban { banned: Banned::Client(client.into()), reason: "test".into(), for_ms: None }
}

/// A ban is committed before the claim of a client that was looked at before it. Nobody finds the
/// connection when the ban is applied, so whoever lets it in has to look again. Fails without
/// `Broker::is_unwanted`.
#[tokio::test]
async fn a_ban_that_overtakes_a_claim_is_kept() {
    let mut bench = Bench::start(2).await;
    let mut client = bench.dial(B, &Connect { client_id: "c", ..Connect::new(Version::V5) });
    bench.propose(A, Command::Settings(ban("c")));
    bench.commit(A);
    let index = bench.commit(B);
    bench.apply(A, index);
    bench.apply(B, index);
    assert_eq!(client.take(), ["CONNACK 00", "DISCONNECT 98"]);
    let mut later = bench.dial(B, &Connect { client_id: "c", ..Connect::new(Version::V5) });
    assert_eq!(later.take(), ["CONNACK 8a"]);
}

/// Fails if `Broker::change_settings` answers when the change is applied on its own node.
#[tokio::test]
async fn a_change_is_answered_when_every_live_node_has_applied_it() {
    let mut bench = Bench::start(2).await;
    let broker = bench.broker(A).clone();
    let change = tokio::spawn(async move { broker.change_settings(ban("c")).await });
    eventually(|| !bench.waiting(A).is_empty()).await;
    let index = bench.commit(A);
    bench.apply(A, index);
    bench.report();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!change.is_finished(), "B has not heard of it");
    bench.apply(B, index);
    bench.report();
    assert_eq!(change.await.expect("no panic"), Ok(()));
    let mut client = bench.dial(B, &Connect { client_id: "c", ..Connect::new(Version::V5) });
    assert_eq!(client.take(), ["CONNACK 8a"]);
}
