//! Nodes die, and nothing that was acknowledged is lost.

use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options, Prop, Props, Publish, Version, Will, prop};
use cluster_tests::traffic::{Collector, Traffic};

/// For everything acknowledged to reach a subscriber that is back.
const DRAIN: Duration = Duration::from_secs(60);

const SOON: Duration = Duration::from_secs(20);

/// From the death of a node to its wills, as promised.
const WILLS: Duration = Duration::from_secs(3);

/// Load from all nodes, with a subscriber on `watcher` while `fail` happens to the cluster.
fn nothing_is_lost(cluster: &mut Cluster, watcher: usize, fail: impl FnOnce(&mut Cluster, &Traffic)) {
    let addresses = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(watcher), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 4);
    traffic.wait_more(300);
    fail(cluster, &traffic);
    collector.collect(Duration::from_millis(100));
    traffic.wait_more(300);
    let acked = traffic.stop();
    collector.expect_all(&acked, &addresses, DRAIN);
}

#[test]
fn a_follower_dies_under_load() {
    let mut cluster = Cluster::start(3);
    let (leader, victim) = (cluster.leader(), cluster.follower(&[]));
    nothing_is_lost(&mut cluster, leader, |cluster, traffic| {
        cluster.kill9(victim);
        traffic.wait_more(500);
        cluster.restart(victim);
    });
}

#[test]
fn the_leader_dies_under_load() {
    let mut cluster = Cluster::start(3);
    let watcher = cluster.follower(&[]);
    nothing_is_lost(&mut cluster, watcher, |cluster, traffic| {
        let leader = cluster.leader();
        cluster.kill9(leader);
        traffic.wait_more(500);
        cluster.restart(leader);
    });
}

#[test]
fn the_owner_of_the_session_dies_under_load() {
    let mut cluster = Cluster::start(3);
    let owner = cluster.follower(&[]);
    nothing_is_lost(&mut cluster, owner, |cluster, traffic| {
        cluster.kill9(owner);
        traffic.wait_more(500);
    });
}

#[test]
fn the_leader_that_owns_the_session_dies_again_and_again() {
    let mut cluster = Cluster::start(3);
    let addresses = cluster.mqtt_all();
    let mut leader = cluster.leader();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(leader), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 4);
    for _ in 0..3 {
        traffic.wait_more(200);
        collector.collect(Duration::from_millis(50));
        cluster.kill9(leader);
        let next = cluster.leader();
        collector.move_to(cluster.mqtt(next));
        traffic.wait_more(200);
        cluster.restart(leader);
        leader = cluster.leader();
        collector.move_to(cluster.mqtt(leader));
    }
    let acked = traffic.stop();
    collector.expect_all(&acked, &addresses, DRAIN);
}

#[test]
fn a_leader_that_froze_comes_back_without_a_second_truth() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let options = Options::v5(&fresh("owned")).persistent();
    let mut old = Client::connect(cluster.mqtt(leader), &options).expect("connects");
    let watcher = cluster.follower(&[]);
    nothing_is_lost(&mut cluster, watcher, |cluster, traffic| {
        cluster.freeze(leader);
        traffic.wait_more(300);
        let other = Client::connect(cluster.mqtt(watcher), &options).expect("the session moves meanwhile");
        assert!(other.session_present);
        cluster.thaw(leader);
        let ended = old.ending(SOON).expect("the old owner lets go");
        assert!(matches!(ended, Error::Disconnected(0x8e | 0x8b) | Error::Closed), "{ended}");
        cluster.node(leader).wait_ready();
    });
}

#[test]
fn the_wills_of_a_dead_node_fire_in_time_and_once() {
    let mut cluster = Cluster::start(3);
    for turn in 0..2 {
        // First a follower's wills, then the leader's, which has an election before it.
        let victim = if turn == 0 { cluster.follower(&[]) } else { cluster.leader() };
        let heir = cluster.follower(&[victim]);
        let prefix = fresh("will");
        let mut watching =
            Client::connect(cluster.mqtt(heir), &Options::v5(&fresh("heir"))).expect("connects");
        watching.subscribe(&[(&format!("{prefix}/+"), 1)]).expect("SUBACK");
        let dying: Vec<Client> = (0..20)
            .map(|i| {
                let version = if i % 2 == 0 { Version::V5 } else { Version::V311 };
                let will = Will::new(&format!("{prefix}/{i}"), "gone", i % 3);
                let options = Options::new(version, &fresh("dying")).will(will);
                Client::connect(cluster.mqtt(victim), &options).expect("connects")
            })
            .collect();
        let died = Instant::now();
        cluster.kill9(victim);
        let mut topics: Vec<String> =
            (0..20).map(|_| watching.recv(SOON).expect("every will fires").topic).collect();
        let took = died.elapsed();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 20, "each will once");
        assert!(took <= WILLS, "wills of a dead node fired after {took:?}");
        drop(dying);
        cluster.restart(victim);
        assert!(watching.quiet().expect("connected"), "no will fires again when the node is back");
    }
}

