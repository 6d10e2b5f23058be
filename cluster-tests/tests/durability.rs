//! What an acknowledgement stands for is the listener's choice: a majority's disks, one disk, or
//! one node's word.

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options, Props, Publish, Transport};

const SOON: Duration = Duration::from_secs(30);
/// A node may acknowledge for 1.4 s after it heard of the majority last; an answer that needs no
/// majority comes at once.
const AT_ONCE: Duration = Duration::from_millis(700);

/// Sends a publish at QoS 1 and waits a moment for its acknowledgement.
fn is_acknowledged_at_once(publisher: &mut Client, topic: &str, text: &str) -> bool {
    let (topic, payload, id) = (topic.to_owned(), text.as_bytes().to_vec(), publisher.take_id());
    let message = Publish { topic, payload, qos: 1, retain: false, dup: false, id, props: Props::default() };
    publisher.send_publish(&message).expect("sent");
    match publisher.next_puback(AT_ONCE) {
        Ok(ack) => ack.code == 0,
        Err(Error::Timeout) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Three nodes whose encrypted listeners promise `encrypted`, their plain ones what is usual.
fn cluster(encrypted: &str) -> Cluster {
    let mut cluster = Cluster::start(3);
    cluster.stop_all();
    for i in 1..=3 {
        cluster.node(i).configure_tls(&format!("durability = \"{encrypted}\""));
    }
    cluster.start_all();
    cluster
}

/// Publishes on node `at` of what is lost without a majority, through a listener of that level;
/// whether it was acknowledged while the other nodes stand still. It arrives in any case.
fn without_the_others(cluster: &mut Cluster, at: usize, encrypted: bool) -> bool {
    let topic = fresh("durable");
    let options = Options::v5(&fresh("session")).persistent();
    let mut client = Client::connect(cluster.mqtt(at), &options).expect("connects");
    assert_eq!(client.subscribe(&[(&topic, 1)]).expect("SUBACK"), [1]);
    client.disconnect().expect("leaves");
    let to = if encrypted { Transport::Tls(cluster.tls(at)) } else { cluster.mqtt(at).into() };
    let mut publisher = Client::connect(to, &Options::v5(&fresh("pub"))).expect("connects");
    // All has been said that there is to say about being here.
    assert_eq!(publisher.publish(&topic, "before", 1).expect("acknowledged"), 0);
    let others: Vec<usize> = (1..=3).filter(|i| *i != at).collect();
    others.iter().for_each(|i| cluster.freeze(*i));
    let acknowledged = is_acknowledged_at_once(&mut publisher, &topic, "without");
    others.iter().for_each(|i| cluster.thaw(*i));
    (1..=3).for_each(|i| cluster.node(i).wait_ready());
    let mut client = Client::connect(cluster.mqtt(others[0]), &options).expect("connects");
    assert_eq!(client.texts(2, SOON).expect("both are there"), ["before", "without"]);
    acknowledged
}

#[test]
fn the_level_of_the_listener_decides_what_is_waited_for() {
    let mut cluster = cluster("leader");
    let leader = cluster.leader();
    assert!(!without_the_others(&mut cluster, leader, false), "a majority is more than one node");
    let leader = cluster.leader();
    assert!(without_the_others(&mut cluster, leader, true), "its disk is enough");
    let follower = cluster.follower(&[]);
    assert!(!without_the_others(&mut cluster, follower, true), "the leader has not given it a place");
}

#[test]
fn one_nodes_word_needs_no_disk() {
    let mut cluster = cluster("memory");
    let follower = cluster.follower(&[]);
    assert!(!without_the_others(&mut cluster, follower, false));
    let follower = cluster.follower(&[]);
    assert!(without_the_others(&mut cluster, follower, true));
}

#[test]
fn clients_are_told_what_acknowledgements_stand_for() {
    let cluster = cluster("memory");
    let stated = |to: Transport| {
        let client = Client::connect(to, &Options::v5(&fresh("told"))).expect("connects");
        client.granted.user().iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
    };
    let level = |name: &str| vec![format!("durability: {name}")];
    assert_eq!(stated(cluster.mqtt(1).into()), level("quorum"));
    assert_eq!(stated(Transport::Ws(cluster.ws(1))), level("quorum"));
    assert_eq!(stated(Transport::Tls(cluster.tls(1))), level("memory"));
    assert_eq!(stated(Transport::Wss(cluster.wss(1))), level("memory"));
}
