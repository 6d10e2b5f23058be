//! Nodes know each other by certificates of the cluster's own CA, which is replaced by command.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster, Said, cli};
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Options};
use cluster_tests::peers::{Stolen, call_without_certificate, document, keys_file};
use cluster_tests::traffic::{Collector, Traffic};
use cluster_tests::wait::eventually;
use serde_json::Value;

const DRAIN: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
/// A lease runs out after so long without renewal; acknowledgements never stop until then.
const LEASE: Duration = Duration::from_millis(1400);
/// Exit code of a command that would leave a member behind.
const UNSAFE: Option<i32> = Some(5);

/// The CA that the node at `api` uses.
fn ca(api: SocketAddr) -> String {
    document(api, "/api/v1/cluster")["ca"].as_str().expect("a fingerprint").to_owned()
}

/// What the members have said to the node at `api` of their CAs.
fn states(api: SocketAddr) -> Vec<(String, String)> {
    let answer = document(api, "/api/v1/cluster/ca");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = answer["members"].as_array().expect("members").iter();
    members.map(|m| (text(&m["state"]), text(&m["fingerprint"]))).collect()
}

#[track_caller]
fn done(said: &Said) {
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// All nodes use one CA, and believe no other; which.
#[track_caller]
fn settled(cluster: &Cluster) -> String {
    let one = ca(cluster.api(1));
    for i in 1..=cluster.len() {
        for (state, fingerprint) in states(cluster.api(i)) {
            assert_eq!((state.as_str(), &fingerprint), ("settled", &one), "as n{i} sees it");
        }
    }
    one
}

#[test]
fn the_peer_port_is_closed_to_whoever_shows_no_certificate() {
    let mut cluster = Cluster::start(3);
    for i in 1..=3 {
        let peer = cluster.node(i).ports.peer;
        let refused = call_without_certificate(peer).expect_err("refused");
        assert!(refused.message().contains("no certificate"), "{refused:?}");

        // HTTP/2 in the clear, as nodes once spoke.
        let mut plain = TcpStream::connect(peer).expect("connects");
        plain.set_read_timeout(Some(SOON)).expect("set");
        plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(answer.first().is_none_or(|kind| *kind == 21), "an alert or nothing: {answer:?}");
    }
    // A member's keys open all of them: so it is the certificate that counts.
    let member = Stolen::from(&mut cluster, 2);
    for i in [1, 3] {
        assert!(member.is_believed(cluster.node(i).ports.peer));
    }
    // And those of a member of another cluster none.
    let mut other = Cluster::start(1);
    let stranger = Stolen::from(&mut other, 1);
    assert!(!stranger.is_believed(cluster.node(1).ports.peer));
}

#[test]
fn the_ca_is_replaced_under_load_and_stolen_keys_open_nothing_any_more() {
    let mut cluster = Cluster::start(3);
    let before = settled(&cluster);
    let addresses = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(1), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 4);
    traffic.wait_more(200);

    let stolen = Stolen::from(&mut cluster, 3);
    assert!(stolen.is_believed(cluster.node(1).ports.peer));
    // Asked on a node that does not lead, too.
    let follower = cluster.follower(&[]);
    let leader = cluster.leader();
    for asked in [follower, leader] {
        done(&cli::rotate_ca(cluster.api(asked), &[]));
        traffic.wait_more(200);
        collector.collect(Duration::from_millis(200));
    }
    let silence = traffic.longest_silence();
    assert!(silence < LEASE, "nothing was acknowledged for {silence:?}");
    let after = settled(&cluster);
    assert_ne!(after, before);
    for i in 1..=3 {
        let peer = cluster.node(i).ports.peer;
        assert!(!stolen.is_believed(peer), "n{i}");
    }
    // What is on the disks is what counts after a restart.
    cluster.node(follower).stop();
    cluster.restart(follower);
    assert_eq!(ca(cluster.api(follower)), after);
    traffic.wait_more(200);
    let acked = traffic.stop();
    collector.expect_all(&acked, &addresses, DRAIN);

    // A token from before opens nothing, a new one does.
    assert_eq!(cluster.add(1), 4);
}

