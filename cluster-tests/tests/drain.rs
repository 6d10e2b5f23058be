//! Nodes that let their clients go, for a while, for good or to stop: all go elsewhere at a pace, and
//! nothing that was acknowledged is lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster, PATIENT, Said, Setup, cli};
use cluster_tests::login::{UNAVAILABLE_3, USE_ANOTHER_SERVER, connack};
use cluster_tests::mqtt::{Client, Error, Options, Packet, Prop, Version, Will, prop};
use cluster_tests::reconnect::Fleet;
use cluster_tests::traffic::{Acked, Collector, Traffic};
use cluster_tests::wait::{eventually, pass};
use cluster_tests::{fresh, http};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
/// For thousands of clients to be connected.
const CONNECTS: Duration = Duration::from_secs(120);
/// For everything acknowledged to reach a subscriber.
const ARRIVES: Duration = Duration::from_secs(60);

const SERVER_SHUTTING_DOWN: u8 = 0x8b;
const SERVER_MOVED: u8 = 0x9d;
const OK: Option<i32> = Some(0);
const UNSAFE: Option<i32> = Some(5);
const TIMED_OUT: Option<i32> = Some(6);

/// Three nodes to which clients can be sent.
fn three(toml: &str) -> Cluster {
    let setup = Setup { toml: format!("{PATIENT}\n{toml}"), referring: true, ..Setup::default() };
    Cluster::set_up(3, setup).expect("nothing that a machine could lack")
}

fn node(cluster: &Cluster, via: usize, args: &[&str]) -> Said {
    cli::operate(cluster.api(via), &[&["node"], args].concat(), "")
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Clients of each node, by its number, as node `via` has them.
fn clients(cluster: &Cluster, via: usize) -> Vec<u64> {
    let listed = json(&node(cluster, via, &["ls"]));
    let listed = listed.as_array().expect("a list").iter();
    listed.map(|node| node["clients"].as_u64().expect("a number")).collect()
}

/// The code of DISCONNECT, and the Server Reference in it.
fn goodbye(client: &mut Client) -> (u8, Option<String>) {
    match client.packet(SOON) {
        Ok(Packet::Disconnect { code, props }) => {
            (code, props.text(prop::SERVER_REFERENCE).map(str::to_owned))
        }
        other => panic!("{other:?} for a DISCONNECT"),
    }
}

fn let_in(to: SocketAddr, options: &Options) -> Client {
    Client::connect(to, options).unwrap_or_else(|error| panic!("{}: {error}", options.client_id))
}

/// A clean subscriber that stays where it is, and notes what comes.
struct Listener {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<(String, u64)>>,
}

impl Listener {
    fn start(node: SocketAddr, prefix: &str) -> Self {
        let mut client = let_in(node, &Options::v5(&fresh("listener")));
        assert_eq!(client.subscribe(&[(&format!("{prefix}/+"), 1)]).expect("SUBACK"), [1]);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut heard = BTreeSet::new();
            loop {
                match client.recv(Duration::from_millis(500)) {
                    Ok(message) => {
                        heard.insert((message.topic.clone(), message.text().parse().expect("a number")))
                    }
                    // What was acknowledged is on its way to who is connected.
                    Err(Error::Timeout) if stopped.load(Ordering::Relaxed) => return heard,
                    Err(Error::Timeout) => false,
                    Err(error) => panic!("a client of a node that does not drain: {error}"),
                };
            }
        });
        Self { stop, thread }
    }

    fn expect_all(self, acked: &Acked) {
        self.stop.store(true, Ordering::Relaxed);
        let heard = self.thread.join().expect("it listens until the end");
        let all = acked.iter().flat_map(|(topic, numbers)| numbers.iter().map(|n| (topic.clone(), *n)));
        let missing: Vec<_> = all.filter(|message| !heard.contains(message)).take(20).collect();
        assert!(missing.is_empty(), "lost to a clean session that stayed: {missing:?}");
    }
}