#[test]
fn wills_with_a_delay_wait_for_the_client_on_another_node() {
    let mut cluster = Cluster::start(3);
    let (victim, heir) = (cluster.follower(&[]), cluster.leader());
    let mut watching = Client::connect(cluster.mqtt(heir), &Options::v5(&fresh("heir"))).expect("connects");
    let topic = fresh("delayed");
    watching.subscribe(&[(&topic, 1)]).expect("SUBACK");
    let will = Will { delay_s: 300, ..Will::new(&topic, "gone", 1) };
    let options = Options::v5(&fresh("delaying")).persistent().will(will);
    let client = Client::connect(cluster.mqtt(victim), &options).expect("connects");
    cluster.kill9(victim);
    let client_again = Client::connect(cluster.mqtt(heir), &options).expect("comes back elsewhere");
    assert!(client_again.session_present);
    cluster.wait_up(victim, false);
    assert!(watching.quiet().expect("connected"), "the client is back, the will is not due");
    drop(client);
}

/// Queues, retained messages and subscriptions before the whole cluster ends in `stop`, and after.
fn everything_is_kept(stop: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(3);
    let topic = fresh("kept");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    client.subscribe(&[(&format!("{topic}/queue"), 2)]).expect("SUBACK");
    client.crash();
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    let want: Vec<String> = (0..300).map(|i| i.to_string()).collect();
    for text in &want {
        // A kilobyte each, so that the queue does not fit into one block of anything.
        let padded = format!("{text:>1024}");
        assert_eq!(publisher.publish(&format!("{topic}/queue"), padded, 1).expect("acknowledged"), 0);
    }
    assert!(publisher.retain(&format!("{topic}/retained"), "value", 1).expect("acknowledged") < 0x80);
    assert!(publisher.retain(&format!("{topic}/cleared"), "value", 1).expect("acknowledged") < 0x80);
    assert!(publisher.retain(&format!("{topic}/cleared"), "", 1).expect("acknowledged") < 0x80);

    stop(&mut cluster);
    cluster.start_all();

    let mut reader = Client::connect(cluster.mqtt(3), &Options::v5(&fresh("reader"))).expect("connects");
    reader.subscribe(&[(&format!("{topic}/retained"), 1), (&format!("{topic}/cleared"), 1)]).expect("SUBACK");
    let retained = reader.recv(SOON).expect("the retained message");
    assert_eq!((retained.text().as_str(), retained.retain), ("value", true));
    assert!(reader.quiet().expect("connected"), "a cleared message is not kept");

    let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
    assert!(client.session_present);
    let got = client.texts(want.len(), DRAIN).expect("all there");
    assert!(got.iter().map(|text| text.trim()).eq(want.iter().map(String::as_str)), "in order: {got:?}");
    let mut publisher = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(publisher.publish(&format!("{topic}/queue"), "still subscribed", 1).expect("acknowledged"), 0);
    assert_eq!(client.recv(SOON).expect("there").text(), "still subscribed");
}

#[test]
fn a_full_stop_keeps_everything() {
    everything_is_kept(Cluster::stop_all);
}

#[test]
fn the_death_of_all_nodes_at_once_keeps_everything() {
    everything_is_kept(|cluster| (1..=3).for_each(|i| cluster.kill9(i)));
}