/// Rotates until some member is in `state`, kills the leader there, and goes on later.
fn killed_in_the_middle(state: &str) {
    let mut cluster = Cluster::start(3);
    let addresses = cluster.mqtt_all();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(cluster.mqtt(1), &prefix);
    let traffic = Traffic::start(&prefix, &addresses, 4);
    traffic.wait_more(100);
    let before = settled(&cluster);
    let leader = cluster.leader();
    let asked = cluster.follower(&[]);
    let api = cluster.api(asked);
    let rotating = std::thread::spawn(move || cli::rotate_ca(api, &[]));
    eventually("the middle of a rotation", SOON, || {
        states(api).iter().any(|(now, _)| now == state).then_some(())
    });
    cluster.kill9(leader);
    let left: Vec<String> = states(api).into_iter().map(|(state, _)| state).collect();
    let said = rotating.join().expect("no panic");
    // Whoever leads next goes no further without it, unless it was over by then.
    assert!(matches!(said.code, Some(0 | 4 | 5 | 6)), "{said:?}");
    eprintln!("killed in the middle: the members were {left:?}; the command ended with {:?}", said.code);
    traffic.wait_more(100);
    cluster.restart(leader);
    cluster.wait_up(leader, true);
    done(&cli::rotate_ca(api, &[]));
    assert_ne!(settled(&cluster), before);
    traffic.wait_more(100);
    let acked = traffic.stop();
    collector.expect_all(&acked, &addresses, DRAIN);
}

#[test]
fn a_rotation_whose_leader_dies_in_the_first_round_is_gone_on_with() {
    killed_in_the_middle("trusts_next");
}

#[test]
fn a_rotation_whose_leader_dies_in_the_second_round_is_gone_on_with() {
    killed_in_the_middle("trusts_old");
}

#[test]
fn a_member_that_is_down_is_not_left_behind_unasked_and_gets_in_again_with_a_token() {
    let mut cluster = Cluster::start(3);
    let before = settled(&cluster);
    let away = cluster.follower(&[]);
    let via = cluster.leader();
    let name = cluster.node(away).name.clone();
    cluster.kill9(away);
    let said = cli::rotate_ca(cluster.api(via), &[]);
    assert_eq!(said.code, UNSAFE, "{said:?}");
    assert!(said.stderr.contains(&name), "{said:?}");
    let (peer, old) = (cluster.node(via).ports.peer, keys_file(&cluster.node(away).data_dir()));
    assert_eq!(ca(cluster.api(via)), before, "nothing was changed");

    done(&cli::rotate_ca(cluster.api(via), &["--force"]));
    let after = ca(cluster.api(via));
    assert_ne!(after, before);
    // Back with the old keys it is nobody's peer, and says what to do.
    cluster.node(away).spawn();
    cluster.node(away).wait_live();
    eventually("it says that it was left behind", SOON, || {
        cluster.node(away).log().contains("let it in again").then_some(())
    });
    assert!(!cluster.node(away).answers("/readyz"));
    let stale = std::fs::read(&old).expect("its keys");
    let token = cli::token(cluster.api(via));
    cli::join(cluster.api(away), peer, &token);
    assert_ne!(std::fs::read(&old).expect("its keys"), stale);
    cluster.node(away).wait_ready();
    cluster.wait_up(away, true);
    assert_eq!(settled(&cluster), after);

    // It is a full member: with it, the cluster bears the loss of another.
    let lost = cluster.follower(&[away]);
    cluster.kill9(lost);
    let topic = fresh("t");
    eventually("acknowledged by the two", AGREE_TIMEOUT, || {
        let mut client = Client::connect(cluster.mqtt(away), &Options::v5(&fresh("c"))).ok()?;
        client.subscribe(&[(&topic, 1)]).ok()?;
        (client.publish(&topic, "on", 1).ok()? == 0).then_some(())
    });
}

#[test]
fn a_token_made_before_a_rotation_lets_nobody_in() {
    let mut cluster = Cluster::start(1);
    let token = cli::token(cluster.api(1));
    done(&cli::rotate_ca(cluster.api(1), &[]));
    let newcomer = cluster.spawn_another();
    let peer = cluster.node(1).ports.peer;
    let said = cli::try_join(cluster.api(newcomer), peer, &token);
    assert_eq!(said.code, Some(7), "{said:?}");
    assert!(said.stderr.contains("no member of the cluster that the token is for"), "{said:?}");
    cli::join(cluster.api(newcomer), peer, &cli::token(cluster.api(1)));
    assert_eq!(ca(cluster.api(newcomer)), settled(&cluster));
}
