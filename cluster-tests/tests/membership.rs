//! Nodes come and go by the command line, and the cluster goes on.

use std::time::Duration;

use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster, cli};
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Options};
use cluster_tests::traffic::{Collector, Traffic};
use cluster_tests::wait::eventually;

const DRAIN: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

/// Exit code of a command that would cost the quorum.
const UNSAFE: Option<i32> = Some(5);

#[test]
fn nodes_join_and_leave_under_load() {
    let mut cluster = Cluster::start(3);
    let old = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(1), &prefix);
    let traffic = Traffic::start(&prefix, &old, 4);
    traffic.wait_more(200);

    for i in [4, 5] {
        assert_eq!(cluster.add(i - 3), i);
        traffic.wait_more(200);
        // The session is served by the new node, with all that came meanwhile.
        collector.move_to(cluster.mqtt(i));
        collector.collect(Duration::from_millis(200));
    }
    let status = cluster.status().expect("a status");
    assert_eq!((status.members.len(), status.voters()), (5, 3), "{status:?}");

    for i in [4, 5] {
        let said = cli::leave(cluster.api(i));
        assert_eq!(said.code, Some(0), "{said:?}");
        traffic.wait_more(200);
    }
    eventually("three members again", AGREE_TIMEOUT, || {
        let status = cli::status(cluster.api(1))?;
        (status.members.len() == 3 && status.voters() == 3).then_some(())
    });
    let acked = traffic.stop();
    collector.expect_all(&acked, &old, DRAIN);
}

#[test]
fn a_voter_leaves_and_a_learner_takes_its_place() {
    let mut cluster = Cluster::start(3);
    cluster.add(1);
    let addresses = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(4), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 4);
    traffic.wait_more(200);
    // The leader itself: it hands leadership over first.
    let leader = cluster.leader();
    let said = cli::leave(cluster.api(leader));
    assert_eq!(said.code, Some(0), "{said:?}");
    let other = 1 + leader % 3;
    eventually("three voters again", AGREE_TIMEOUT, || {
        let status = cli::status(cluster.api(other))?;
        (status.members.len() == 3 && status.voters() == 3 && status.leader.is_some()).then_some(())
    });
    traffic.wait_more(200);
    let acked = traffic.stop();
    let rest: Vec<_> = (1..=4).filter(|i| *i != leader).map(|i| cluster.mqtt(i)).collect();
    collector.expect_all(&acked, &rest, DRAIN);
}

#[test]
fn a_dead_node_is_replaced() {
    let mut cluster = Cluster::start(3);
    let victim = cluster.follower(&[]);
    let name = cluster.node(victim).name.clone();
    let via = cluster.leader();
    cluster.kill9(victim);
    cluster.wait_up(victim, false);
    let said = cli::forget(cluster.api(via), &name);
    assert_eq!(said.code, Some(0), "{said:?}");
    let new = cluster.add(via);
    eventually("three voters again", AGREE_TIMEOUT, || {
        let status = cli::status(cluster.api(via))?;
        (status.voters() == 3 && status.member(&name).is_none()).then_some(())
    });
    Client::connect(cluster.mqtt(new), &Options::v5(&fresh("c"))).expect("the new node serves");

    // The forgotten one comes back: it is told so, in one line, and does not linger.
    cluster.node(victim).spawn();
    let status = cluster.node(victim).wait_exit();
    assert!(!status.success(), "{status}");
    let log = cluster.node(victim).log();
    assert!(log.lines().any(|line| line.to_lowercase().contains("forgotten")), "{log}");
}

#[test]
fn a_node_that_runs_cannot_be_forgotten() {
    let cluster = Cluster::start(3);
    let said = cli::forget(cluster.api(1), "n3");
    assert_eq!(said.code, UNSAFE, "{said:?}");
    let said = cli::forget(cluster.api(1), "n9");
    assert_eq!(said.code, Some(3), "not found: {said:?}");
}

#[test]
fn a_leave_that_breaks_the_quorum_is_refused() {
    let mut cluster = Cluster::start(3);
    cluster.kill9(3);
    cluster.wait_up(3, false);
    let said = cli::leave(cluster.api(2));
    assert_eq!(said.code, UNSAFE, "{said:?}");
    assert!(said.stderr.to_lowercase().contains("quorum") || said.stdout.contains("quorum"), "{said:?}");
    // And nothing has changed by asking.
    let mut client =
        Client::connect(cluster.mqtt(2), &Options::v5(&fresh("c")).persistent()).expect("connects");
    let topic = fresh("t");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    assert_eq!(client.publish(&topic, "on", 1).expect("acknowledged"), 0);
}

#[test]
fn a_node_returns_on_other_ports_under_the_same_identity() {
    let mut cluster = Cluster::start(3);
    let topic = fresh("moved");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    client.crash();
    cluster.node(3).stop();
    let mut publisher = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(publisher.publish(&topic, "while away", 1).expect("acknowledged"), 0);
    cluster.restart_elsewhere(3);
    let status = cluster.status().expect("a status");
    assert_eq!((status.members.len(), status.voters()), (3, 3), "{status:?}");
    let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
    assert!(client.session_present);
    assert_eq!(client.recv(SOON).expect("there").text(), "while away");
    // The others reach it where it is now: it is the quorum's second half.
    cluster.kill9(2);
    eventually("acknowledged by n1 and n3", AGREE_TIMEOUT, || {
        let mut publisher = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("pub"))).ok()?;
        (publisher.publish(&topic, "again", 1).ok()? == 0).then_some(())
    });
    assert_eq!(client.recv(SOON).expect("there").text(), "again");
}

#[test]
fn all_nodes_return_on_other_ports() {
    let mut cluster = Cluster::start(3);
    let topic = fresh("moved");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    client.crash();
    let mut publisher = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(publisher.publish(&topic, "kept", 1).expect("acknowledged"), 0);
    cluster.node(2).stop();
    cluster.restart_elsewhere(2);
    cluster.node(3).stop();
    cluster.restart_elsewhere(3);
    cluster.node(1).stop();
    cluster.restart_elsewhere(1);
    let mut client = Client::connect(cluster.mqtt(2), &options).expect("connects");
    assert!(client.session_present);
    assert_eq!(client.recv(SOON).expect("there").text(), "kept");
}

#[test]
fn a_stranger_does_not_get_in() {
    let mut cluster = Cluster::start(1);
    let stranger = cluster.spawn_another();
    let seed = cluster.node(1).ports.peer;
    let said = cli::try_join(cluster.api(stranger), seed, "not-a-token");
    assert_eq!(said.code, Some(7), "{said:?}");
    let status = cluster.status().expect("a status");
    assert_eq!(status.members.len(), 1, "{status:?}");
}

#[test]
fn a_member_of_another_cluster_does_not_join() {
    let (mut one, two) = (Cluster::start(1), Cluster::start(1));
    let token = cli::token(one.api(1));
    let said = cli::try_join(two.api(1), one.node(1).ports.peer, &token);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("cluster"), "{said:?}");
    for cluster in [&one, &two] {
        let status = cli::status(cluster.api(1)).expect("a status");
        assert_eq!((status.members.len(), status.voters()), (1, 1), "{status:?}");
        Client::connect(cluster.mqtt(1), &Options::v5(&fresh("c"))).expect("serves as before");
    }
}
