//! Clients that break TLS or do not speak it, and certificates that cannot be used.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use cluster_tests::cluster::{Cluster, binary};
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options, Transport, Version, Will, connect};
use cluster_tests::tls::{Authority, authority, trusting};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

/// For the broker to end a connection that it has a reason to end.
const ENDS: Duration = Duration::from_secs(10);
/// A connected client's slowest round trip, on a machine that runs other tests.
const PING: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT_MS: u64 = 1_000;

const TLS_FAILURES: &str = "rookery_tls_failures_total";

fn alone() -> Cluster {
    Cluster::start_with(1, &format!("[limits]\nconnect_timeout_ms = {CONNECT_TIMEOUT_MS}"))
}

/// A client that nobody disturbs.
fn healthy(cluster: &Cluster) -> Client {
    Client::connect(Transport::Tls(cluster.tls(1)), &Options::v5(&fresh("healthy"))).expect("connects")
}

#[track_caller]
fn check(healthy: &mut Client, after: &str) {
    let took = healthy.ping().unwrap_or_else(|e| panic!("the healthy client after {after}: {e}"));
    assert!(took < PING, "a ping took {took:?} after {after}");
}

fn dial(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).expect("listens");
    tcp.set_read_timeout(Some(ENDS)).expect("a time-out");
    tcp
}

/// What the broker says until it closes.
fn last_words(mut tcp: TcpStream, what: &str) -> Vec<u8> {
    let mut said = Vec::new();
    match tcp.read_to_end(&mut said) {
        Ok(_) => said,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => said,
        Err(e) => panic!("{what}: {e}"),
    }
}

/// The first flight of a handshake.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(trusting(), name).expect("a client");
    let mut hello = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut hello).expect("written");
    }
    hello
}

#[test]
fn what_is_no_tls_gets_an_alert() {
    let cluster = alone();
    let mut healthy = healthy(&cluster);
    let before = cluster.metric(1, TLS_FAILURES);
    let mqtt = connect(&Options::v5("plain"));
    let attempts: [(&str, &[u8]); 4] = [
        ("CONNECT", &mqtt),
        ("HTTP", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a record of another version", &[0x16, 9, 9, 0, 4, 1, 2, 3, 4]),
        ("a record that is no ClientHello", &[0x16, 3, 1, 0, 5, 9, 0, 0, 1, 0]),
    ];
    for address in [cluster.tls(1), cluster.wss(1)] {
        for (what, bytes) in attempts {
            let mut tcp = dial(address);
            tcp.write_all(bytes).expect("sent");
            let said = last_words(tcp, what);
            assert!(
                said.len() == 7 && said[0] == 0x15 && said[5] == 2,
                "no fatal alert after {what}: {said:x?}"
            );
            check(&mut healthy, what);
        }
    }
    assert_eq!(cluster.metric(1, TLS_FAILURES) - before, 8.0);
}

#[test]
fn a_flood_of_plain_text_does_not_fill_the_log() {
    let cluster = alone();
    let mut healthy = healthy(&cluster);
    for i in 0..400 {
        let mut tcp = dial(cluster.tls(1));
        tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        last_words(tcp, "plain text");
        if i % 50 == 0 {
            check(&mut healthy, "plain text");
        }
    }
    let log = fs::metadata(cluster.path().join("n1/log")).expect("a log").len();
    assert!(log < 64 * 1024, "400 bad clients made {log} bytes of log");
}

#[test]
fn handshakes_that_are_never_finished_run_out_of_time() {
    let cluster = alone();
    let mut healthy = healthy(&cluster);
    let before = cluster.metric(1, "rookery_connect_timeouts_total");
    let hello = client_hello();
    let start = Instant::now();
    let half_open: Vec<(usize, TcpStream)> = [0, 1, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()]
        .into_iter()
        .flat_map(|length| [cluster.tls(1), cluster.wss(1)].map(|address| (length, address)))
        .map(|(length, address)| {
            let mut tcp = dial(address);
            tcp.write_all(&hello[..length]).expect("sent");
            (length, tcp)
        })
        .collect();
    let count = half_open.len() as f64;
    for (length, tcp) in half_open {
        check(&mut healthy, "half a handshake");
        let said = last_words(tcp, &format!("{length} bytes of ClientHello"));
        assert!(
            start.elapsed() >= Duration::from_millis(CONNECT_TIMEOUT_MS / 2),
            "{length}: no time was given"
        );
        assert_eq!(said.len() > 100, length == hello.len(), "{length}: {} bytes", said.len());
    }
    // A handshake that is whole and no CONNECT.
    let mut silent = Client::open(Transport::Tls(cluster.tls(1)), Version::V5).expect("shakes hands");
    let ended = silent.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Closed)), "{ended:?}");
    assert_eq!(cluster.metric(1, "rookery_connect_timeouts_total") - before, count + 1.0);
}

