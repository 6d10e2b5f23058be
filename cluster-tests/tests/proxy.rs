//! Clients that come through a proxy, on every listener: who they are, and who may say so.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::mqtt::{Client, Options, connect};
use cluster_tests::tls::trusting;
use cluster_tests::wait::eventually;
use cluster_tests::{fresh, http, proxy};

const SOON: Duration = Duration::from_secs(20);
const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const CONNECT_TIMEOUT_MS: u64 = 1_000;

const SOURCES_REFUSED: &str = "rookery_proxy_sources_refused_total";
const HEADERS_REFUSED: &str = "rookery_proxy_headers_refused_total";

/// A node that takes clients from [`PROXY`] alone.
fn behind_a_proxy(toml: &str) -> Cluster {
    let mut cluster = Cluster::start_with(1, toml);
    cluster.node(1).stop();
    // Through it, anybody may come.
    cluster.node(1).set_variable("ROOKERY__AUTH__ALLOW_ANONYMOUS", "true");
    for listener in ["TCP", "WS", "TLS", "WSS"] {
        let node = cluster.node(1);
        node.set_variable(&format!("ROOKERY__LISTENERS__{listener}__PROXY_PROTOCOL"), "true");
        node.set_variable(
            &format!("ROOKERY__LISTENERS__{listener}__PROXY_TRUSTED"),
            &format!("{PROXY}, fd00::/8"),
        );
    }
    cluster.restart(1);
    cluster
}

/// What operators are shown as the client's address.
fn shown_address(cluster: &Cluster, client_id: &str) -> String {
    let (status, body) = http::get(cluster.api(1), &format!("/api/v1/clients/{client_id}")).expect("answers");
    assert_eq!(status, 200, "{body}");
    let (_, rest) = body.split_once("\"address\":\"").unwrap_or_else(|| panic!("no address in {body}"));
    rest.split('"').next().expect("an end").to_owned()
}

