//! Clients that people use, as they come: publish on each node, receive on each other, QoS 0, 1
//! and 2, MQTT 3.1.1 and 5.0, retained messages and wills.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::tools::{self, Running, run, script, tool};

const VERSIONS: [&str; 2] = ["3.1.1", "5.0"];

fn mosquitto(program: &str, to: SocketAddr, version: &str, topic: &str, qos: u8) -> std::process::Command {
    let mut command = tool(program.into());
    let (host, port, qos) = (to.ip().to_string(), to.port().to_string(), qos.to_string());
    let version = if version == "5.0" { "mqttv5" } else { "mqttv311" };
    command.args(["-h", &host, "-p", &port, "-V", version, "-t", topic, "-q", &qos]);
    command
}

/// A mosquitto_sub that has its SUBACK and prints what comes as `> topic qos retain payload`.
fn mosquitto_sub(to: SocketAddr, version: &str, topic: &str, qos: u8, more: &[&str]) -> Running {
    let mut command = mosquitto("mosquitto_sub", to, version, topic, qos);
    command.args(["-d", "-F", "> %t %q %r %p"]).args(more);
    // Line by line, or its output would wait in a buffer until it ends.
    let mut unbuffered = tool("stdbuf".into());
    unbuffered.arg("-oL").arg(command.get_program()).args(command.get_args());
    let mut sub = Running::start(&mut unbuffered);
    while !sub.line().starts_with("Subscribed") {}
    sub
}

fn messages(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| line.strip_prefix("> ").map(str::to_owned)).collect()
}

#[test]
fn mosquitto_clients() {
    let cluster = Cluster::start(3);
    for version in VERSIONS {
        for to in 1..=3 {
            let topic = fresh("mosquitto");
            let filter = format!("{topic}/#");
            let sub = mosquitto_sub(cluster.mqtt(to), version, &filter, 2, &["-C", "9"]);
            let mut want = Vec::new();
            for from in 1..=3 {
                for qos in 0..=2 {
                    let (topic, payload) = (format!("{topic}/{from}"), format!("from {from} at {qos}"));
                    run(mosquitto("mosquitto_pub", cluster.mqtt(from), version, &topic, qos)
                        .args(["-m", &payload]));
                    want.push(format!("{topic} {qos} 0 {payload}"));
                }
            }
            let mut got = messages(&sub.finish());
            got.sort();
            assert_eq!(got, want, "{version}, on n{to}");
        }
    }
}

#[test]
fn mosquitto_retained_and_will() {
    let cluster = Cluster::start(3);
    for version in VERSIONS {
        for (from, to) in [(1, 2), (2, 3), (3, 1)] {
            let topic = fresh("kept");
            run(mosquitto("mosquitto_pub", cluster.mqtt(from), version, &topic, 1).args(["-r", "-m", "kept"]));
            let mut sub = mosquitto("mosquitto_sub", cluster.mqtt(to), version, &topic, 1);
            let got = run(sub.args(["-C", "1", "-F", "%t %q %r %p"]));
            assert_eq!(got.trim(), format!("{topic} 1 1 kept"), "{version}");

            let will = fresh("will");
            let heir = mosquitto_sub(cluster.mqtt(to), version, &will, 1, &["-C", "1"]);
            let other = fresh("other");
            let with_will = ["--will-topic", &will, "--will-payload", "gone", "--will-qos", "1"];
            // Dropped, it is killed: no DISCONNECT.
            drop(mosquitto_sub(cluster.mqtt(from), version, &other, 0, &with_will));
            assert_eq!(messages(&heir.finish()), [format!("{will} 1 0 gone")], "{version}");
        }
    }
}

#[test]
fn paho_mqtt_for_python() {
    let cluster = Cluster::start(3);
    for version in VERSIONS {
        let mut python = tools::python();
        python.arg(script("paho_all.py")).args([version, &fresh("paho")]);
        python.args(cluster.mqtt_all().iter().map(SocketAddr::to_string));
        assert_eq!(run(&mut python), "ok\n", "{version}");
    }
}

#[test]
fn mqtt_js_over_websocket() {
    let cluster = Cluster::start(3);
    for version in VERSIONS {
        let mut node = tools::node();
        node.arg(script("mqttjs_all.js")).args([version, &fresh("js")]);
        node.args((1..=3).map(|i| format!("ws://{}/mqtt", cluster.ws(i))));
        assert_eq!(run(&mut node), "ok\n", "{version}");
    }
}