#[test]
fn a_broken_stream_ends_its_connection_alone() {
    let cluster = alone();
    let mut healthy = healthy(&cluster);
    let will = fresh("will");
    healthy.subscribe(&[(&will, 1)]).expect("SUBACK");
    let garbage: [(&str, &[u8]); 4] = [
        ("garbage", b"\r\n\r\n garbage, and more of it"),
        (
            "a record that does not decrypt",
            &[0x17, 3, 3, 0, 20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19],
        ),
        ("an oversized record", &[0x17, 3, 3, 0xff, 0xff, 0, 0]),
        ("a ClientHello again", &client_hello()),
    ];
    for transport in [Transport::Tls(cluster.tls(1)), Transport::Wss(cluster.wss(1))] {
        for (what, bytes) in garbage {
            let options = Options::v5(&fresh("bad")).will(Will::new(&will, what, 1));
            let mut bad = Client::connect(transport, &options).expect("connects");
            bad.send_past_tls(bytes).expect("sent");
            let ended = bad.ending(ENDS);
            assert!(matches!(ended, Ok(Error::Io(_) | Error::Closed)), "{what}: {ended:?}");
            assert_eq!(healthy.texts(1, ENDS).expect("the will"), [what]);
            check(&mut healthy, what);
        }
        // Gone in the middle of a record.
        let options = Options::v5(&fresh("bad")).will(Will::new(&will, "torn", 1));
        let mut torn = Client::connect(transport, &options).expect("connects");
        torn.send_past_tls(&[0x17, 3, 3, 1, 0, 1, 2, 3]).expect("sent");
        torn.crash();
        assert_eq!(healthy.texts(1, ENDS).expect("the will"), ["torn"]);
    }
}

#[test]
fn a_storm_of_handshakes_leaves_connected_clients_alone() {
    let cluster = alone();
    let mut healthy = healthy(&cluster);
    let address = cluster.tls(1);
    let hello = client_hello();
    let storm: Vec<_> = (0..4)
        .map(|_| {
            let hello = hello.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    // Costs the broker a key exchange and a signature, and the client nothing.
                    let mut tcp = dial(address);
                    tcp.write_all(&hello).expect("sent");
                    let mut answer = [0; 64];
                    tcp.read_exact(&mut answer).expect("an answer");
                }
            })
        })
        .collect();
    while storm.iter().any(|thread| !thread.is_finished()) {
        check(&mut healthy, "handshakes");
    }
    storm.into_iter().for_each(|thread| thread.join().expect("the storm ends"));
}

/// What `serve` and `config check` say to a listener of these lines; both must refuse it.
fn complaint(lines: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rookery.toml");
    let data = dir.path().join("data");
    fs::write(
        &file,
        format!("[node]\ndata_dir = {data:?}\n[listeners.tls]\nbind = \"127.0.0.1:0\"\n{lines}\n"),
    )
    .expect("written");
    let said = [&["serve"][..], &["config", "check"]].map(|command| {
        let output = Command::new(binary()).args(command).arg("--config").arg(&file).output();
        let output = output.expect("runs");
        assert_eq!(output.status.code(), Some(2), "{command:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    });
    assert_eq!(said[0], said[1]);
    assert!(!data.exists(), "nothing was made");
    said[0].clone()
}

#[test]
fn what_cannot_be_used_is_named_with_the_fix() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("written");
        path.display().to_string()
    };
    let (one, other) = (authority().issue("one"), Authority::new("other").issue("other"));
    let (cert, key) = (write("cert.pem", &one.cert), write("key.pem", &one.key));
    let (other_key, empty, text) =
        (write("other.key", &other.key), write("empty", ""), write("text", "hello\n"));
    let absent = dir.path().join("absent").display().to_string();
    let torn = write("torn.pem", &one.cert[..one.cert.len() / 2]);
    let lines = |cert: &str, key: &str| format!("cert_file = {cert:?}\nkey_file = {key:?}\n");
    let good = lines(&cert, &key);
    let bad_list = write("bad.crl", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n");
    let ca = write("ca.pem", &authority().pem());
    let with_ca = |crl: &str| format!("{good}ca_file = {ca:?}\ncrl_file = {crl:?}");
    for (lines, wants) in [
        (String::new(), ["listeners.tls.cert_file", "is needed"]),
        (format!("cert_file = {cert:?}"), ["listeners.tls.key_file", "is needed"]),
        (lines(&absent, &key), ["listeners.tls.cert_file", &absent]),
        (lines(&cert, &absent), ["listeners.tls.key_file", &absent]),
        (lines(&empty, &key), [&empty, "holds no certificate"]),
        (lines(&text, &key), [&text, "holds no certificate"]),
        (lines(&torn, &key), [&torn, "is not PEM"]),
        (lines(&key, &key), [&key, "holds no certificate"]),
        (lines(&cert, &empty), [&empty, "holds no private key"]),
        (lines(&cert, &cert), [&cert, "holds no private key"]),
        (lines(&cert, &other_key), [&other_key, "is not the key"]),
        (format!("{good}ca_file = {absent:?}"), ["listeners.tls.ca_file", &absent]),
        (format!("{good}ca_file = {empty:?}"), [&empty, "holds no certificate"]),
        (format!("{good}require_client_cert = true"), ["listeners.tls.ca_file", "is needed"]),
        (format!("{good}crl_file = {cert:?}"), ["listeners.tls.ca_file", "is needed by crl_file"]),
        (with_ca(&absent), ["listeners.tls.crl_file", &absent]),
        (with_ca(&cert), [&cert, "holds no revocation list"]),
        (with_ca(&bad_list), [&bad_list, "cannot be used"]),
        (format!("{good}proxy_protocol = true"), ["listeners.tls.proxy_trusted", "10.0.0.7"]),
        (format!("{good}proxy_trusted = [\"10.0.0\"]"), ["listeners.tls.proxy_trusted", "10.0.0.0/8"]),
        (format!("{good}allowed_origins = [\"*\"]"), ["listeners.tls.allowed_origins", "listeners.wss"]),
        (format!("{good}allowed_origins = [\"a.example\"]"), ["listeners.tls.allowed_origins", "https://"]),
    ] {
        let said = complaint(&lines);
        for want in wants {
            assert!(said.contains(want), "{want:?} is not in {said:?}, said to {lines:?}");
        }
    }
}