#[test]
fn five_thousand_clients_go_to_the_other_nodes_at_a_thousand_a_second() {
    const CLIENTS: usize = 5_000;
    let mut cluster = three("");
    let drained = cluster.leader();
    let name = cluster.node(drained).name.clone();
    let others: Vec<usize> = (1..=3).filter(|i| *i != drained).collect();
    let left: Vec<SocketAddr> = others.iter().map(|i| cluster.mqtt(*i)).collect();
    let fleet = Fleet::start(CLIENTS, &[cluster.mqtt(drained)]);
    eventually("the fleet to be connected", CONNECTS, || (fleet.connected() == CLIENTS).then_some(()));
    fleet.aim(&left);
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(drained), &prefix);
    let listener = Listener::start(left[0], &prefix);
    let traffic = Traffic::start(&prefix, &cluster.mqtt_all(), 4);
    traffic.wait_more(200);

    let began = Instant::now();
    let said = node(&cluster, drained, &["drain", "--rate", "1000", "--wait", "--timeout", "60"]);
    let took = began.elapsed();
    assert_eq!(said.code, OK, "{said:?}");
    // All but the first fifty wait for their turn.
    assert!(took >= Duration::from_millis(4_800), "{CLIENTS} clients went in {took:.1?}");
    assert!(took <= Duration::from_secs(15), "{CLIENTS} clients took {took:.1?}");
    println!("{CLIENTS} clients went in {took:.2?}");
    let told = json(&said);
    assert_eq!((&told["name"], &told["clients"]), (&Value::from(name.as_str()), &Value::from(0)), "{told}");
    assert_eq!(told["draining"]["rate_per_s"], 1000, "{told}");

    eventually("the fleet to be back", CONNECTS, || (fleet.connected() == CLIENTS).then_some(()));
    assert_eq!(fleet.lost(), CLIENTS, "each lost its connection once");
    collector.collect(Duration::from_millis(200));
    traffic.wait_more(500);
    // Seen from anywhere. The publishers and subscribers are elsewhere as well.
    let seen = clients(&cluster, others[0]);
    assert_eq!(seen[drained - 1], 0, "{seen:?}");
    assert!(others.iter().all(|i| seen[i - 1] >= CLIENTS as u64 / 3), "{seen:?}");
    assert!(seen.iter().sum::<u64>() > CLIENTS as u64, "{seen:?}");
    assert!(cluster.metric(drained, "rookery_connections_drained_total") >= CLIENTS as f64);
    assert_eq!(cluster.metric(drained, "rookery_draining"), 1.0);
    assert_ne!(cluster.leader(), drained, "leadership is handed over first");
    let status = json(&cli::cluster(cluster.api(others[1]), &["status"]));
    let members = status["members"].as_array().expect("members");
    let draining: Vec<_> = members.iter().filter(|m| m["draining"] == true).map(|m| &m["name"]).collect();
    assert_eq!(draining, [name.as_str()], "{status}");
    let (code, why) = http::get(cluster.api(drained), "/readyz").expect("it answers");
    assert!(code == 503 && why.contains("letting its clients go"), "{code} {why}");

    let acked = traffic.stop();
    collector.expect_all(&acked, &left, ARRIVES);
    listener.expect_all(&acked);

    let said = node(&cluster, others[0], &["undrain", &name]);
    assert_eq!((said.code, &json(&said)["draining"]), (OK, &Value::Null), "{said:?}");
    cluster.node(drained).wait_ready();
    let_in(cluster.mqtt(drained), &Options::v5(&fresh("again"))).ping().expect("it stays");
    let log = cluster.node(drained).log();
    let told = log.lines().find(|line| line.contains("event=\"node_drain\""));
    assert!(told.is_some_and(|line| line.contains("by=\"api from 127.0.0.1:")), "the audit log: {log}");
}

#[test]
fn clients_are_told_where_to_go_and_who_comes_too() {
    let mut cluster = three("");
    let drained = cluster.follower(&[]);
    let others: Vec<usize> = (1..=3).filter(|i| *i != drained).collect();
    let references: BTreeSet<String> = others.iter().map(|i| cluster.mqtt(*i).to_string()).collect();
    let name = cluster.node(drained).name.clone();
    let mut new: Vec<Client> =
        (0..4).map(|_| let_in(cluster.mqtt(drained), &Options::v5(&fresh("new")))).collect();
    let mut old = let_in(cluster.mqtt(drained), &Options::v311(&fresh("old")));
    // Any node can be asked.
    let said = node(&cluster, others[0], &["drain", &name]);
    assert_eq!(said.code, OK, "{said:?}");
    let told: Vec<_> = new.iter_mut().map(goodbye).collect();
    assert!(told.iter().all(|(code, _)| *code == USE_ANOTHER_SERVER), "{told:?}");
    let named: BTreeSet<String> = told.into_iter().filter_map(|(_, reference)| reference).collect();
    assert_eq!(named, references, "they take turns");
    assert!(matches!(old.ending(SOON).expect("closed"), Error::Closed));

    let to = cluster.mqtt(drained);
    eventually("a way to another node", SOON, || {
        let (code, reference) = connack(to, &Options::v5(&fresh("late")));
        (code == USE_ANOTHER_SERVER && reference.is_some_and(|to| references.contains(&to))).then_some(())
    });
    for version in [Version::V31, Version::V311] {
        assert_eq!(connack(to, &Options::new(version, &fresh("late"))), (UNAVAILABLE_3, None));
    }
    // A node that started again serves: what was wanted of its last life is over with that.
    cluster.node(drained).stop();
    cluster.restart(drained);
    let_in(to, &Options::v5(&fresh("after"))).ping().expect("it stays");
    assert_eq!(cluster.metric(drained, "rookery_draining"), 0.0);
}

