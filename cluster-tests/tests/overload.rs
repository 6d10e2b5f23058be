//! A node that has more to do than it can: what clients are told, and that those who are connected
//! notice nothing. `scripts/storm` and `scripts/overload-report` do the same at full size.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster_tests::attack::siege::{self, Siege};
use cluster_tests::cluster::{Cluster, PATIENT};
use cluster_tests::login::{QUOTA_EXCEEDED, UNAVAILABLE_3, USE_ANOTHER_SERVER, connack};
use cluster_tests::mqtt::{Client, Error, Options, Version};
use cluster_tests::reconnect::{self, Plan};
use cluster_tests::wait::eventually;
use cluster_tests::{fresh, login};

const SOON: Duration = Duration::from_secs(20);
fn v5() -> Options {
    Options::v5(&fresh("overload"))
}

fn let_in(to: SocketAddr) -> Client {
    login::connect(to, &v5()).expect("connects")
}

#[test]
fn all_clients_of_a_node_that_dies_come_back_and_nothing_else_fails() {
    let plan = Plan { clients: 3_000, steady: 100, messages_per_s: 100, accept_rate: 1_000, leader: false };
    let mut cluster = Cluster::start_with(3, &format!("{PATIENT}\n{}", plan.toml()));
    let outcome = reconnect::run(&mut cluster, plan);
    println!("{}", outcome.table());
    assert!(outcome.failures().is_empty(), "{:#?}", outcome.failures());
}

#[test]
fn attackers_leave_nothing_behind_and_nobody_loses_anything() {
    let mut cluster = Cluster::start_with(3, &format!("{PATIENT}\n{}", siege::TOML));
    let attacked = Duration::from_secs(4);
    let siege = Siege { good_clients: 100, messages_per_s: 100, rounds: 1, attacked };
    let endured = siege::run(&mut cluster, siege);
    println!("{}", siege::table(&endured));
    let kept: Vec<String> = endured.iter().filter_map(|row| row.leftovers()).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

#[test]
fn a_full_node_says_where_there_is_room_or_that_there_is_none() {
    // Nobody is sent to the third node: it does not say how clients reach it.
    let mut cluster = Cluster::start_with(3, "[limits]\nmax_connections = 3\n");
    for i in 1..=2 {
        let reference = cluster.mqtt(i).to_string();
        cluster.node(i).stop();
        cluster.node(i).set_variable("ROOKERY__NODE__SERVER_REFERENCE", &reference);
        cluster.restart(i);
    }
    let (first, second) = (cluster.mqtt(1), cluster.mqtt(2));
    let mut clients: Vec<Client> = (0..3).map(|_| let_in(first)).collect();
    let wants = (USE_ANOTHER_SERVER, Some(second.to_string()));
    eventually("a way to the other node", SOON, || (connack(first, &v5()) == wants).then_some(()));
    for version in [Version::V31, Version::V311] {
        let options = Options::new(version, &fresh("old"));
        assert_eq!(connack(first, &options), (UNAVAILABLE_3, None));
    }
    // Who follows it is let in, until that node has no room worth telling of either.
    clients.extend((0..3).map(|_| let_in(second)));
    for node in [first, second] {
        let wants = (QUOTA_EXCEEDED, None);
        eventually("no way anywhere", SOON, || (connack(node, &v5()) == wants).then_some(()));
    }
    assert!(cluster.metric(1, "rookery_connects_redirected_total") >= 1.0);
    assert!(cluster.metric(1, "rookery_connects_refused_overload_total") >= 3.0);
    clients.iter_mut().for_each(|client| assert!(client.ping().is_ok()));
    // A place that is given up is there for somebody else.
    clients.remove(0).disconnect().expect("leaves");
    eventually("a place", SOON, || Client::connect(first, &v5()).ok());
}

#[test]
fn a_node_short_of_memory_refuses_clients_and_serves_those_it_has() {
    let mut cluster = Cluster::start_with(1, "");
    let resident = cluster.metric(1, "rookery_memory_bytes");
    cluster.node(1).stop();
    // So much more that what a burst of messages leaves in the log and the allocator is no shortage.
    let limit = resident as u64 + (160 << 20);
    cluster.node(1).set_variable("ROOKERY__LIMITS__MAX_MEMORY_BYTES", &limit.to_string());
    cluster.restart(1);
    let node = cluster.mqtt(1);
    let (mut old, topic) = (let_in(node), fresh("kept"));
    let payload = "x".repeat(512 << 10);
    let mut kept = 0;
    let is_full = || {
        cluster.metric(1, "rookery_overload_level") >= 3.0
            && cluster.metric(1, "rookery_memory_bytes") >= limit as f64
    };
    while !is_full() {
        assert!(kept < 1_000, "{} bytes of {limit}", cluster.metric(1, "rookery_memory_bytes"));
        // Without room for it the message is refused, and the memory stays as full.
        old.retain(&format!("{topic}/{kept}"), &payload, 1).expect("acknowledged");
        kept += 1;
    }
    assert_eq!(connack(node, &v5()), (QUOTA_EXCEEDED, None));
    assert_eq!(connack(node, &Options::v311(&fresh("old"))), (UNAVAILABLE_3, None));
    // Who is connected goes on as before.
    old.subscribe(&[("own", 1)]).expect("SUBACK");
    old.publish("own", "to me", 1).expect("PUBACK");
    assert_eq!(old.recv(SOON).expect("arrives").text(), "to me");
    old.ping().expect("PINGRESP");
    assert!(cluster.node(1).log().contains("this node is overloaded"), "nobody is told");
    // And when there is room again, everybody is let in.
    for i in 0..kept {
        old.retain(&format!("{topic}/{i}"), "", 1).expect("acknowledged");
    }
    eventually("a client that is let in", Duration::from_secs(120), || match Client::connect(node, &v5()) {
        Ok(client) => Some(client),
        Err(Error::Refused(QUOTA_EXCEEDED)) => None,
        Err(other) => panic!("{other}"),
    });
}

#[test]
fn who_publishes_too_fast_waits_and_loses_nothing() {
    const RATE: u64 = 20;
    const COUNT: u64 = 60;
    let cluster = Cluster::start_with(1, &format!("[limits]\nmax_publish_rate = {RATE}\n"));
    let mut subscriber = let_in(cluster.mqtt(1));
    let topic = fresh("fast");
    subscriber.subscribe(&[(&topic, 1)]).expect("SUBACK");
    let mut publisher = let_in(cluster.mqtt(1));
    let began = Instant::now();
    for at in 0..COUNT {
        assert!(publisher.publish(&topic, at.to_string(), 1).expect("acknowledged") < 0x80);
    }
    let took = began.elapsed();
    let least = Duration::from_secs_f64((COUNT - RATE) as f64 / RATE as f64 * 0.95);
    assert!(took >= least, "{COUNT} messages in {took:?}");
    let wants: Vec<String> = (0..COUNT).map(|at| at.to_string()).collect();
    assert_eq!(subscriber.texts(COUNT as usize, SOON).expect("all of them"), wants);
    assert!(cluster.metric(1, "rookery_publishers_slowed_total") >= 1.0);
}
