//! What a node answers to those who watch it.

use std::time::{Duration, Instant};

use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster, cli};
use cluster_tests::http;
use cluster_tests::wait::eventually;
use serde_json::{Value, json};

/// No probe takes longer, whatever has become of the other nodes.
const PROBE: Duration = Duration::from_secs(3);

/// What a probe of node `i` says.
#[track_caller]
fn probe(cluster: &Cluster, i: usize, path: &str) -> (u16, Value) {
    let began = Instant::now();
    let (code, text) = http::get(cluster.api(i), path).expect("it answers");
    assert!(began.elapsed() < PROBE, "{path} took {:?}", began.elapsed());
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}")))
}

#[test]
fn a_node_of_no_cluster_has_not_started() {
    let mut cluster = Cluster::spawned(1, "");
    let (code, why) = probe(&cluster, 1, "/startupz");
    assert_eq!((code, &why["reasons"][0]), (503, &"of no cluster yet".into()), "{why}");
    let (code, why) = probe(&cluster, 1, "/cluster/healthz");
    assert_eq!((code, &why["reasons"][0]), (503, &"n1 is of no cluster yet".into()), "{why}");
    cli::init(cluster.api(1));
    cluster.node(1).wait_ready();
    assert_eq!(probe(&cluster, 1, "/startupz"), (200, json!({ "started": true, "reasons": [] })));
    assert_eq!(probe(&cluster, 1, "/cluster/healthz"), (200, json!({ "healthy": true, "reasons": [] })));
}

#[test]
fn a_node_that_has_started_stays_started() {
    let mut cluster = Cluster::start(3);
    cluster.kill9(2);
    cluster.kill9(3);
    // Without a majority it serves nobody, but has started; one that starts then has not.
    eventually("not ready", AGREE_TIMEOUT, || (!cluster.node(1).answers("/readyz")).then_some(()));
    assert_eq!(probe(&cluster, 1, "/startupz").0, 200);
    cluster.kill9(1);
    cluster.node(1).spawn();
    cluster.node(1).wait_live();
    let (code, why) = probe(&cluster, 1, "/startupz");
    assert_eq!((code, &why["started"]), (503, &false.into()), "{why}");
    cluster.start_all();
    for i in 1..=3 {
        assert_eq!(probe(&cluster, i, "/startupz").0, 200);
    }
}

#[test]
fn the_health_of_the_cluster_names_who_is_down() {
    let mut cluster = Cluster::start(3);
    for i in 1..=3 {
        eventually("all to be well", AGREE_TIMEOUT, || {
            (probe(&cluster, i, "/cluster/healthz").0 == 200).then_some(())
        });
    }
    cluster.kill9(3);
    for i in [1, 2] {
        let why = eventually("it to be missed", AGREE_TIMEOUT, || {
            let (code, why) = probe(&cluster, i, "/cluster/healthz");
            let named = why["reasons"].as_array()?.contains(&"n3 is down".into());
            (code == 503 && named).then_some(why)
        });
        assert_eq!(why["healthy"], false, "{why}");
        assert_eq!(probe(&cluster, i, "/startupz").0, 200);
    }
    cluster.restart(3);
    eventually("all to be well again", AGREE_TIMEOUT, || {
        (probe(&cluster, 1, "/cluster/healthz").0 == 200).then_some(())
    });
    // Nobody is left to declare anybody down, and a leader goes on taking itself for one.
    let alone = cluster.leader();
    (1..=3).filter(|i| *i != alone).for_each(|i| cluster.kill9(i));
    let missed = format!("n{alone}: no lease: it may acknowledge nothing");
    eventually("the majority to be missed", AGREE_TIMEOUT, || {
        let (code, why) = probe(&cluster, alone, "/cluster/healthz");
        (code == 503 && why["reasons"].as_array()?.contains(&missed.as_str().into())).then_some(())
    });
}
