//! MQTT over TLS and over secure WebSocket: the same service, with certificates.

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::cluster::{AGREE_TIMEOUT, Cluster};
use cluster_tests::fresh;
use cluster_tests::mqtt::{AckKind, Client, Error, Options, Transport, VERSIONS, Version, Will};
use cluster_tests::tls::{self, Authority, authority, trusting};
use cluster_tests::wait::eventually;
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion, version};

const SOON: Duration = Duration::from_secs(20);

fn transports(cluster: &Cluster, i: usize) -> [Transport; 4] {
    [
        Transport::Tls(cluster.tls(i)),
        Transport::Wss(cluster.wss(i)),
        Transport::Tcp(cluster.mqtt(i)),
        Transport::Ws(cluster.ws(i)),
    ]
}

/// Whether an error is this fatal alert of the broker.
fn is_alert(error: &Error, alert: AlertDescription) -> bool {
    let Error::Io(error) = error else { return false };
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tls == Some(&rustls::Error::AlertReceived(alert))
}

#[test]
fn every_transport_reaches_every_other_across_nodes() {
    let cluster = Cluster::start(3);
    for (round, version) in VERSIONS.into_iter().enumerate() {
        let (from, to) = (1 + round, 1 + (round + 1) % 3);
        let topic = fresh("t");
        let mut subscribers = transports(&cluster, to).map(|transport| {
            let options = Options::new(version, &fresh("s"));
            let mut sub = Client::connect(transport, &options).expect("connects");
            assert_eq!(sub.subscribe(&[(&topic, 2)]).expect("SUBACK"), [2]);
            sub
        });
        for transport in transports(&cluster, from) {
            let mut publ = Client::connect(transport, &Options::new(version, &fresh("p"))).expect("connects");
            for qos in 0..=2 {
                let payload = format!("{transport:?} {qos}");
                assert_eq!(publ.publish(&topic, &payload, qos).expect("acknowledged"), 0);
                for sub in &mut subscribers {
                    let got = sub.recv(SOON).expect("arrives");
                    assert_eq!((got.text(), got.qos), (payload.clone(), qos));
                }
            }
            // Strict about the end: it is Closed only after close_notify.
            publ.disconnect().expect("leaves");
        }
    }
}

#[test]
fn a_megabyte_each_way_to_a_reader_that_comes_late() {
    const COUNT: usize = 12;
    let cluster = Cluster::start_with(
        1,
        "[limits]\nmax_packet_size_bytes = 4194304\nmax_queued_bytes = 67108864\nmax_outbox_bytes = 33554432",
    );
    for (to, from) in [
        (Transport::Tls(cluster.tls(1)), Transport::Wss(cluster.wss(1))),
        (Transport::Wss(cluster.wss(1)), Transport::Tls(cluster.tls(1))),
    ] {
        for qos in [0, 1] {
            let topic = fresh("large");
            let mut late = Client::connect(to, &Options::v5(&fresh("late"))).expect("connects");
            late.subscribe(&[(&topic, qos)]).expect("SUBACK");
            let mut publ = Client::connect(from, &Options::v311(&fresh("p"))).expect("connects");
            let payload = |i: usize| -> Vec<u8> {
                (0..1 << 20).map(|at| (at * 31 + i * 7 + (at >> 9)) as u8).collect()
            };
            for i in 0..COUNT {
                publ.publish(&topic, payload(i), qos).expect("acknowledged");
            }
            publ.ping().expect("everything was read");
            for i in 0..COUNT {
                let got = late.recv(SOON).expect("arrives");
                assert!(got.payload == payload(i), "message {i} over {to:?} at QoS {qos} differs");
            }
            assert!(late.quiet().expect("connected"));
        }
    }
}

#[test]
fn keep_alive_takeover_and_wills() {
    let cluster = Cluster::start(1);
    for transport in [Transport::Tls(cluster.tls(1)), Transport::Wss(cluster.wss(1))] {
        let will = fresh("will");
        let mut heir = Client::connect(transport, &Options::v5(&fresh("heir"))).expect("connects");
        heir.subscribe(&[(&will, 1)]).expect("SUBACK");
        let options = Options::v5(&fresh("c")).will(Will::new(&will, "silent", 1)).keep_alive_s(1);
        let mut silent = Client::connect(transport, &options).expect("connects");
        let ended = silent.ending(SOON);
        assert!(matches!(ended, Ok(Error::Disconnected(0x8d))), "keep-alive: {ended:?}");
        assert_eq!(heir.texts(1, SOON).expect("the will"), ["silent"]);

        let options = Options::v5(&fresh("c")).persistent();
        let mut old = Client::connect(transport, &options).expect("connects");
        let mut new = Client::connect(cluster.mqtt(1), &options).expect("takes over");
        assert!(new.session_present);
        let ended = old.ending(SOON);
        assert!(matches!(ended, Ok(Error::Disconnected(0x8e))), "takeover: {ended:?}");
        new.ping().expect("serves");

        // Gone without DISCONNECT and without close_notify.
        let dying = Options::v5(&fresh("c")).will(Will::new(&will, "crashed", 1));
        Client::connect(transport, &dying).expect("connects").crash();
        assert_eq!(heir.texts(1, SOON).expect("the will"), ["crashed"]);
    }
}

