//! `rookery failover test` passes where nothing is lost, and finds what is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_tests::cluster::{Cluster, rookery};
use cluster_tests::failover::Load;
use cluster_tests::http;
use cluster_tests::mqtt::{AckKind, Client, Options, Packet, Version, ack, decode};
use cluster_tests::wait::{eventually, pass};
use serde_json::Value;

/// Messages a second: few, so that a debug build has time.
const RATE: [&str; 2] = ["--rate", "80"];

fn start(args: &[&str]) -> Load {
    Load::start(&[&RATE, args].concat())
}

/// Neither sessions nor retained messages of a run are there any more.
#[track_caller]
fn assert_cleaned_up(cluster: &Cluster, prefix: &str) {
    // A node hears of the end of another's client when it applies it.
    eventually("the end of all sessions", Duration::from_secs(20), || {
        let (_, clients) = http::get(cluster.api(1), "/api/v1/clients?limit=1000").ok()?;
        (!clients.contains(prefix)).then_some(())
    });
    let mut reader = Client::connect(cluster.mqtt(1), &Options::v5("looks")).expect("connects");
    reader.subscribe(&[(&format!("{prefix}/#"), 1)]).expect("SUBACK");
    assert!(reader.quiet().expect("connected"), "a retained message is left");
}

#[test]
fn it_passes_while_nodes_are_killed_and_leaves_nothing_behind() {
    let mut cluster = Cluster::start(3);
    let run = start(&["--api", &cluster.api(1).to_string()]);
    pass(Duration::from_secs(1));
    for turn in 0..2 {
        let victim = if turn == 0 { cluster.follower(&[]) } else { cluster.leader() };
        cluster.kill9(victim);
        // As long as clients are without its node, up to the end of its lease.
        pass(Duration::from_secs(2));
        cluster.restart(victim);
        pass(Duration::from_secs(1));
    }
    (1..=3).for_each(|i| cluster.kill9(i));
    cluster.start_all();
    pass(Duration::from_secs(1));
    let prefix = run.prefix.clone();
    let (code, report, said) = run.stop();
    assert_eq!((code, &report["passed"]), (Some(0), &Value::Bool(true)), "{report} {said}");
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
    assert!(number("acknowledged") > 100, "{report}");
    assert!(number("delivered") > number("acknowledged"), "{report}");
    assert!(report["reconnect"]["count"].as_u64() >= Some(5), "clients of two nodes came back: {report}");
    let dead = report["nodes"].as_array().expect("nodes").iter();
    let longest = dead.filter_map(|node| node["longest_gap_ms"].as_u64()).max();
    assert!(longest >= Some(2_000), "a node was away for two seconds: {report}");
    assert_cleaned_up(&cluster, &prefix);
}

#[test]
fn it_fails_when_a_session_is_deleted_behind_its_back() {
    let cluster = Cluster::start(3);
    let run = start(&["--api", &cluster.api(2).to_string(), "--drain", "2s"]);
    let client = format!("{}-sub-two-1", run.prefix);
    let api = cluster.api(1).to_string();
    let kicked = rookery(&["clients", "kick", &client, "--api", &api]);
    assert_eq!(kicked.code, Some(0), "{kicked:?}");
    pass(Duration::from_secs(1));
    let prefix = run.prefix.clone();
    let (code, report, said) = run.stop();
    assert_eq!((code, &report["passed"]), (Some(8), &Value::Bool(false)), "{report} {said}");
    assert_eq!(report["violations"]["session_lost"], 1, "{report}");
    assert!(said.contains("sessions lost: 1"), "{said}");
    assert_cleaned_up(&cluster, &prefix);
}

#[test]
fn it_fails_when_one_message_is_swallowed_or_comes_twice() {
    let cluster = Cluster::start(1);
    for (qos, times, violation) in [(1, 0, "lost"), (2, 2, "duplicated")] {
        let thief = Thief { qos, times, done: Arc::new(AtomicBool::new(false)) };
        let done = Arc::clone(&thief.done);
        let address = thief.stand_before(cluster.mqtt(1));
        let run = start(&["--mqtt", &address.to_string(), "--drain", "2s"]);
        eventually("a message for the thief", Duration::from_secs(20), || {
            done.load(Ordering::Relaxed).then_some(())
        });
        let (code, report, said) = run.stop();
        assert_eq!(code, Some(8), "{report} {said}");
        let mut violations = report["violations"].as_object().expect("counts").clone();
        assert_eq!(violations.remove(violation), Some(1.into()), "{report}");
        assert!(violations.values().all(|count| *count == 0), "and nothing else: {report}");
    }
}

/// Stands before a broker and passes everything on as it is, but for one message to a persistent
/// session: that comes so many times, under another packet id each, as if it were other ones.
#[derive(Clone)]
struct Thief {
    qos: u8,
    times: u16,
    done: Arc<AtomicBool>,
}

impl Thief {
    /// Where to connect.
    fn stand_before(self, broker: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a client");
                let broker = TcpStream::connect(broker).expect("the broker");
                let (to_broker, to_client) = (broker.try_clone(), client.try_clone());
                let (to_broker, to_client) = (to_broker.expect("a handle"), to_client.expect("a handle"));
                std::thread::spawn(move || pump(client, to_broker));
                let thief = self.clone();
                std::thread::spawn(move || thief.steal(broker, to_client));
            }
        });
        address
    }

    fn steal(&self, mut broker: TcpStream, mut client: TcpStream) {
        let mut answers = broker.try_clone().expect("a handle");
        let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            while let Ok(Some((packet, length))) = decode(Version::V5, &received) {
                let bytes: Vec<u8> = received.drain(..length).collect();
                let sent = match &packet {
                    Packet::Publish(p)
                        if p.topic.contains("/kept/")
                            && p.qos == self.qos
                            && !self.done.swap(true, Ordering::Relaxed) =>
                    {
                        if self.times == 0 {
                            // The broker believes that it has arrived.
                            answers.write_all(&ack(AckKind::PubAck, p.id))
                        } else {
                            (0..self.times).try_for_each(|turn| {
                                let copy =
                                    cluster_tests::mqtt::Publish { id: p.id + 30_000 * turn, ..p.clone() };
                                client.write_all(&cluster_tests::mqtt::publish(Version::V5, &copy))
                            })
                        }
                    }
                    _ => client.write_all(&bytes),
                };
                if sent.is_err() {
                    break;
                }
            }
            match broker.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(read) => received.extend_from_slice(&chunk[..read]),
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }
}

/// Passes on what comes, to the end.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    // Whichever side ends the connection, both ends are to see it.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