#[test]
fn wills_and_sessions_are_those_of_clients_that_come_back() {
    let mut cluster = three("");
    let drained = cluster.follower(&[]);
    let other = cluster.follower(&[drained]);
    let topic = fresh("wills");
    let mut watcher = let_in(cluster.mqtt(other), &Options::v5(&fresh("watcher")));
    watcher.subscribe(&[(&format!("{topic}/#"), 1)]).expect("SUBACK");
    let with_will = |name: &str, delay_s| {
        let will = Will { delay_s, ..Will::new(&format!("{topic}/{name}"), name, 1) };
        Options::v5(&fresh(name)).persistent().will(will)
    };
    let (returns, slow, prompt) = (with_will("returns", 60), with_will("slow", 2), with_will("prompt", 0));
    let mut clients: Vec<Client> =
        [&returns, &slow, &prompt].map(|options| let_in(cluster.mqtt(drained), options)).into();
    let queued = fresh("queued");
    clients[0].subscribe(&[(&queued, 1)]).expect("SUBACK");
    let began = Instant::now();
    let said = node(&cluster, drained, &["drain"]);
    assert_eq!(said.code, OK, "{said:?}");
    for client in &mut clients {
        assert_eq!(goodbye(client).0, USE_ANOTHER_SERVER);
    }
    let mut publisher = let_in(cluster.mqtt(other), &Options::v5(&fresh("publisher")));
    assert_eq!(publisher.publish(&queued, "meanwhile", 1).expect("PUBACK"), 0);
    let mut back = let_in(cluster.mqtt(other), &returns);
    assert!(back.session_present);
    assert_eq!(back.recv(SOON).expect("queued").text(), "meanwhile");
    // Without a delay a will is due with the end of the connection, whoever ends it [MQTT-3.1.2-8].
    assert_eq!(watcher.recv(SOON).expect("due at once").text(), "prompt");
    assert_eq!(watcher.recv(SOON).expect("due later").text(), "slow");
    assert!(began.elapsed() >= Duration::from_secs(2), "its delay was not over");
    assert!(watcher.quiet().expect("PINGRESP"), "the will of a client that came back in time");
}

#[test]
fn a_drain_may_time_out_and_be_called_off() {
    let cluster = three("");
    let mut staying: Vec<Client> =
        (0..20).map(|_| let_in(cluster.mqtt(1), &Options::v5(&fresh("slow")))).collect();
    let said = node(&cluster, 1, &["drain", "--rate", "1", "--timeout", "1"]);
    assert_eq!(said.code, TIMED_OUT, "{said:?}");
    assert!(said.stderr.contains("clients after 1 s"), "{said:?}");
    assert!(clients(&cluster, 2)[0] >= 15, "one a second");
    let said = node(&cluster, 1, &["undrain"]);
    assert_eq!(said.code, OK, "{said:?}");
    // Who was let go before is noted by then.
    pass(Duration::from_millis(500));
    let kept = clients(&cluster, 1)[0] as usize;
    // Longer than it took to let the next one go.
    pass(Duration::from_millis(2_500));
    assert_eq!(clients(&cluster, 1)[0] as usize, kept);
    assert_eq!(staying.iter_mut().filter_map(|client| client.ping().ok()).count(), kept);
    // With another rate, and without waiting.
    let said = node(&cluster, 1, &["drain", "--wait=false"]);
    assert_eq!((said.code, &json(&said)["draining"]["rate_per_s"]), (OK, &Value::from(1_000)), "{said:?}");
    eventually("all to be gone", SOON, || (clients(&cluster, 2)[0] == 0).then_some(()));
    for (args, code) in [(["drain", "n9"], 3), (["undrain", "n9"], 3)] {
        assert_eq!(node(&cluster, 1, &args).code, Some(code), "{args:?}");
    }
}