#[test]
fn a_session_that_moves_from_tls_to_tls_is_redelivered() {
    let cluster = Cluster::start(3);
    let (options, topic) = (Options::v5(&fresh("moving")).persistent(), fresh("t"));
    let mut first = Client::connect(Transport::Tls(cluster.tls(1)), &options).expect("connects");
    first.subscribe(&[(&topic, 1)]).expect("SUBACK");
    first.auto_ack = false;
    let mut publ =
        Client::connect(Transport::Wss(cluster.wss(2)), &Options::v5(&fresh("p"))).expect("connects");
    publ.publish(&topic, "kept", 1).expect("acknowledged");
    let message = first.recv(SOON).expect("arrives");
    let mut second = Client::connect(Transport::Tls(cluster.tls(3)), &options).expect("takes over");
    let again = second.recv(SOON).expect("arrives again");
    assert_eq!((again.text(), again.id, again.dup), ("kept".to_owned(), message.id, true));
    second.send_ack(AckKind::PubAck, again.id).expect("sent");
    second.ping().expect("serves");
}

#[test]
fn both_versions_of_tls_and_the_protocols_that_are_offered() {
    let cluster = Cluster::start(1);
    let connect = |config: rustls::ClientConfig, transport| {
        Client::connect_as(transport, &Options::v5(&fresh("c")), Arc::new(config))
    };
    let listeners: [(Transport, &[u8]); 2] =
        [(Transport::Tls(cluster.tls(1)), b"mqtt"), (Transport::Wss(cluster.wss(1)), b"http/1.1")];
    for (transport, protocol) in listeners {
        for (offered, negotiated) in
            [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
        {
            let mut config = authority().client(None, &[offered]);
            config.alpn_protocols = vec![b"h2".to_vec(), protocol.to_vec()];
            let mut client = connect(config, transport).expect("connects");
            client.ping().expect("serves");
            let tls = client.tls().expect("a TLS session");
            assert_eq!((tls.protocol_version(), tls.alpn_protocol()), (Some(negotiated), Some(protocol)));
        }
        let mut config = authority().client(None, rustls::ALL_VERSIONS);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let error = connect(config, transport).err().expect("refused");
        assert!(is_alert(&error, AlertDescription::NoApplicationProtocol), "{error}");
        // Whoever believes somebody else goes away.
        let stranger = Authority::new("a stranger").client(None, rustls::ALL_VERSIONS);
        connect(stranger, transport).err().expect("not believed");
    }
}

#[test]
fn sessions_are_resumed_by_tickets() {
    let cluster = Cluster::start(1);
    for transport in [Transport::Tls(cluster.tls(1)), Transport::Wss(cluster.wss(1))] {
        for version in [&version::TLS12, &version::TLS13] {
            let config = Arc::new(authority().client(None, &[version]));
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let client = Client::connect_as(transport, &Options::v5(&fresh("c")), config.clone())
                    .expect("connects");
                kinds.push(client.tls().and_then(|tls| tls.handshake_kind()));
                client.disconnect().expect("leaves");
            }
            assert!(!matches!(kinds[0], Some(HandshakeKind::Resumed)), "{kinds:?}");
            assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{transport:?} {version:?}");
        }
    }
}

