//! The network between the nodes breaks in every way that networks break. The majority goes on,
//! the minority says nothing that the majority could contradict, and when it is over everything is
//! there without anybody's help.

use std::time::Duration;

use cluster_tests::cluster::{Cluster, Setup};
use cluster_tests::faults::{Namespaces, Way, skip};
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options, Props, Publish, Version, Will};
use cluster_tests::traffic::{Collector, Traffic};
use cluster_tests::wait::{eventually, pass};

/// For everything acknowledged to reach a subscriber.
const DRAIN: Duration = Duration::from_secs(60);

const SOON: Duration = Duration::from_secs(20);

/// Without any acknowledgement, at most, while a majority is connected: an election and a lease,
/// and what the publishers need to give up a node that does not answer. The machine may be slow.
const SILENCE: Duration = Duration::from_secs(12);

/// A QoS 1 message under a packet id of its own.
fn qos1(client: &mut Client, topic: &str, text: &str) -> Publish {
    let (topic, payload, id) = (topic.to_owned(), text.as_bytes().to_vec(), client.take_id());
    Publish { topic, payload, qos: 1, retain: false, dup: false, id, props: Props::default() }
}

/// Waits until node `i` knows that it may not speak for the cluster.
fn wait_fenced(cluster: &mut Cluster, i: usize) {
    eventually("a node that is cut off is not ready", SOON, || {
        (!cluster.node(i).answers("/readyz")).then_some(())
    });
}

/// Load from all nodes, with a persistent subscriber on `watcher`, while `fail` happens and is
/// over. Says how long nothing was acknowledged.
fn under_load(
    cluster: &mut Cluster,
    watcher: usize,
    fail: impl FnOnce(&mut Cluster, &Traffic, &mut Collector),
) -> Duration {
    let addresses = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(watcher), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 4);
    traffic.wait_more(200);
    fail(cluster, &traffic, &mut collector);
    for i in 1..=cluster.len() {
        cluster.node(i).wait_ready();
    }
    traffic.wait_more(200);
    let silence = traffic.longest_silence();
    let acked = traffic.stop();
    collector.expect_all(&acked, &addresses, DRAIN);
    let total: usize = acked.values().map(Vec::len).sum();
    println!("{total} acknowledged, none lost, {} repeated, silence {silence:?}", collector.repeated());
    silence
}

/// What clients of all kinds have on a node before it is cut off, and find afterwards.
struct Belongings {
    topic: String,
    /// A persistent session of the node that is cut off; its client stays connected.
    moving: Options,
    left_behind: Client,
    /// A persistent session whose client is away.
    away: Options,
    /// Clean clients of that node, which have nobody to tell them that anything is wrong.
    talker: Client,
    listener: Client,
    /// On another node, for the wills.
    watching: Client,
}

impl Belongings {
    fn before(cluster: &Cluster, victim: usize, other: usize) -> Self {
        let topic = fresh("belongings");
        let connect =
            |node, options: &Options| Client::connect(cluster.mqtt(node), options).expect("connects");
        let clean = |node| connect(node, &Options::v5(&fresh("clean")));
        let mut watching = clean(other);
        watching.subscribe(&[(&format!("{topic}/will"), 1)]).expect("SUBACK");
        let moving = Options::v5(&fresh("moving")).persistent();
        let mut left_behind = connect(victim, &moving);
        left_behind.subscribe(&[(&format!("{topic}/queue"), 2)]).expect("SUBACK");
        let away = Options::v311(&fresh("away")).persistent();
        let mut client = connect(victim, &away);
        client.subscribe(&[(&format!("{topic}/queue"), 1)]).expect("SUBACK");
        client.disconnect().expect("leaves");
        let mut listener = clean(victim);
        listener.subscribe(&[(&format!("{topic}/clean"), 1)]).expect("SUBACK");
        let will = Will::new(&format!("{topic}/will"), "cut off", 1);
        let mut talker = connect(victim, &Options::v5(&fresh("talker")).will(will));
        talker.publish(&format!("{topic}/clean"), "before", 1).expect("acknowledged");
        assert_eq!(listener.recv(SOON).expect("there").text(), "before");
        assert!(talker.retain(&format!("{topic}/retained"), "before", 1).expect("acknowledged") < 0x80);
        Belongings { topic, moving, left_behind, away, talker, listener, watching }
    }

