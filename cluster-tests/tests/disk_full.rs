//! A node's disk is full. The node says so, writes nothing for its clients and leads no longer, the
//! others go on without it, and when there is room again nobody has to do anything.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Setup};
use cluster_tests::faults::skip;
use cluster_tests::mqtt::{Client, Error, Options, Version};
use cluster_tests::traffic::{Collector, Traffic};
use cluster_tests::wait::eventually;
use cluster_tests::{fresh, http};

const SOON: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(60);

/// The log takes two files of 16 MiB from the beginning; a node wants 64 MiB more to be free.
const DISK_BYTES: u64 = 160 << 20;

/// Three nodes with small disks; `None`, and the reason is told, where that needs more rights.
fn small() -> Option<Cluster> {
    let setup = Setup { disk_bytes: Some(DISK_BYTES), ..Setup::default() };
    match Cluster::set_up(3, setup) {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            skip("a full disk", &why);
            None
        }
    }
}

fn to(cluster: &Cluster, node: usize, options: &Options) -> Client {
    Client::connect(cluster.mqtt(node), options).expect("connects")
}

fn clean(cluster: &Cluster, node: usize) -> Client {
    to(cluster, node, &Options::v5(&fresh("clean")))
}

/// What `/readyz` says.
fn readiness(cluster: &Cluster, i: usize) -> (u16, String) {
    http::get(cluster.api(i), "/readyz").expect("/readyz answers")
}

/// Waits until the node says that its disk is full, everywhere where it should.
fn wait_short(cluster: &mut Cluster, victim: usize) {
    eventually("/readyz says why", SOON, || {
        let (status, body) = readiness(cluster, victim);
        (status == 503 && body.contains("disk")).then_some(())
    });
    assert!(cluster.node(victim).answers("/livez"), "it lives");
    assert_eq!(cluster.metric(victim, "rookery_disk_short"), 1.0);
}

/// Publishes through `node` until the log of `victim` can be written no more.
fn exhaust(cluster: &Cluster, node: usize, victim: usize) {
    let mut publisher = clean(cluster, node);
    let topic = fresh("exhaust");
    let payload = vec![b'x'; 512 << 10];
    eventually("the log waits for room", DRAIN, || {
        // The same retained message again and again: much log, little state.
        assert!(publisher.retain(&topic, &payload, 1).expect("acknowledged by the others") < 0x80);
        (cluster.metric(victim, "rookery_log_waits_for_disk") == 1.0).then_some(())
    });
}

/// Load through all nodes and a persistent subscriber of the others, while the disk of `victim` is
/// full, and after.
fn a_disk_is_full(cluster: &mut Cluster, victim: usize, during: impl FnOnce(&mut Cluster, &Traffic)) {
    let other = cluster.follower(&[victim]);
    let addresses = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(other), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 3);
    traffic.wait_more(100);
    cluster.disk(victim).fill(0);
    wait_short(cluster, victim);
    during(cluster, &traffic);
    traffic.wait_more(100);
    cluster.disk(victim).relieve();
    cluster.node(victim).wait_ready();
    traffic.wait_more(100);
    let acked = traffic.stop();
    collector.expect_all(&acked, &addresses, DRAIN);
}

#[test]
fn a_follower_whose_disk_is_full_refuses_writes_and_the_others_go_on() {
    let Some(mut cluster) = small() else { return };
    let victim = cluster.follower(&[]);
    let other = cluster.leader();
    let topic = fresh("full");
    let options = Options::v5(&fresh("session")).persistent();
    let mut session = to(&cluster, victim, &options);
    session.subscribe(&[(&format!("{topic}/queue"), 1)]).expect("SUBACK");
    let (mut five, mut listener) = (clean(&cluster, victim), clean(&cluster, victim));
    listener.subscribe(&[(&format!("{topic}/clean"), 1)]).expect("SUBACK");
    let mut three = to(&cluster, victim, &Options::v311(&fresh("three")));
    a_disk_is_full(&mut cluster, victim, |cluster, traffic| {
        assert_eq!(five.publish(&format!("{topic}/queue"), "no", 1).expect("an answer"), 0x97);
        assert_eq!(five.subscribe(&[("more", 1)]).expect("SUBACK"), [0x97]);
        assert!(matches!(three.publish(&format!("{topic}/queue"), "no", 1), Err(Error::Closed)));
        for version in [Version::V5, Version::V311] {
            let late = Client::connect(cluster.mqtt(victim), &Options::new(version, &fresh("late")));
            assert!(matches!(late, Err(Error::Refused(0x97 | 3))), "{:?}", late.err());
        }
        // What needs no disk goes on.
        for qos in 0..=2 {
            assert_eq!(five.publish(&format!("{topic}/clean"), "yes", qos).expect("acknowledged"), 0);
            assert_eq!(listener.recv(SOON).expect("delivered").text(), "yes");
        }
        let name = cluster.node(victim).name.clone();
        let said = cluster_tests::cluster::cli::cluster(cluster.api(other), &["status"]);
        assert_ne!(said.code, Some(0), "not healthy: {said:?}");
        assert!(said.stderr.contains(&name) && said.stderr.contains("disk is full"), "{said:?}");

        exhaust(cluster, other, victim);
        traffic.wait_more(200);
        let mut publisher = clean(cluster, other);
        let code = publisher.publish(&format!("{topic}/queue"), "meanwhile", 1).expect("acknowledged");
        assert_eq!(code, 0);
        // It survives a crash in this state as in any other.
        cluster.kill9(victim);
        cluster.disk(victim).relieve();
        cluster.restart(victim);
        cluster.disk(victim).fill(0);
        wait_short(cluster, victim);
    });
    let mut session = to(&cluster, victim, &options);
    assert!(session.session_present);
    assert_eq!(session.recv(SOON).expect("queued by the others").text(), "meanwhile");
}

#[test]
fn a_leader_whose_disk_is_full_hands_over() {
    let Some(mut cluster) = small() else { return };
    let victim = cluster.leader();
    a_disk_is_full(&mut cluster, victim, |cluster, traffic| {
        let other = eventually("another leader", SOON, || Some(cluster.leader()).filter(|i| *i != victim));
        traffic.wait_more(200);
        exhaust(cluster, other, victim);
        traffic.wait_more(200);
    });
    assert_eq!(readiness(&cluster, victim).0, 200);
}

#[test]
fn all_disks_are_full_and_all_recover() {
    let Some(mut cluster) = small() else { return };
    let topic = fresh("all");
    let options = Options::v5(&fresh("session")).persistent();
    let mut session = to(&cluster, 1, &options);
    session.subscribe(&[(&topic, 1)]).expect("SUBACK");
    let mut publishers: Vec<Client> = (1..=3).map(|i| clean(&cluster, i)).collect();
    (1..=3).for_each(|i| cluster.disk(i).fill(0));
    (1..=3).for_each(|i| wait_short(&mut cluster, i));
    for publisher in &mut publishers {
        assert_eq!(publisher.publish(&topic, "no", 1).expect("an answer"), 0x97);
    }
    (1..=3).for_each(|i| cluster.disk(i).relieve());
    (1..=3).for_each(|i| cluster.node(i).wait_ready());
    for publisher in &mut publishers {
        assert_eq!(publisher.publish(&topic, "yes", 1).expect("acknowledged"), 0);
        assert_eq!(session.recv(SOON).expect("delivered").text(), "yes");
    }
}