#[test]
fn client_certificates() {
    let mut cluster = Cluster::start(1);
    let ca = cluster.ca_file();
    let (known, stranger) = (authority().issue("client"), Authority::new("a stranger").issue("client"));
    let with = |identity| Arc::new(authority().client(identity, rustls::ALL_VERSIONS));
    let connect = |transport, config| Client::connect_as(transport, &Options::v5(&fresh("c")), config);
    for required in [false, true] {
        cluster.node(1).stop();
        let lines =
            if required { "require_client_cert = true".to_owned() } else { format!("ca_file = {ca:?}") };
        cluster.node(1).configure_tls(&lines);
        cluster.restart(1);
        for transport in [Transport::Tls(cluster.tls(1)), Transport::Wss(cluster.wss(1))] {
            // Each connection is verified: nothing is resumed.
            let config = with(Some(&known));
            for _ in 0..2 {
                let mut client = connect(transport, config.clone()).expect("a known client");
                client.ping().expect("serves");
                let kind = client.tls().and_then(|tls| tls.handshake_kind());
                assert!(!matches!(kind, Some(HandshakeKind::Resumed)), "{kind:?}");
            }
            connect(transport, with(Some(&stranger))).err().expect("a stranger is refused");
            match (connect(transport, with(None)), required) {
                (Ok(mut client), false) => {
                    client.ping().expect("serves");
                }
                (Err(_), true) => {}
                (Ok(_), true) => panic!("a client without a certificate was let in over {transport:?}"),
                (Err(error), false) => panic!("a client without a certificate was refused: {error}"),
            }
        }
        let error = connect(Transport::Tls(cluster.tls(1)), with(Some(&stranger))).err().expect("refused");
        assert!(is_alert(&error, AlertDescription::UnknownCA), "{error}");
    }
    let error = connect(Transport::Tls(cluster.tls(1)), with(None)).err().expect("refused");
    assert!(is_alert(&error, AlertDescription::CertificateRequired), "{error}");
}

#[test]
fn certificates_are_read_again_at_sighup() {
    let mut cluster = Cluster::start(1);
    let transport = Transport::Tls(cluster.tls(1));
    let mut established = Client::connect(transport, &Options::v5(&fresh("c"))).expect("connects");
    let new = Authority::new("a new authority");
    let trusting_new = Arc::new(new.client(None, rustls::ALL_VERSIONS));

    // What cannot be used changes nothing.
    let key = cluster.path().join(tls::KEY_FILE);
    let old_key = std::fs::read(&key).expect("the key");
    std::fs::write(&key, "").expect("written");
    cluster.node(1).signal("HUP");
    eventually("a complaint", AGREE_TIMEOUT, || {
        cluster.node(1).log().contains("holds no private key").then_some(())
    });
    std::fs::write(&key, old_key).expect("written");
    Client::connect(transport, &Options::v5(&fresh("c"))).expect("the old certificate serves on");

    tls::write(cluster.path(), &new.issue("a node"));
    cluster.node(1).signal("HUP");
    eventually("the new certificate", AGREE_TIMEOUT, || {
        Client::connect_as(transport, &Options::v5(&fresh("c")), trusting_new.clone()).ok()
    });
    established.ping().expect("nobody was disconnected");
}

/// Resident bytes of a process.
fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn what_tls_costs_an_idle_connection() {
    const COUNT: usize = 400;
    // Beyond what a plain connection costs; measured: 8 KiB, half of it a buffer of rustls.
    const BYTES_MAX: u64 = 10 << 10;
    let mut cluster = Cluster::start(1);
    let pid = cluster.pid(1);
    let costs = |transport| {
        let connect = |_| {
            let mut client = Client::connect(transport, &Options::v5(&fresh("idle"))).expect("connects");
            // Something large once, which must not be kept.
            client.publish("nobody", [0; 60_000], 0).expect("sent");
            client.ping().expect("serves");
            client
        };
        let _first: Vec<Client> = (0..50).map(connect).collect();
        let before = resident_bytes(pid);
        let _more: Vec<Client> = (0..COUNT).map(connect).collect();
        resident_bytes(pid).saturating_sub(before) / COUNT as u64
    };
    let (plain, tls) = (costs(Transport::Tcp(cluster.mqtt(1))), costs(Transport::Tls(cluster.tls(1))));
    eprintln!("an idle connection: {plain} bytes plain, {tls} bytes with TLS");
    assert!(tls < plain + BYTES_MAX, "an idle connection: {plain} bytes plain, {tls} bytes with TLS");
    cluster.node(1).stop();
}

#[test]
fn a_client_that_sends_nothing_more_has_left() {
    let cluster = Cluster::start(1);
    let will = fresh("will");
    let mut heir = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("heir"))).expect("connects");
    heir.subscribe(&[(&will, 1)]).expect("SUBACK");
    let options = Options::v5(&fresh("c")).will(Will::new(&will, "gone", 1));
    let mut client =
        Client::open_as(Transport::Tls(cluster.tls(1)), Version::V5, trusting()).expect("shakes hands");
    client.send(&cluster_tests::mqtt::connect(&options)).expect("sent");
    client.await_connack().expect("granted");
    // The TCP connection stays.
    client.close_notify().expect("sent");
    assert_eq!(heir.texts(1, SOON).expect("the will"), ["gone"]);
    let ended = client.ending(SOON);
    assert!(matches!(ended, Ok(Error::Closed)), "{ended:?}");
}
