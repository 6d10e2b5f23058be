//! The tests' own client and load generator against a broker of others, so that a failure
//! elsewhere is the fault of Rookery.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster_tests::cluster::PortBlock;
use cluster_tests::fresh;
use cluster_tests::load::{Idle, Job, Shape, run};
use cluster_tests::mqtt::{Client, Error, Options, Prop, Props, Transport, VERSIONS, Version, Will, prop};
use cluster_tests::traffic::{Collector, Traffic};
use cluster_tests::wait::eventually;

const SOON: Duration = Duration::from_secs(10);

struct Mosquitto {
    child: Child,
    mqtt: SocketAddr,
    ws: SocketAddr,
    _dir: tempfile::TempDir,
    _ports: PortBlock,
}

impl Mosquitto {
    fn start() -> Self {
        let mut ports = PortBlock::reserve();
        let dir = tempfile::tempdir().expect("a directory");
        let (mqtt, ws) = (ports.node().mqtt, ports.node().ws);
        let config = format!(
            "allow_anonymous true\nlog_type error\nlistener {} 127.0.0.1\nlistener {} 127.0.0.1\nprotocol websockets\n",
            mqtt.port(),
            ws.port()
        );
        let file = dir.path().join("mosquitto.conf");
        fs::write(&file, config).expect("written");
        // Debian keeps daemons out of the path of others than root.
        let daemon = Path::new("/usr/sbin/mosquitto");
        let program = if daemon.exists() { daemon } else { Path::new("mosquitto") };
        let child = Command::new(program).arg("-c").arg(&file).stdin(Stdio::null()).spawn();
        let child = child.expect("mosquitto, which scripts/test-tools installs");
        eventually("mosquitto listens", SOON, || TcpStream::connect(mqtt).ok());
        Mosquitto { child, mqtt, ws, _dir: dir, _ports: ports }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_client_speaks_every_version_over_tcp_and_websocket() {
    let broker = Mosquitto::start();
    for transport in [Transport::Tcp(broker.mqtt), Transport::Ws(broker.ws)] {
        for version in VERSIONS {
            let topic = fresh("t");
            let mut sub = Client::connect(transport, &Options::new(version, &fresh("s"))).expect("connects");
            assert_eq!(sub.subscribe(&[(&topic, 2)]).expect("SUBACK"), [2]);
            let will = Will::new(&topic, "gone", 1);
            let dying = Options::new(version, &fresh("p")).will(will);
            let mut publ = Client::connect(transport, &dying).expect("connects");
            for qos in 0..=2 {
                assert_eq!(publ.publish(&topic, format!("{qos}"), qos).expect("acknowledged"), 0);
                let got = sub.recv(SOON).expect("arrives");
                assert_eq!((got.text(), got.qos), (qos.to_string(), qos));
            }
            publ.retain(&fresh("kept"), "x", 1).expect("acknowledged");
            publ.crash();
            assert_eq!(sub.texts(1, SOON).expect("the will"), ["gone"]);
            assert!(sub.quiet().expect("connected"));
            sub.unsubscribe(&[&topic]).expect("UNSUBACK");
            sub.disconnect().expect("leaves");
        }
    }
}

#[test]
fn the_client_keeps_sessions_and_is_taken_over() {
    let broker = Mosquitto::start();
    let options = Options::v5(&fresh("session")).persistent();
    let topic = fresh("t");
    let mut old = Client::connect(broker.mqtt, &options).expect("connects");
    assert!(!old.session_present);
    old.auto_ack = false;
    old.subscribe_with(&[(&topic, 1)], &Props::default().with(prop::SUBSCRIPTION_ID, Prop::Varint(300)))
        .expect("SUBACK");
    let mut publ = Client::connect(broker.mqtt, &Options::v5(&fresh("p"))).expect("connects");
    let props = Props::default().with(prop::USER_PROPERTY, Prop::Pair("a".into(), "b".into()));
    publ.publish_with(&topic, "open", 1, false, props).expect("acknowledged");
    let first = old.recv(SOON).expect("arrives");
    assert_eq!(
        (first.props.user(), first.props.numbers(prop::SUBSCRIPTION_ID)),
        (vec![("a", "b")], vec![300])
    );
    let mut new = Client::connect(broker.mqtt, &options).expect("takes over");
    assert!(new.session_present);
    // This broker does not say why, though it could.
    let ended = old.ending(SOON);
    assert!(matches!(ended, Ok(Error::Disconnected(0x8e) | Error::Closed)), "{ended:?}");
    let again = new.recv(SOON).expect("redelivered");
    assert_eq!((again.id, again.dup, again.text().as_str()), (first.id, true, "open"));
}

#[test]
fn a_client_that_breaks_the_protocol_learns_how_it_ended() {
    let broker = Mosquitto::start();
    let mut bad = Client::connect(broker.mqtt, &Options::v5(&fresh("bad"))).expect("connects");
    bad.send(&[0x36, 6, 0, 1, b'a', 0, 1, 0]).expect("sent");
    assert!(matches!(bad.ending(SOON), Ok(Error::Disconnected(_) | Error::Closed)));
    let mut bad = Client::open(broker.mqtt, Version::V311).expect("connects");
    bad.send(&[0xc0, 0]).expect("sent");
    assert!(matches!(bad.ending(SOON), Ok(Error::Closed)));
}

#[test]
fn traffic_is_collected_whole_through_a_move() {
    let broker = Mosquitto::start();
    let prefix = fresh("load");
    let mut collector = Collector::subscribe(broker.mqtt, &prefix);
    let traffic = Traffic::start(&prefix, &[broker.mqtt], 3);
    traffic.wait_more(200);
    assert!(collector.collect(Duration::from_millis(50)));
    collector.leave();
    traffic.wait_more(50);
    collector.move_to(broker.mqtt);
    let acked = traffic.stop();
    collector.expect_all(&acked, &[broker.mqtt], SOON);
}

#[test]
fn the_load_generator_measures_every_shape() {
    let broker = Mosquitto::start();
    for shape in [Shape::FanIn(10), Shape::FanOut(20), Shape::Pairs(10)] {
        for qos in [0, 1] {
            let measured = Duration::from_millis(200);
            let pid = Some(broker.child.id());
            let m = run(&Job { shape, broker: broker.mqtt, qos, measured, pid }).expect("measures");
            assert!(m.delivered > 100 && m.p50_us <= m.p99_us && m.p99_us > 0, "{shape:?} {qos}: {m:?}");
            assert!(m.seconds >= 0.2 && m.broker_cpu_s.is_some_and(|s| s < 0.5), "{m:?}");
        }
    }
    let idle = Idle::connect(broker.mqtt, 300).expect("connects");
    assert_eq!(idle.connections.len(), 300);
}
