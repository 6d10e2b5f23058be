//! Shared subscriptions over the whole cluster: each message to exactly one member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{AckKind, Client, Error, Options, Prop, prop};
use cluster_tests::wait::eventually;

const SOON: Duration = Duration::from_secs(20);

/// Publishes `count` messages from every node and collects what the members get, until nothing
/// more comes; the number of messages per member.
fn share_out(cluster: &Cluster, members: &mut [Client], topic: &str, qos: u8, count: usize) -> Vec<usize> {
    let mut want = Vec::new();
    for node in 1..=3 {
        let mut publisher =
            Client::connect(cluster.mqtt(node), &Options::v5(&fresh("pub"))).expect("connects");
        for i in 0..count {
            let text = format!("{node}/{i}");
            assert_eq!(publisher.publish(topic, &text, qos).expect("acknowledged"), 0);
            want.push(text);
        }
        // Behind all the messages, on the same path: they have left the node when this returns.
        publisher.publish(topic, "end", qos.max(1)).expect("acknowledged");
        want.push("end".into());
    }
    let mut got: BTreeMap<String, usize> = BTreeMap::new();
    let mut shares = vec![0; members.len()];
    let deadline = std::time::Instant::now() + SOON;
    while got.values().sum::<usize>() < want.len() && std::time::Instant::now() < deadline {
        for (member, share) in members.iter_mut().zip(&mut shares) {
            match member.recv(Duration::from_millis(20)) {
                Ok(message) => {
                    *got.entry(message.text()).or_default() += 1;
                    *share += 1;
                }
                Err(Error::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    for member in members {
        assert!(member.quiet().expect("connected"), "more than once: {got:?}");
    }
    want.sort();
    let got: Vec<String> = got.into_iter().flat_map(|(text, times)| vec![text; times]).collect();
    assert_eq!(got, want, "each to exactly one member, at QoS {qos}");
    shares
}

fn members(cluster: &Cluster, filter: &str, qos: u8, persistent: &[bool]) -> Vec<Client> {
    let connect = |(node, persistent): (usize, &bool)| {
        let options = Options::v5(&fresh("member"));
        let options = if *persistent { options.persistent() } else { options };
        let mut member = Client::connect(cluster.mqtt(node), &options).expect("connects");
        assert_eq!(member.subscribe(&[(filter, qos)]).expect("SUBACK"), [qos]);
        member
    };
    [1, 1, 2, 3].into_iter().zip(persistent).map(connect).collect()
}

#[test]
fn each_message_goes_to_one_member_and_each_member_gets_as_many() {
    let cluster = Cluster::start(3);
    for qos in 0..=2 {
        for persistent in [[false; 4], [true; 4], [true, false, true, false]] {
            let topic = fresh("shared");
            let filter = format!("$share/group/{topic}");
            let mut members = members(&cluster, &filter, qos, &persistent);
            let shares = share_out(&cluster, &mut members, &topic, qos, 100);
            // By turns, of three nodes that each begin anew.
            assert!(shares.iter().all(|share| share.abs_diff(303 / 4) <= 12), "{qos}: {shares:?}");
        }
    }
}

#[test]
fn two_groups_and_a_plain_subscriber_get_a_copy_each() {
    let cluster = Cluster::start(3);
    let topic = fresh("shared");
    let subscribe = |node: usize, filter: String| {
        let mut client = Client::connect(cluster.mqtt(node), &Options::v5(&fresh("c"))).expect("connects");
        client.subscribe(&[(&filter, 1)]).expect("SUBACK");
        client
    };
    let mut one = subscribe(1, format!("$share/one/{topic}"));
    let mut two = subscribe(2, format!("$share/two/{topic}"));
    let mut plain = subscribe(3, topic.clone());
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    for i in 0..50 {
        assert_eq!(publisher.publish(&topic, i.to_string(), 1).expect("acknowledged"), 0);
    }
    let want: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    for client in [&mut one, &mut two, &mut plain] {
        assert_eq!(client.texts(50, SOON).expect("all there"), want);
        assert!(client.quiet().expect("connected"));
    }
}

#[test]
fn what_a_lost_member_left_open_goes_to_another() {
    let cluster = Cluster::start(3);
    let topic = fresh("shared");
    let filter = format!("$share/group/{topic}");
    let mut lazy = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("lazy"))).expect("connects");
    lazy.auto_ack = false;
    lazy.subscribe(&[(&filter, 1)]).expect("SUBACK");
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    for i in 0..10 {
        assert_eq!(publisher.publish(&topic, i.to_string(), 1).expect("acknowledged"), 0);
    }
    lazy.texts(10, SOON).expect("delivered and not acknowledged");
    let mut heir = Client::connect(cluster.mqtt(3), &Options::v5(&fresh("heir"))).expect("connects");
    heir.subscribe(&[(&filter, 1)]).expect("SUBACK");
    lazy.crash();
    let want: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    assert_eq!(heir.texts(10, SOON).expect("reassigned"), want);
}

fn member(cluster: &Cluster, node: usize, options: &Options, filter: &str, qos: u8) -> Client {
    let mut member = Client::connect(cluster.mqtt(node), options).expect("connects");
    assert_eq!(member.subscribe(&[(filter, qos)]).expect("SUBACK"), [qos]);
    member
}

fn publisher(cluster: &Cluster, node: usize) -> Client {
    Client::connect(cluster.mqtt(node), &Options::v5(&fresh("pub"))).expect("connects")
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Publishes one after the other; each is acknowledged.
fn publish(publisher: &mut Client, topic: &str, range: std::ops::Range<usize>, qos: u8) {
    for n in range {
        assert_eq!(publisher.publish(topic, n.to_string(), qos).expect("acknowledged"), 0, "{n}");
    }
}

/// What each member gets of `count` messages.
fn received(members: &mut [Client], count: usize) -> Vec<Vec<String>> {
    let mut got = vec![Vec::new(); members.len()];
    eventually("all messages", SOON, || {
        for (member, got) in members.iter_mut().zip(&mut got) {
            match member.recv(Duration::from_millis(10)) {
                Ok(message) => got.push(message.text()),
                Err(Error::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        }
        (got.iter().map(Vec::len).sum::<usize>() >= count).then_some(())
    });
    for member in members {
        assert!(member.quiet().expect("connected"), "more than {count}: {got:?}");
    }
    got
}

const STRATEGIES: &str = r#"
[shared]
strategy = "random"
groups = ["turns=round_robin", "sticky=sticky", "near/*=local", "publisher=hash_client_id", "topic/*=hash_topic"]
"#;

#[test]
fn every_strategy_can_be_seen_from_outside() {
    let cluster = Cluster::start_with(3, STRATEGIES);
    for persistent in [false, true] {
        let group = |name: &str, topic: &str| {
            let options = || {
                let options = Options::v5(&fresh("member"));
                if persistent { options.persistent() } else { options }
            };
            let filter = format!("$share/{name}/{topic}");
            (1..=3).map(|node| member(&cluster, node, &options(), &filter, 1)).collect::<Vec<_>>()
        };
        sticky(&cluster, group("sticky", "stick/+"));
        local(&cluster, group("near", "near"));
        by_hash(&cluster, group("publisher", "p/+"), "p", false);
        by_hash(&cluster, group("topic", "t/+"), "t", true);

        let mut members = group("turns", "turns");
        publish(&mut publisher(&cluster, 2), "turns", 0..90, 1);
        let shares: Vec<usize> = received(&mut members, 90).iter().map(Vec::len).collect();
        assert_eq!(shares, [30, 30, 30], "persistent: {persistent}");
        let mut members = group("other", "random");
        publish(&mut publisher(&cluster, 2), "random", 0..300, 1);
        let got = received(&mut members, 300);
        let shares: Vec<usize> = got.iter().map(Vec::len).collect();
        // Six standard deviations.
        assert!(shares.iter().all(|share| share.abs_diff(100) < 50), "persistent {persistent}: {shares:?}");
        let number = |text: &String| text.parse::<usize>().expect("a number");
        let twice = |got: &Vec<String>| got.windows(2).any(|pair| number(&pair[0]) + 1 == number(&pair[1]));
        assert!(got.iter().any(twice), "by turns, nobody gets two in a row");
    }
}

/// All to one member, from wherever; when that is gone, all to another.
fn sticky(cluster: &Cluster, mut members: Vec<Client>) {
    while !members.is_empty() {
        for node in 1..=3 {
            publish(&mut publisher(cluster, node), &format!("stick/{node}"), 0..5, 1);
        }
        let got = received(&mut members, 15);
        let stuck = got.iter().position(|got| !got.is_empty()).expect("somebody");
        assert_eq!(got[stuck].len(), 15, "{got:?}");
        members.remove(stuck).disconnect().expect("leaves");
    }
}

/// To the member on the publisher's node; without one there, to any.
fn local(cluster: &Cluster, mut members: Vec<Client>) {
    for node in 1..=3 {
        publish(&mut publisher(cluster, node), "near", 0..10, 1);
        assert_eq!(received(&mut members, 10)[node - 1].len(), 10, "n{node}");
    }
    members.remove(0).disconnect().expect("leaves");
    publish(&mut publisher(cluster, 1), "near", 0..10, 1);
    let shares: Vec<usize> = received(&mut members, 10).iter().map(Vec::len).collect();
    assert_eq!(shares, [5, 5]);
}

/// All messages of one publisher, or of one topic, to one member; not all of all to one.
fn by_hash(cluster: &Cluster, mut members: Vec<Client>, topic: &str, of_topic: bool) {
    let mut holders: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for round in 0..3 {
        for n in 0..9 {
            let client = format!("{topic}-{}", if of_topic { round } else { n });
            let level = if of_topic { n } else { round };
            let mut publisher =
                Client::connect(cluster.mqtt(1 + (n + round) % 3), &Options::v5(&client)).expect("connects");
            publisher.publish(&format!("{topic}/{level}"), n.to_string(), 1).expect("acknowledged");
            publisher.disconnect().expect("leaves");
        }
        for (at, got) in received(&mut members, 9).into_iter().enumerate() {
            for key in got {
                holders.entry(key).or_default().insert(at);
            }
        }
    }
    assert_eq!(holders.len(), 9);
    assert!(holders.values().all(|members| members.len() == 1), "{holders:?}");
    // One in 3,000 draws has all nine with one member; the hashes are always the same.
    assert!(holders.values().flatten().collect::<BTreeSet<_>>().len() > 1, "{holders:?}");
}

#[test]
fn a_group_with_persistent_members_waits_for_one_to_come() {
    let mut cluster = Cluster::start(3);
    for qos in 1..=2 {
        let topic = fresh("shared");
        let filter = format!("$share/group/{topic}");
        let [first, second] = [(); 2].map(|()| Options::v5(&fresh("member")).persistent());
        for (node, options) in [(2, &first), (3, &second)] {
            member(&cluster, node, options, &filter, qos).disconnect().expect("leaves");
        }
        let mut publisher = publisher(&cluster, 1);
        publish(&mut publisher, &topic, 0..50, qos);
        // Whoever comes gets everything, wherever it was before.
        let mut back = Client::connect(cluster.mqtt(1), &second).expect("connects");
        assert!(back.session_present);
        assert_eq!(back.texts(50, SOON).expect("all there"), numbers(0..50));
        // And whoever comes later, nothing of it.
        let mut late = Client::connect(cluster.mqtt(3), &first).expect("connects");
        assert!(late.quiet().expect("connected") && back.quiet().expect("connected"));
        publish(&mut publisher, &topic, 50..60, qos);
        let mut both = [back, late];
        assert_eq!(received(&mut both, 10).iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);

        // With both gone, a clean member that subscribes is one who comes, too.
        both.into_iter().for_each(|member| member.disconnect().expect("leaves"));
        publish(&mut publisher, &topic, 60..160, qos);
        let mut clean = member(&cluster, 2, &Options::v5(&fresh("clean")), &filter, qos);
        assert_eq!(clean.texts(100, SOON).expect("all there"), numbers(60..160));
        // What it does not acknowledge is the others' again when it goes; at QoS 2 it may have it.
        clean.auto_ack = false;
        publish(&mut publisher, &topic, 160..165, qos);
        clean.texts(5, SOON).expect("delivered");
        clean.crash();
        let mut back = Client::connect(cluster.mqtt(3), &first).expect("connects");
        let again = if qos == 1 { 160..165 } else { 0..0 };
        let mut got = back.texts(again.len(), SOON).expect("reassigned");
        got.sort();
        assert_eq!(got, numbers(again));
        assert!(back.quiet().expect("connected"));
    }
    // All of that survives a stop of everything.
    let filter = "$share/kept/kept";
    let options = Options::v5(&fresh("member")).persistent();
    member(&cluster, 2, &options, filter, 1).disconnect().expect("leaves");
    publish(&mut publisher(&cluster, 1), "kept", 0..20, 1);
    (1..=3).for_each(|node| cluster.kill9(node));
    cluster.start_all();
    let mut back = Client::connect(cluster.mqtt(1), &options).expect("connects");
    assert_eq!(back.texts(20, SOON).expect("all there"), numbers(0..20));
}

#[test]
fn what_a_session_that_ended_left_goes_to_another_member_at_qos_1() {
    let cluster = Cluster::start(3);
    for qos in 1..=2 {
        let topic = fresh("shared");
        let filter = format!("$share/group/{topic}");
        let options = Options::v5(&fresh("lazy")).persistent();
        let mut lazy = member(&cluster, 1, &options, &filter, qos);
        lazy.auto_ack = false;
        publish(&mut publisher(&cluster, 2), &topic, 0..10, qos);
        lazy.texts(10, SOON).expect("delivered and not acknowledged");
        let mut heir = member(&cluster, 3, &Options::v5(&fresh("heir")).persistent(), &filter, qos);
        lazy.crash();
        assert!(heir.quiet().expect("connected"), "the session may go on");
        // A clean start ends it.
        let clean = Options::v5(&options.client_id);
        Client::connect(cluster.mqtt(2), &clean).expect("connects").disconnect().expect("leaves");
        let got = if qos == 1 { heir.texts(10, SOON).expect("reassigned") } else { Vec::new() };
        assert_eq!(got, numbers(if qos == 1 { 0..10 } else { 0..0 }));
        assert!(heir.quiet().expect("connected"));
    }
}

/// A member that refuses the messages of a group, and one that takes what comes.
fn refuse(cluster: &Cluster, persistent: bool, qos: u8) -> Client {
    let topic = fresh("shared");
    let filter = format!("$share/group/{topic}");
    let options = || {
        let options = Options::v5(&fresh("member"));
        if persistent { options.persistent() } else { options }
    };
    let mut picky = member(cluster, 1, &options(), &filter, qos);
    picky.auto_ack = false;
    let mut publisher = publisher(cluster, 2);
    publish(&mut publisher, &topic, 0..1, qos);
    let message = picky.recv(SOON).expect("delivered");
    let willing = member(cluster, 3, &options(), &filter, qos);
    let [high, low] = message.id.to_be_bytes();
    picky.send(&[if qos == 1 { 0x40 } else { 0x50 }, 3, high, low, 0x83]).expect("sent");
    picky.ping().expect("connected");
    picky.disconnect().expect("leaves");
    publish(&mut publisher, &topic, 1..2, qos);
    willing
}

#[test]
fn a_refused_message_is_discarded_or_goes_on_where_that_is_asked_for() {
    for (toml, moves_on) in [("", false), ("[shared]\nredeliver_refused = true\n", true)] {
        let cluster = Cluster::start_with(3, toml);
        for (persistent, qos) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
            let mut willing = refuse(&cluster, persistent, qos);
            let want = numbers(if moves_on { 0..2 } else { 1..2 });
            assert_eq!(
                willing.texts(want.len(), SOON).expect("delivered"),
                want,
                "moves on: {moves_on}, persistent: {persistent}, QoS {qos}"
            );
            assert!(willing.quiet().expect("connected"));
        }
    }
}

#[test]
fn who_can_take_no_more_is_passed_over() {
    let cluster = Cluster::start_with(3, "[limits]\nmax_queued_messages = 5\n");
    let topic = fresh("shared");
    let filter = format!("$share/group/{topic}");
    let slow = Options::v5(&fresh("slow")).prop(prop::RECEIVE_MAXIMUM, Prop::U16(1));
    let mut slow = member(&cluster, 2, &slow, &filter, 1);
    slow.auto_ack = false;
    let mut quick = member(&cluster, 3, &Options::v5(&fresh("quick")), &filter, 1);
    publish(&mut publisher(&cluster, 1), &topic, 0..40, 1);
    // One in its window and five behind it.
    let got = quick.texts(34, SOON).expect("what the other cannot take");
    assert!(quick.quiet().expect("connected"));
    slow.auto_ack = true;
    let open = slow.recv(SOON).expect("delivered");
    slow.send_ack(AckKind::PubAck, open.id).expect("sent");
    let mut all = slow.texts(5, SOON).expect("its queue");
    all.push(open.text());
    all.extend(got);
    all.sort_by_key(|n| n.parse::<usize>().expect("a number"));
    assert_eq!(all, numbers(0..40));
}

#[test]
fn a_node_that_dies_loses_nothing_that_is_acknowledged_afterwards() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [dies, stays] = [1, 2].map(|n| (leader + n - 1) % 3 + 1);
    for persistent in [false, true] {
        let topic = fresh("shared");
        let filter = format!("$share/group/{topic}");
        let options = || {
            let options = Options::v5(&fresh("member"));
            if persistent { options.persistent() } else { options }
        };
        let goes = options();
        // It acknowledges nothing, since nobody reads what it gets.
        let gone = member(&cluster, dies, &goes, &filter, 1);
        let stays = member(&cluster, stays, &options(), &filter, 1);
        let mut publisher = publisher(&cluster, leader);
        publish(&mut publisher, &topic, 0..4, 1);
        cluster.kill9(dies);
        publish(&mut publisher, &topic, 4..50, 1);
        drop(gone);
        let got = if persistent {
            // What was given to the member before its node was declared dead comes with it.
            let back = Client::connect(cluster.mqtt(leader), &goes).expect("connects");
            assert!(back.session_present);
            received(&mut [stays, back], 50).concat()
        } else {
            // What the dead node had taken over is lost with its clean sessions.
            received(&mut [stays], 48).concat()
        };
        let lost = numbers(0..4).into_iter().filter(|n| !got.contains(n)).count();
        assert_eq!(lost, if persistent { 0 } else { 2 });
        let mut got: Vec<_> = got.into_iter().filter(|n| n.parse::<usize>().is_ok_and(|n| n >= 4)).collect();
        got.sort_by_key(|n| n.parse::<usize>().expect("a number"));
        assert_eq!(got, numbers(4..50), "persistent: {persistent}");
        cluster.restart(dies);
    }
}