/// Sessions, wills and messages go on ageing while nobody is there to count the time.
#[test]
fn time_goes_on_while_all_nodes_are_down() {
    const DOWN: Duration = Duration::from_secs(6);
    let mut cluster = Cluster::start(3);
    let topic = fresh("ageing");
    let expiring = |s| Options::v5(&fresh("session")).prop(prop::SESSION_EXPIRY_S, Prop::U32(s));
    let will = Will { delay_s: 4, ..Will::new(&format!("{topic}/will"), "gone", 1) };
    let sessions = [expiring(4), expiring(3600), expiring(3601).will(will)]
        .map(|options| Options { clean_start: false, ..options });
    let mut clients = sessions.each_ref().map(|o| Client::connect(cluster.mqtt(1), o).expect("connects"));
    clients[1].subscribe(&[(&format!("{topic}/#"), 1)]).expect("SUBACK");
    clients.into_iter().for_each(|client| drop(client.crash()));
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    for (text, expiry_s) in [("short", 4), ("long", 3600)] {
        let props = Props::default().with(prop::MESSAGE_EXPIRY_S, Prop::U32(expiry_s));
        publisher.publish_with(&format!("{topic}/x"), text, 1, false, props).expect("acknowledged");
    }
    (1..=3).for_each(|i| cluster.kill9(i));
    cluster_tests::wait::pass(DOWN);
    cluster.start_all();

    let mut clients = sessions.each_ref().map(|o| Client::connect(cluster.mqtt(3), o).expect("connects"));
    assert_eq!(clients.each_ref().map(|client| client.session_present), [false, true, true]);
    let mut got = clients[1].texts(2, SOON).expect("the long message and the will");
    got.sort();
    assert_eq!(got, ["gone", "long"]);
    assert!(clients[1].quiet().expect("connected"));
}

#[test]
fn a_minority_acknowledges_nothing_and_heals_by_itself() {
    let mut cluster = Cluster::start(3);
    let left = cluster.follower(&[]);
    let others: Vec<usize> = (1..=3).filter(|i| *i != left).collect();
    let topic = fresh("minority");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = Client::connect(cluster.mqtt(left), &options).expect("connects");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    let mut publisher = Client::connect(cluster.mqtt(left), &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(publisher.publish(&topic, "before", 1).expect("acknowledged"), 0);
    assert_eq!(client.recv(SOON).expect("there").text(), "before");
    others.iter().for_each(|i| cluster.kill9(*i));

    let id = publisher.take_id();
    let message = Publish {
        topic: topic.clone(),
        payload: b"during".to_vec(),
        qos: 1,
        retain: false,
        dup: false,
        id,
        props: Props::default(),
    };
    publisher.send_publish(&message).expect("sent");
    // No answer, an error, or the end of the connection: all but success.
    match publisher.next_puback(Duration::from_secs(6)) {
        Ok(ack) => assert!(ack.code >= 0x80, "a minority acknowledged: {ack:?}"),
        Err(Error::Timeout | Error::Closed | Error::Disconnected(_)) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(!cluster.node(left).answers("/readyz"), "a minority is not ready");
    assert!(cluster.node(left).answers("/livez"), "but it lives");

    cluster.start_all();
    let mut publisher = Client::connect(cluster.mqtt(left), &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(publisher.publish(&topic, "after", 1).expect("acknowledged"), 0);
    let mut client = Client::connect(cluster.mqtt(others[0]), &options).expect("connects");
    assert!(client.session_present);
    loop {
        // "during" may have been taken in after all; it was not acknowledged, so it may also not.
        let text = client.recv(SOON).expect("there").text();
        if text == "after" {
            break;
        }
        assert!(text == "during" || text == "before", "{text}");
    }
}

#[test]
fn message_expiry_counts_the_time_in_the_queue_of_a_dead_node() {
    let mut cluster = Cluster::start(3);
    let topic = fresh("expiry");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    client.crash();
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    let expiry = |s| Props::default().with(prop::MESSAGE_EXPIRY_S, Prop::U32(s));
    publisher.publish_with(&topic, "short", 1, false, expiry(1)).expect("acknowledged");
    publisher.publish_with(&topic, "long", 1, false, expiry(1000)).expect("acknowledged");
    let published = Instant::now();
    cluster.kill9(1);
    // The death of the node and what follows it take longer than the short message lives.
    cluster.wait_up(1, false);
    cluster_tests::wait::eventually("the short message is over", SOON, || {
        (published.elapsed() > Duration::from_secs(2)).then_some(())
    });
    let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
    let message = client.recv(SOON).expect("the long one");
    assert_eq!(message.text(), "long");
    let left = message.props.number(prop::MESSAGE_EXPIRY_S).expect("the rest of its life");
    assert!((900..1000).contains(&left), "{left} s left of 1000");
    assert!(client.quiet().expect("connected"));
}