    fn topic(&self, last: &str) -> String {
        format!("{}/{last}", self.topic)
    }

    /// The minority: QoS 0 passes, nothing else is promised.
    fn minority(&mut self, cluster: &Cluster, victim: usize) {
        let (clean, queue) = (self.topic("clean"), self.topic("queue"));
        self.talker.publish(&clean, "during", 0).expect("sent");
        assert_eq!(self.listener.recv(SOON).expect("QoS 0 passes").text(), "during");
        for topic in [&clean, &queue] {
            let message = qos1(&mut self.talker, topic, "unacknowledged");
            self.talker.send_publish(&message).expect("sent");
            let ack = self.talker.next_puback(SOON).expect("an answer");
            assert!(ack.code >= 0x80, "a minority acknowledged: {ack:?}");
        }
        let codes = self.listener.subscribe(&[(&self.topic("more"), 1)]).expect("SUBACK");
        assert!(codes[0] >= 0x80, "a minority granted a subscription: {codes:?}");
        for version in [Version::V5, Version::V311] {
            let refused = Client::connect(cluster.mqtt(victim), &Options::new(version, &fresh("late")));
            match refused {
                Err(Error::Refused(0x88 | 3) | Error::Closed) => {}
                Err(error) => panic!("a minority refused with {error}"),
                Ok(_) => panic!("a minority let a client in"),
            }
        }
    }

    /// The majority has everything, and goes on with it.
    fn majority(&mut self, cluster: &Cluster, other: usize) {
        assert_eq!(self.watching.recv(SOON).expect("the will of a node that is gone").text(), "cut off");
        let mut client = Client::connect(cluster.mqtt(other), &self.moving).expect("the session moves");
        assert!(client.session_present);
        let mut publisher =
            Client::connect(cluster.mqtt(other), &Options::v5(&fresh("pub"))).expect("connects");
        assert_eq!(publisher.publish(&self.topic("queue"), "during", 2).expect("acknowledged"), 0);
        assert_eq!(client.recv(SOON).expect("delivered on the other side").text(), "during");
        let retained = publisher.retain(&self.topic("retained"), "during", 1).expect("acknowledged");
        assert!(retained < 0x80, "{retained:#04x}");
        client.disconnect().expect("leaves");
    }

    /// Both sides together again.
    fn after(mut self, cluster: &Cluster, victim: usize, other: usize) {
        // Those of the old life are told to come back.
        for client in [&mut self.left_behind, &mut self.talker, &mut self.listener] {
            let ended = client.ending(SOON).expect("the node's old life ends");
            assert!(matches!(ended, Error::Disconnected(0x8b | 0x8e) | Error::Closed), "{ended}");
        }
        assert!(self.watching.quiet().expect("connected"), "each will once");
        let connect =
            |node, options: &Options| Client::connect(cluster.mqtt(node), options).expect("connects");
        let clean = |node| connect(node, &Options::v5(&fresh("clean")));
        let mut reader = clean(victim);
        reader.subscribe(&[(&self.topic("retained"), 1), (&self.topic("clean"), 1)]).expect("SUBACK");
        assert_eq!(reader.recv(SOON).expect("the retained message").text(), "during");
        let mut publisher = clean(other);
        assert_eq!(publisher.publish(&self.topic("clean"), "after", 1).expect("acknowledged"), 0);
        assert_eq!(reader.recv(SOON).expect("clean subscribers receive again").text(), "after");
        assert_eq!(publisher.publish(&self.topic("queue"), "after", 2).expect("acknowledged"), 0);
        let mut client = connect(victim, &self.moving);
        assert!(client.session_present, "nobody deletes another's session");
        assert_eq!(client.recv(SOON).expect("there").text(), "after");
        assert!(client.quiet().expect("connected"), "once, at QoS 2");
        let mut client = connect(victim, &self.away);
        assert!(client.session_present, "nobody deletes another's session");
        assert_eq!(client.texts(2, SOON).expect("its queue"), ["during", "after"]);
    }
}

/// Cuts one node off by `cut` and heals it, with load and belongings on both sides.
fn one_is_cut_off(cluster: &mut Cluster, victim: usize, cut: impl FnOnce(&Cluster)) {
    let other = cluster.follower(&[victim]);
    let mut belongings = Belongings::before(cluster, victim, other);
    let silence = under_load(cluster, other, |cluster, traffic, _| {
        cut(cluster);
        wait_fenced(cluster, victim);
        belongings.majority(cluster, other);
        belongings.minority(cluster, victim);
        traffic.wait_more(200);
        cluster.links().heal();
    });
    assert!(silence < SILENCE, "nothing was acknowledged for {silence:?}");
    belongings.after(cluster, victim, other);
}