#[test]
fn a_node_is_taken_out_only_where_the_rest_can_do_without_it() {
    let mut cluster = three("");
    let mut client = let_in(cluster.mqtt(2), &Options::v5(&fresh("client")).persistent());
    let topic = fresh("kept");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    cluster.kill9(3);
    cluster.wait_up(3, false);
    let said = node(&cluster, 1, &["decommission", "n2", "--yes"]);
    assert_eq!(said.code, UNSAFE, "{said:?}");
    assert!(said.stderr.contains("quorum"), "{said:?}");
    client.ping().expect("nobody is let go in vain");
    let listed = json(&node(&cluster, 1, &["ls"]));
    let states: Vec<_> = listed.as_array().expect("a list").iter().map(|n| &n["state"]).collect();
    assert_eq!(states, ["up", "up", "down"], "{listed}");
    assert!(listed.as_array().expect("a list").iter().all(|n| n["draining"].is_null()), "{listed}");

    cluster.restart(3);
    eventually("three that vote", AGREE_TIMEOUT, || {
        let status = cluster.status_of(1)?;
        (status.voters() == 3 && status.members.iter().all(|m| m.up)).then_some(())
    });
    let said = eventually("the rest to do without it", AGREE_TIMEOUT, || {
        // The leader counts who has answered lately.
        let said = node(&cluster, 1, &["decommission", "n2", "--yes", "--timeout", "30"]);
        (said.code != UNSAFE).then_some(said)
    });
    assert_eq!(said.code, OK, "{said:?}");
    let (code, reference) = goodbye(&mut client);
    assert_eq!(code, SERVER_MOVED);
    let others = [cluster.mqtt(1).to_string(), cluster.mqtt(3).to_string()];
    assert!(reference.as_ref().is_some_and(|to| others.contains(to)), "{reference:?}");
    let status = cluster.node(2).wait_exit();
    assert!(status.success(), "it was wanted: {status}");
    let status = cli::status(cluster.api(1)).expect("a status");
    assert!(status.members.len() == 2 && status.member("n2").is_none(), "{status:?}");
    // Nobody but it is missed, and it is let in no more.
    let mut publisher = let_in(cluster.mqtt(1), &Options::v5(&fresh("publisher")));
    assert_eq!(publisher.publish(&topic, "on", 1).expect("PUBACK"), 0);
    cluster.node(2).spawn();
    assert!(!cluster.node(2).wait_exit().success());
    // The last but one cannot be missed while the other is away.
    let said = node(&cluster, 1, &["decommission", "n9", "--yes"]);
    assert_eq!(said.code, Some(3), "{said:?}");
}

#[test]
fn a_node_that_stops_lets_its_clients_go_at_the_same_pace_within_its_time() {
    const CLIENTS: usize = 200;
    // Two and a half seconds by the rate; less than a second by the time.
    for (within_ms, least, most) in [(20_000, 1_500, 15_000), (1_000, 0, 15_000)] {
        let mut cluster = three(&format!("[drain]\nrate = 80\nstop_within_ms = {within_ms}\n"));
        let stopped = cluster.leader();
        let left: Vec<SocketAddr> = (1..=3).filter(|i| *i != stopped).map(|i| cluster.mqtt(i)).collect();
        let fleet = Fleet::start(CLIENTS, &[cluster.mqtt(stopped)]);
        eventually("the fleet to be connected", CONNECTS, || (fleet.connected() == CLIENTS).then_some(()));
        fleet.aim(&left);
        let mut new = let_in(
            cluster.mqtt(stopped),
            &Options::v5(&fresh("new")).prop(prop::SESSION_EXPIRY_S, Prop::U32(60)),
        );
        let began = Instant::now();
        cluster.node(stopped).signal("TERM");
        assert_eq!(goodbye(&mut new).0, USE_ANOTHER_SERVER);
        drop(new);
        let status = cluster.node(stopped).wait_exit();
        let took = began.elapsed();
        assert!(status.success(), "{status}");
        println!("{CLIENTS} clients and the node went in {took:.2?}");
        assert!((Duration::from_millis(least)..Duration::from_millis(most)).contains(&took), "{took:?}");
        eventually("the fleet to be back", CONNECTS, || (fleet.connected() == CLIENTS).then_some(()));
        assert_eq!(fleet.lost(), CLIENTS, "each lost its connection once");
    }
}

#[test]
fn a_node_without_a_majority_says_that_it_cannot_drain_and_lets_its_clients_go_when_it_stops() {
    let mut cluster = three("");
    let mut client = let_in(cluster.mqtt(1), &Options::v5(&fresh("client")));
    cluster.kill9(2);
    cluster.kill9(3);
    let said = node(&cluster, 1, &["drain"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    client.ping().expect("it is kept");
    cluster.node(1).signal("TERM");
    let (code, _) = goodbye(&mut client);
    assert!([USE_ANOTHER_SERVER, SERVER_SHUTTING_DOWN].contains(&code), "{code:#04x}");
    assert!(cluster.node(1).wait_exit().success());
}
