//! What waits for a persistent session is bounded by what its operator allows, not by memory.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Options, Props, Publish};

const SOON: Duration = Duration::from_secs(30);

/// Room for the queue, and little memory for it.
const CONFIG: &str =
    "\n[limits]\nmax_session_queued_bytes = 1_073_741_824\nmax_queue_memory_bytes = 1_048_576\n";

/// More than fits into one file.
const MESSAGES: usize = 6_000;
const MESSAGE_BYTES: usize = 16 << 10;
/// Publishes under way; below the Receive Maximum that a node grants.
const WINDOW: usize = 100;

fn text(number: usize) -> String {
    format!("{number:>MESSAGE_BYTES$}")
}

fn publish_all(publisher: &mut Client, topic: &str) {
    for number in 0..MESSAGES {
        if number >= WINDOW {
            assert_eq!(publisher.next_puback(SOON).expect("acknowledged").code, 0);
        }
        let (topic, payload, id) = (topic.to_owned(), text(number).into_bytes(), publisher.take_id());
        let message =
            Publish { topic, payload, qos: 1, retain: false, dup: false, id, props: Props::default() };
        publisher.send_publish(&message).expect("sent");
    }
    for _ in 0..WINDOW {
        assert_eq!(publisher.next_puback(SOON).expect("acknowledged").code, 0);
    }
}

/// Bytes of queued messages that the node has put away.
fn put_away(cluster: &Cluster, i: usize) -> u64 {
    let queues = cluster.path().join(format!("n{i}/data/queues"));
    let files = std::fs::read_dir(&queues).unwrap_or_else(|error| panic!("{}: {error}", queues.display()));
    // A file may be removed meanwhile.
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

/// Everything is published to a session that is subscribed and away, and is on the disks. How its
/// client connects.
fn queue_for_absent(cluster: &Cluster, filter: &str, topic: &str) -> Options {
    let options = Options::v5(&fresh("away")).persistent();
    let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
    assert_eq!(client.subscribe(&[(filter, 1)]).expect("SUBACK"), [1]);
    client.disconnect().expect("leaves");
    let mut publisher = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("pub"))).expect("connects");
    publish_all(&mut publisher, topic);
    let all = (MESSAGES * MESSAGE_BYTES) as f64;
    for i in 1..=3 {
        cluster_tests::wait::eventually("the queue is on disk", SOON, || {
            let held = cluster.metric(i, "rookery_queue_memory_bytes");
            (held <= 1_048_576.0 && put_away(cluster, i) as f64 >= 0.9 * all).then_some(())
        });
    }
    options
}

#[test]
fn a_queue_beyond_memory_is_on_disk_and_comes_back_in_order() {
    let mut cluster = Cluster::start_with(3, CONFIG);
    let topic = fresh("long");
    let options = queue_for_absent(&cluster, &topic, &topic);
    // One node comes back with what its log and its snapshots hold, and has no more memory for it.
    cluster.kill9(3);
    cluster.restart(3);
    let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
    assert!(client.session_present);
    for number in 0..MESSAGES {
        let message = client.recv(SOON).unwrap_or_else(|error| panic!("message {number}: {error}"));
        assert!(message.text() == text(number), "message {number} is {}", message.text().trim());
    }
    assert!(client.quiet().expect("connected"));
    // What is done is dropped; a file that is being written to stays until it is full.
    cluster_tests::wait::eventually("the files are gone", SOON, || {
        client.ping().expect("connected");
        (1..=3).all(|i| put_away(&cluster, i) <= 68 << 20).then_some(())
    });
    drop(client);
}

#[test]
fn a_group_queues_beyond_memory_for_members_of_both_kinds() {
    const TO_CLEAN: usize = 2_000;
    let mut cluster = Cluster::start_with(3, CONFIG);
    let topic = fresh("work");
    let filter = format!("$share/workers/{topic}");
    let options = queue_for_absent(&cluster, &filter, &topic);

    // A clean member is given what waits by its node, which brings it back for it.
    let mut clean = Client::connect(cluster.mqtt(2), &Options::v5(&fresh("clean"))).expect("connects");
    clean.subscribe(&[(&filter, 1)]).expect("SUBACK");
    for number in 0..TO_CLEAN {
        let message = clean.recv(SOON).unwrap_or_else(|error| panic!("message {number}: {error}"));
        assert!(message.text() == text(number), "message {number} is {}", message.text().trim());
    }
    clean.disconnect().expect("leaves");

    // What it had not acknowledged waits again, and all of it comes to the persistent member.
    cluster.kill9(3);
    cluster.restart(3);
    let mut client = Client::connect(cluster.mqtt(3), &options).expect("connects");
    assert!(client.session_present);
    let mut left: BTreeSet<usize> = (TO_CLEAN..MESSAGES).collect();
    while !left.is_empty() {
        let message =
            client.recv(SOON).unwrap_or_else(|error| panic!("{} did not come: {error}", left.len()));
        let number: usize = message.text().trim().parse().expect("a number");
        assert!(message.text() == text(number));
        left.remove(&number);
    }
    drop(client);
}