/// The two versions of rumqttc have the same names in two modules.
macro_rules! rumqttc_checks {
    ($name:ident, $client:path, $options:path, $connection:path, $event:path, $packet:path, $qos:path, $topic:expr,
     $will:expr) => {
        mod $name {
            use super::*;
            use $client as Client;
            use $connection as Connection;
            use $event as Event;
            use $options as Options;
            use $packet as Packet;
            use $qos as QoS;

            const ANSWER: Duration = Duration::from_secs(20);

            fn options(address: SocketAddr, id: &str) -> Options {
                let mut options = Options::new(id, address.ip().to_string(), address.port());
                options.set_keep_alive(Duration::from_secs(30));
                options
            }

            /// Runs the connection until `want` has seen what it waits for.
            fn until<T>(connection: &mut Connection, mut want: impl FnMut(Packet) -> Option<T>) -> T {
                let end = std::time::Instant::now() + ANSWER;
                loop {
                    let left = end.saturating_duration_since(std::time::Instant::now());
                    let event =
                        connection.recv_timeout(left).expect("an event in time").expect("a connection");
                    if let Event::Incoming(packet) = event
                        && let Some(found) = want(packet)
                    {
                        return found;
                    }
                }
            }

            fn message(connection: &mut Connection) -> (String, QoS, bool, Vec<u8>) {
                until(connection, |packet| match packet {
                    Packet::Publish(p) => Some(($topic(&p.topic), p.qos, p.retain, p.payload.to_vec())),
                    _ => None,
                })
            }

            fn subscribed(connection: &mut Connection) {
                until(connection, |packet| matches!(packet, Packet::SubAck(_)).then_some(()));
            }

            pub fn check(cluster: &Cluster) {
                for (from, to) in [(1, 2), (2, 3), (3, 1), (1, 3), (2, 1), (3, 2)] {
                    let (sub, mut incoming) = Client::new(options(cluster.mqtt(to), &fresh("rs")), 10);
                    let (publ, mut acks) = Client::new(options(cluster.mqtt(from), &fresh("rs")), 10);
                    for (qos, topic) in [
                        (QoS::AtMostOnce, fresh("rs")),
                        (QoS::AtLeastOnce, fresh("rs")),
                        (QoS::ExactlyOnce, fresh("rs")),
                    ] {
                        sub.subscribe(&topic, qos).expect("queued");
                        subscribed(&mut incoming);
                        publ.publish(&topic, qos, false, "hello").expect("queued");
                        if qos == QoS::AtMostOnce {
                            // Nothing comes back that would tell that it was sent; of this, it does.
                            publ.publish(fresh("flush"), QoS::AtLeastOnce, false, "").expect("queued");
                        }
                        until(&mut acks, |packet| match packet {
                            Packet::PubAck(_) if qos != QoS::ExactlyOnce => Some(()),
                            Packet::PubComp(_) => Some(()),
                            _ => None,
                        });
                        assert_eq!(message(&mut incoming), (topic, qos, false, b"hello".to_vec()));
                    }

                    let kept = fresh("rs-kept");
                    publ.publish(&kept, QoS::AtLeastOnce, true, "kept").expect("queued");
                    until(&mut acks, |packet| matches!(packet, Packet::PubAck(_)).then_some(()));
                    sub.subscribe(&kept, QoS::AtLeastOnce).expect("queued");
                    let got = message(&mut incoming);
                    assert_eq!(got, (kept, QoS::AtLeastOnce, true, b"kept".to_vec()));

                    let will = fresh("rs-will");
                    sub.subscribe(&will, QoS::AtLeastOnce).expect("queued");
                    subscribed(&mut incoming);
                    let mut dying = options(cluster.mqtt(from), &fresh("rs-dies"));
                    dying.set_last_will($will(&will));
                    let (client, mut connection) = Client::new(dying, 10);
                    until(&mut connection, |packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
                    // Without DISCONNECT.
                    drop((connection, client));
                    let got = message(&mut incoming);
                    assert_eq!(got, (will, QoS::AtLeastOnce, false, b"gone".to_vec()));
                }
            }
        }
    };
}

rumqttc_checks!(
    v311,
    rumqttc::Client,
    rumqttc::MqttOptions,
    rumqttc::Connection,
    rumqttc::Event,
    rumqttc::Packet,
    rumqttc::QoS,
    |topic: &String| topic.clone(),
    |topic: &str| rumqttc::LastWill::new(topic, "gone", QoS::AtLeastOnce, false)
);
rumqttc_checks!(
    v5,
    rumqttc::v5::Client,
    rumqttc::v5::MqttOptions,
    rumqttc::v5::Connection,
    rumqttc::v5::Event,
    rumqttc::v5::mqttbytes::v5::Packet,
    rumqttc::v5::mqttbytes::QoS,
    |topic: &bytes::Bytes| String::from_utf8_lossy(topic).into_owned(),
    |topic: &str| rumqttc::v5::mqttbytes::v5::LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None)
);

#[test]
fn rumqttc_clients() {
    let cluster = Cluster::start(3);
    v311::check(&cluster);
    v5::check(&cluster);
}