#[test]
fn a_follower_is_cut_off() {
    let mut cluster = Cluster::linked("");
    let victim = cluster.follower(&[]);
    one_is_cut_off(&mut cluster, victim, |cluster| cluster.links().isolate(victim));
}

#[test]
fn the_leader_is_cut_off() {
    let mut cluster = Cluster::linked("");
    let victim = cluster.leader();
    one_is_cut_off(&mut cluster, victim, |cluster| cluster.links().isolate(victim));
}

#[test]
fn nobody_hears_the_leader_which_hears_all() {
    let mut cluster = Cluster::linked("");
    let victim = cluster.leader();
    one_is_cut_off(&mut cluster, victim, |cluster| {
        (1..=3).filter(|i| *i != victim).for_each(|other| cluster.links().cut_one_way(victim, other));
    });
}

#[test]
fn a_follower_that_hears_nobody_is_heard_by_all() {
    let mut cluster = Cluster::linked("");
    let victim = cluster.follower(&[]);
    one_is_cut_off(&mut cluster, victim, |cluster| {
        (1..=3).filter(|i| *i != victim).for_each(|other| cluster.links().cut_one_way(other, victim));
    });
}

#[test]
fn every_node_is_alone_and_none_acknowledges_anything() {
    let mut cluster = Cluster::linked("");
    let watcher = cluster.follower(&[]);
    let topic = fresh("alone");
    under_load(&mut cluster, watcher, |cluster, traffic, collector| {
        let mut publishers: Vec<Client> = (1..=3)
            .map(|i| Client::connect(cluster.mqtt(i), &Options::v5(&fresh("pub"))).expect("connects"))
            .collect();
        (1..=3).for_each(|i| cluster.links().isolate(i));
        (1..=3).for_each(|i| wait_fenced(cluster, i));
        let before = traffic.acked();
        for publisher in &mut publishers {
            let message = qos1(publisher, &topic, "alone");
            publisher.send_publish(&message).expect("sent");
            let ack = publisher.next_puback(SOON).expect("an answer");
            assert!(ack.code >= 0x80, "a node alone acknowledged: {ack:?}");
        }
        assert_eq!(traffic.acked(), before, "a node alone acknowledged");
        collector.collect(Duration::from_millis(50));
        cluster.links().heal();
    });
}

#[test]
fn followers_that_cannot_reach_each_other_still_deliver_to_each_other() {
    let mut cluster = Cluster::linked("");
    let a = cluster.follower(&[]);
    let b = cluster.follower(&[a]);
    let topic = fresh("around");
    let mut subscriber = Client::connect(cluster.mqtt(b), &Options::v5(&fresh("sub"))).expect("connects");
    subscriber.subscribe(&[(&topic, 2)]).expect("SUBACK");
    let mut publisher = Client::connect(cluster.mqtt(a), &Options::v5(&fresh("pub"))).expect("connects");
    let relayed = |cluster: &Cluster| cluster.metric(a, "rookery_forward_lanes_relayed");
    let silence = under_load(&mut cluster, a, |cluster, traffic, _| {
        cluster.links().cut(a, b);
        let mut exchange = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                let code = publisher.publish(&topic, number.to_string(), 2).expect("acknowledged");
                assert_eq!(code, 0);
                let got = subscriber.recv(SOON).expect("delivered").text();
                assert_eq!(got, number.to_string(), "once, and in order");
            }
        };
        exchange(0..50);
        assert!(relayed(cluster) > 0.0, "there is no other way");
        traffic.wait_more(200);
        cluster.links().heal();
        eventually("the direct way is taken again", SOON, || (relayed(cluster) == 0.0).then_some(()));
        exchange(50..60);
    });
    assert!(silence < SILENCE, "nothing was acknowledged for {silence:?}");
}

