//! What operators look into a running node by.

use std::time::Duration;

use cluster_tests::cluster::cli::operate;
use cluster_tests::cluster::{Cluster, Said};
use cluster_tests::{http, wait};
use serde_json::Value;

/// For what a node does by itself every quarter of a second, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(30);
/// What is logged many times a second, once it is asked for.
const TALKATIVE: &str = "info,openraft=debug";
/// What the log has of it.
const LINE: &str = " DEBUG ";

fn level(cluster: &Cluster, args: &[&str]) -> Said {
    operate(cluster.api(1), &[&["log", "level"], args].concat(), "")
}

fn in_force(said: &Said) -> Value {
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).expect("JSON")
}

fn lines(cluster: &mut Cluster) -> usize {
    cluster.node(1).log().matches(LINE).count()
}

fn applied(cluster: &Cluster) -> f64 {
    let (_, text) = http::get(cluster.api(1), "/metrics").expect("metrics");
    http::metric(&text, "rookery_applied_index").expect("an index")
}

/// The cluster's clock has ticked so often, which openraft has much to say about.
fn ticks(cluster: &Cluster, count: f64) {
    let before = applied(cluster);
    wait::eventually("the clock to tick", SOON, || (applied(cluster) >= before + count).then_some(()));
}

#[test]
fn what_a_node_logs_is_changed_while_it_runs() {
    let mut cluster = Cluster::start(1);
    let configured = in_force(&level(&cluster, &[]))["configured"].clone();
    ticks(&cluster, 4.0);
    assert_eq!(lines(&mut cluster), 0);

    let changed = in_force(&level(&cluster, &[TALKATIVE]));
    assert!(changed["filter"].as_str().is_some_and(|filter| filter.ends_with(TALKATIVE)), "{changed}");
    wait::eventually("lines that were asked for", SOON, || (lines(&mut cluster) > 10).then_some(()));

    let refused = level(&cluster, &["verbose"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("expected a level"), "{refused:?}");
    assert_eq!(in_force(&level(&cluster, &[]))["filter"], changed["filter"]);

    assert_eq!(in_force(&level(&cluster, &["--reset"]))["filter"], configured);
    // What was just being written.
    ticks(&cluster, 1.0);
    let written = lines(&mut cluster);
    ticks(&cluster, 4.0);
    assert_eq!(lines(&mut cluster), written);
    let log = cluster.node(1).log();
    assert_eq!(log.matches("log.filter").count(), 3, "every attempt is in the audit log:\n{log}");
}

#[test]
fn a_change_for_some_time_ends_by_itself() {
    let cluster = Cluster::start(1);
    let configured = in_force(&level(&cluster, &[]))["configured"].clone();
    let changed = in_force(&level(&cluster, &["debug", "--for", "1s"]));
    assert_eq!(changed["for_s"], 1);
    wait::eventually("what is configured", SOON, || {
        (in_force(&level(&cluster, &[]))["filter"] == configured).then_some(())
    });
}
