//! While one client or a thousand do their worst to one node, everybody else is served as before,
//! loses no connection and no message, and afterwards the node has its memory back.
//!
//! `scripts/attack` runs the same at greater length. Each test prints the seed that repeats it.

use std::time::Duration;

use cluster_tests::attack::subscribe::End;
use cluster_tests::attack::{
    Arena, Crowd, Process, deep, flood, half_open, loris, malformed, peers, storm, subscribe,
};
use cluster_tests::cluster::Cluster;
use cluster_tests::mqtt::{Client, Options, Props, Publish};
use cluster_tests::wait::{eventually, within};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn malformed_streams() {
    let mut arena = Arena::open(3, "");
    arena.under("malformed streams", malformed::run);
    arena.close();
}

#[test]
fn slow_and_half_open_clients() {
    // So many that a new client of a busy machine has sent its CONNECT before as many have come after it.
    let held = 1_000;
    // Accepted at the default rate, the others would wait behind them for longer than is asked here;
    // at any rate, more could come than are held before a client has sent its CONNECT.
    let limits = format!("[limits]\nconnect_timeout_ms = 2000\nmax_half_open = {held}\naccept_rate = 4000\n");
    let mut arena = Arena::open(3, &limits);
    arena.under("slow clients", |plan| loris::run(plan, CONNECT_TIMEOUT));
    let count = arena.plan().size(3_000, 60_000);
    arena.under("half-open connections", |plan| half_open::run(plan, count, 2 * held, held));
    arena.close();
}

#[test]
fn very_many_subscriptions() {
    let mut arena = Arena::open(3, "");
    let count = arena.plan().size(20_000, 100_000);
    for end in [End::Clean, End::Unsubscribes, End::Persistent] {
        arena.under(&format!("{count} subscriptions, {end:?}"), |plan| subscribe::run(plan, count, end));
    }
    arena.close();
}

#[test]
fn deep_topics_and_large_names() {
    let allowed = deep::USER_PROPERTIES;
    let mut arena = Arena::open(3, &format!("[limits]\nmax_user_properties = {allowed}\n"));
    arena.under("topics too deep", deep::refused);
    arena.under("user properties", deep::properties);
    arena.under("filters that branch at every level", deep::branches);
    arena.close();
}

#[test]
fn clients_that_come_and_go() {
    let mut arena = Arena::open(3, "");
    arena.under("takeovers", storm::takeovers);
    arena.under("strangers", storm::strangers);
    arena.close();
}

#[test]
fn floods() {
    let mut arena = Arena::open(3, "");
    let lasting = Duration::from_secs(arena.plan().size(3, 60) as u64);
    arena.under("a flood into the deaf", |plan| flood::into_the_deaf(plan, lasting));
    arena.under("QoS 2 that is never released", flood::never_released);
    arena.under("unknown acknowledgements", flood::unknown_acks);
    arena.under("PINGREQs", flood::pings);
    arena.under("retained messages", flood::retained);
    arena.close();
}

#[test]
fn strangers_at_the_peer_port() {
    let mut arena = Arena::open(3, "");
    arena.under("strangers at the peer port", peers::run);
    arena.close();
}

#[test]
fn the_deepest_topic_where_it_is_allowed() {
    let cluster = Cluster::start_with(1, &format!("[limits]\ntopic_levels = {}\n", deep::DEEPEST));
    let topic = deep::deepest();
    for persistent in [false, true] {
        let options = Options::v5(&cluster_tests::fresh("deep"));
        let options = if persistent { options.persistent() } else { options };
        let mut client = Client::connect(cluster.mqtt(1), &options).expect("connects");
        let wild = format!("{}#", "+/".repeat(32_000));
        let codes = client.subscribe(&[(&topic, 1), (&wild, 1)]).expect("an answer");
        assert_eq!(codes, [1, 1]);
        for retain in [false, true] {
            let code =
                client.publish_with(&topic, "deep", 1, retain, Props::default()).expect("acknowledged");
            assert_eq!(code, 0);
            let message: Publish = client.recv(Duration::from_secs(20)).expect("it arrives");
            assert_eq!(message.topic.len(), deep::DEEPEST - 1);
        }
        let mut late =
            Client::connect(cluster.mqtt(1), &Options::v5(&cluster_tests::fresh("late"))).expect("connects");
        late.subscribe(&[(&wild, 1)]).expect("an answer");
        assert_eq!(late.recv(Duration::from_secs(20)).expect("the retained one").text(), "deep");
        client.publish_with(&topic, "", 1, true, Props::default()).expect("cleared");
        client.unsubscribe(&[&topic, &wild]).expect("an answer");
    }
}

#[test]
fn out_of_descriptors() {
    const DESCRIPTORS: u32 = 256;
    let mut cluster = Cluster::start_with(1, "");
    cluster.node(1).stop();
    cluster.node(1).limit_descriptors(DESCRIPTORS);
    cluster.restart(1);
    let process = Process(cluster.node(1).pid());
    let mut early = Client::connect(cluster.mqtt(1), &Options::v5("early")).expect("connects");
    let mut crowd = Crowd::default();
    for i in 0..300 {
        let hello = cluster_tests::mqtt::connect(&Options::v5(&format!("crowd-{i}")));
        let stream = crowd.open(cluster.mqtt(1)).expect("the system accepts");
        std::io::Write::write_all(stream, &hello).expect("sent");
    }
    eventually("those beyond are closed", Duration::from_secs(30), || {
        (crowd.sift() < DESCRIPTORS as usize).then_some(())
    });
    // Everything else that needs descriptors goes on: the API, the log, the clients there are.
    assert!(process.descriptors() < DESCRIPTORS as usize, "none is left for anything else");
    assert!(cluster.node(1).answers("/readyz"), "the node is not ready any more");
    early.ping().expect("who was there is served");
    assert_eq!(early.retain("kept", "x", 1).expect("acknowledged"), 0);

    // It does not spin meanwhile.
    let (began, used_s) = (std::time::Instant::now(), process.cpu_s());
    let idle = within(Duration::from_secs(2), || None::<()>);
    let busy = (process.cpu_s() - used_s) / began.elapsed().as_secs_f64();
    assert!(idle.is_none() && busy < 0.5, "{:.0} % of a core while nothing happens", busy * 100.0);

    crowd.members.truncate(20);
    eventually("new clients are let in again", Duration::from_secs(30), || {
        Client::connect(cluster.mqtt(1), &Options::v5("late")).ok()
    });
}