/// What is said on it until it is closed.
fn last_words(mut tcp: TcpStream, what: &str) -> Vec<u8> {
    let mut said = Vec::new();
    match tcp.read_to_end(&mut said) {
        Ok(_) => said,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => said,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// It is closed without a word.
fn assert_closed(tcp: TcpStream, what: &str) {
    let said = last_words(tcp, what);
    assert!(said.is_empty(), "{what}: {said:x?}");
}

/// Waits until the node has written a line of the audit log with these parts.
#[track_caller]
fn audited(cluster: &mut Cluster, parts: &[&str]) {
    eventually(&format!("a line with {parts:?}"), SOON, || {
        let log = cluster.node(1).log();
        let mut lines = log.lines().filter(|line| line.contains("audit"));
        lines.any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
}

#[test]
fn the_client_is_where_the_header_says() {
    let cluster = behind_a_proxy("");
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let headers: [(&str, Vec<u8>, Option<&str>); 8] = [
        ("text, IPv4", proxy::text(at("192.0.2.9:4001")), Some("192.0.2.9:4001")),
        ("text, IPv6", proxy::text(at("[2001:db8::9]:4002")), Some("[2001:db8::9]:4002")),
        ("text, mapped", proxy::text(at("[::ffff:192.0.2.9]:4003")), Some("192.0.2.9:4003")),
        ("text, unknown", b"PROXY UNKNOWN\r\n".to_vec(), None),
        ("binary, IPv4", proxy::binary(at("192.0.2.9:4004")), Some("192.0.2.9:4004")),
        ("binary, IPv6", proxy::binary(at("[2001:db8::9]:4005")), Some("[2001:db8::9]:4005")),
        ("binary, with a sum", proxy::checked(at("192.0.2.9:4006")), Some("192.0.2.9:4006")),
        ("binary, the proxy's own", proxy::local(), None),
    ];
    for transport in cluster.transports(1) {
        for (what, header, address) in &headers {
            for piece in [header.len(), 1] {
                let what = format!("{what} over {transport:?} in pieces of {piece}");
                let mut tcp = proxy::dial(PROXY, transport.address());
                let own = tcp.local_addr().expect("connected").to_string();
                header.chunks(piece).for_each(|piece| tcp.write_all(piece).expect("sent"));
                let id = fresh("proxied");
                let mut client = Client::connect_over(tcp, transport, &Options::v5(&id), trusting())
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                client.ping().unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(shown_address(&cluster, &id), address.unwrap_or(&own), "{what}");
                client.disconnect().unwrap_or_else(|error| panic!("{what}: {error}"));
            }
        }
    }
}

#[test]
fn header_and_first_bytes_in_one_write() {
    let cluster = behind_a_proxy("");
    let id = fresh("at-once");
    let mut tcp = proxy::dial(PROXY, cluster.mqtt(1));
    let source = "192.0.2.9:4001".parse().expect("an address");
    tcp.write_all(&[proxy::text(source), connect(&Options::v311(&id))].concat()).expect("sent");
    let mut connack = [0; 4];
    tcp.read_exact(&mut connack).expect("a CONNACK");
    assert_eq!(connack, [0x20, 2, 0, 0]);
    assert_eq!(shown_address(&cluster, &id), "192.0.2.9:4001");
}

#[test]
fn nobody_else_may_connect() {
    let mut cluster = behind_a_proxy("");
    let header = proxy::text("192.0.2.9:4001".parse().expect("an address"));
    for transport in cluster.transports(1) {
        let mut tcp = proxy::dial(STRANGER, transport.address());
        // It may be closed before.
        let _ = tcp.write_all(&header);
        assert_closed(tcp, &format!("a stranger over {transport:?}"));
    }
    assert_eq!(cluster.metric(1, SOURCES_REFUSED), 4.0);
    assert_eq!(cluster.metric(1, HEADERS_REFUSED), 0.0);
    audited(&mut cluster, &["proxy_refused", "127.0.0.2", "proxy_trusted"]);
}

#[test]
fn a_proxy_that_says_no_header_is_closed() {
    let mut cluster = behind_a_proxy("");
    let source = "192.0.2.9:4001".parse().expect("an address");
    let mut wrong_sum = proxy::checked(source);
    wrong_sum[16] ^= 1;
    let mut long = proxy::binary(source);
    long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let garbage: [(&str, &[u8]); 7] = [
        ("CONNECT", &connect(&Options::v5("bare"))),
        ("HTTP", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("TLS", &[0x16, 3, 1, 0, 5]),
        ("addresses that are none", b"PROXY TCP4 192.0.2 192.0.2.1 1 1\r\n"),
        ("a line that does not end", &[b'P', b'R', b'O', b'X', b'Y', b' '].repeat(20)),
        ("a wrong sum", &wrong_sum),
        ("64 KiB", &long),
    ];
    let mut closed = 0.0;
    for transport in cluster.transports(1) {
        for (what, bytes) in garbage {
            let mut tcp = proxy::dial(PROXY, transport.address());
            tcp.write_all(bytes).expect("sent");
            assert_closed(tcp, &format!("{what} over {transport:?}"));
            closed += 1.0;
        }
    }
    assert_eq!(cluster.metric(1, HEADERS_REFUSED), closed);
    assert_eq!(cluster.metric(1, "rookery_tls_failures_total"), 0.0);
    audited(&mut cluster, &["proxy_refused", "127.0.0.1", "no PROXY protocol header"]);
}

#[test]
fn a_header_and_silence_runs_out_of_time() {
    let cluster = behind_a_proxy(&format!("[limits]\nconnect_timeout_ms = {CONNECT_TIMEOUT_MS}"));
    let whole = proxy::text("192.0.2.9:4001".parse().expect("an address"));
    let began = Instant::now();
    let silent: Vec<(String, TcpStream)> = cluster
        .transports(1)
        .into_iter()
        .flat_map(|transport| [0, 1, 20, whole.len()].map(|length| (transport, length)))
        .map(|(transport, length)| {
            let mut tcp = proxy::dial(PROXY, transport.address());
            tcp.write_all(&whole[..length]).expect("sent");
            (format!("{length} bytes over {transport:?}"), tcp)
        })
        .collect();
    let count = silent.len() as f64;
    for (what, tcp) in silent {
        let said = last_words(tcp, &what);
        // TLS says that it ends, and nothing else is said.
        assert!(said.is_empty() || said == [0x15, 3, 3, 0, 2, 1, 0], "{what}: {said:x?}");
        assert!(
            began.elapsed() >= Duration::from_millis(CONNECT_TIMEOUT_MS / 2),
            "{what}: no time was given"
        );
    }
    assert_eq!(cluster.metric(1, "rookery_connect_timeouts_total"), count);
    assert_eq!(cluster.metric(1, HEADERS_REFUSED), 0.0);
}