#[test]
fn links_that_flap_lose_nothing() {
    let mut cluster = Cluster::linked("");
    let watcher = cluster.follower(&[]);
    under_load(&mut cluster, watcher, |cluster, traffic, collector| {
        // Shorter and longer than a heartbeat, an election, a lease.
        for (i, (cut_ms, healed_ms)) in
            [(100, 100), (300, 200), (700, 400), (1500, 300), (200, 50), (2500, 500), (900, 900)]
                .into_iter()
                .enumerate()
        {
            match i % 3 {
                0 => cluster.links().isolate(1 + i % 3),
                1 => cluster.links().cut(1 + i % 3, 1 + (i + 1) % 3),
                _ => cluster.links().cut_one_way(1 + i % 3, 1 + (i + 1) % 3),
            }
            pass(Duration::from_millis(cut_ms));
            cluster.links().heal();
            collector.collect(Duration::from_millis(healed_ms));
        }
        traffic.wait_more(100);
    });
}

#[test]
fn a_slow_link_slows_nobody_down_for_long() {
    let mut cluster = Cluster::linked("");
    let slow = cluster.follower(&[]);
    let watcher = cluster.leader();
    let silence = under_load(&mut cluster, watcher, |cluster, traffic, _| {
        let way = Way { delay: Duration::from_millis(60), rate: Some(512 << 10), ..Way::default() };
        for other in (1..=3).filter(|i| *i != slow) {
            cluster.links().set(slow, other, way);
            cluster.links().set(other, slow, way);
        }
        traffic.wait_more(1000);
        let status = cluster.status().expect("a status");
        let name = cluster.node(slow).name.clone();
        assert!(status.member(&name).is_some_and(|member| member.up), "it is slow, not gone");
        assert!(cluster.node(slow).answers("/readyz"), "it has its lease");
        cluster.links().heal();
    });
    assert!(silence < Duration::from_secs(4), "nothing was acknowledged for {silence:?}");
}

#[test]
fn packets_are_lost_between_the_leader_and_the_others() {
    let setup = match Namespaces::create(3) {
        Ok(namespaces) => Setup { namespaces: Some(namespaces), ..Setup::default() },
        Err(why) => return skip("real packet loss", &why),
    };
    let mut cluster = Cluster::set_up(3, setup).expect("namespaces were to be had");
    let names: Vec<String> = (1..=3).map(|i| cluster.node(i).name.clone()).collect();
    let number_of = |name: &str| 1 + names.iter().position(|n| n == name).expect("a member");
    let victim = number_of(&cluster.status().and_then(|s| s.leader).expect("a leader"));
    let other = 1 + victim % 3;
    let topic = fresh("lost");
    let options = Options::v5(&fresh("session")).persistent();
    let address = |cluster: &Cluster, i| cluster.mqtt(i);
    let connect = |cluster: &mut Cluster, i: usize, options: &Options| {
        let to = address(cluster, i);
        cluster.at(i, |_| Client::connect(to, options))
    };
    let mut subscriber = connect(&mut cluster, victim, &options).expect("connects");
    subscriber.subscribe(&[(&topic, 1)]).expect("SUBACK");
    let mut minority = connect(&mut cluster, victim, &Options::v5(&fresh("pub"))).expect("connects");
    assert_eq!(minority.publish(&topic, "before", 1).expect("acknowledged"), 0);
    assert_eq!(subscriber.recv(SOON).expect("there").text(), "before");

    cluster.namespaces().isolate(victim);
    let mut majority = eventually("the majority lets a client in", SOON, || {
        connect(&mut cluster, other, &Options::v5(&fresh("pub"))).ok()
    });
    assert_eq!(majority.publish(&topic, "during", 1).expect("acknowledged"), 0);
    cluster.at(victim, |cluster| wait_fenced(cluster, victim));
    let message = qos1(&mut minority, &topic, "unacknowledged");
    minority.send_publish(&message).expect("sent");
    let ack = minority.next_puback(SOON).expect("an answer");
    assert!(ack.code >= 0x80, "a minority acknowledged: {ack:?}");

    cluster.namespaces().heal();
    cluster.at(victim, |cluster| cluster.node(victim).wait_ready());
    let mut subscriber = connect(&mut cluster, victim, &options).expect("connects");
    assert!(subscriber.session_present);
    let texts: Vec<String> = std::iter::from_fn(|| Some(subscriber.recv(SOON).expect("there").text()))
        .take_while(|text| text != "during")
        .collect();
    // What the client had not acknowledged before the cut comes again.
    assert!(texts.iter().all(|text| text == "before"), "{texts:?}");
    assert!(subscriber.quiet().expect("connected"));
}
