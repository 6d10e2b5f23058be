//! Shared subscriptions over the whole cluster: each message to exactly one member.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options};

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

fn members(cluster: &Cluster, filter: &str, qos: u8, persistent: bool) -> Vec<Client> {
    let connect = |node: usize| {
        let options = Options::v5(&fresh("member"));
        let options = if persistent { options.persistent() } else { options };
        let mut member = Client::connect(cluster.mqtt(node), &options).expect("connects");
        assert_eq!(member.subscribe(&[(filter, qos)]).expect("SUBACK"), [qos]);
        member
    };
    [1, 1, 2, 3].map(connect).into()
}

#[test]
fn each_message_goes_to_one_member() {
    let cluster = Cluster::start(3);
    for qos in 0..=2 {
        for persistent in [false, true] {
            let topic = fresh("shared");
            let filter = format!("$share/group/{topic}");
            let mut members = members(&cluster, &filter, qos, persistent);
            let shares = share_out(&cluster, &mut members, &topic, qos, 100);
            assert!(shares.iter().all(|share| *share > 0), "nobody is left out: {shares:?}");
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
