use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::{Running, listen};
use crate::mqtt::{Connect, Version, encode};
use crate::net::{Kind, ListenerOptions, ProxySources};
use crate::session::testing::{encoded, packets};
use crate::session::{Conn, Limits, Metric};

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 1883\r\n";
const CONNACK_BYTES: usize = 4;

fn start(trusted: &str, limits: Limits) -> Running {
    let proxies = Some(ProxySources(vec![trusted.parse().expect("a network")]));
    listen(ListenerOptions { proxies, ..ListenerOptions::new(Kind::Tcp) }, limits, 1)
}

fn dial(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address).expect("listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    stream.set_nodelay(true).expect("an option");
    stream
}

fn connect_bytes() -> Vec<u8> {
    let connect = Connect { client_id: "c", ..Connect::new(Version::V311) };
    encoded(|buf| encode::connect(buf, &connect).expect("fits"))
}

fn connected(stream: &mut TcpStream, running: &Running) -> Arc<Conn> {
    let mut answer = [0; CONNACK_BYTES];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(packets(&answer, Version::V311), ["CONNACK 00"]);
    running.service.conn()
}

/// It is closed without a word.
fn assert_closed(mut stream: TcpStream) {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn the_header_says_who_the_client_is() {
    let running = start("127.0.0.1", Limits::default());
    let mut stream = dial(&running);
    stream.write_all(&[HEADER, &connect_bytes()].concat()).expect("reads");
    let conn = connected(&mut stream, &running);
    assert_eq!((conn.peer().as_str(), conn.certificate()), ("192.0.2.9:4000", None));
    assert_eq!(running.service.calls.lock().len(), 1);

    // The proxy's own connection has its address.
    let mut stream = dial(&running);
    let own = stream.local_addr().expect("connected");
    stream.write_all(&[&b"PROXY UNKNOWN\r\n"[..], &connect_bytes()].concat()).expect("reads");
    assert_eq!(connected(&mut stream, &running).address(), Some(own));
}

#[test]
fn the_certificate_that_the_proxy_has_verified() {
    let running = start("127.0.0.1", Limits::default());
    for (verify, name) in [(0, Some("device")), (1, None)] {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1d".to_vec();
        header.extend(b"\xc0\0\x02\x09\xc0\0\x02\x01\x0f\xa0\x07\x5b");
        header.extend([0x20, 0, 14, 0x07, 0, 0, 0, verify, 0x22, 0, 6]);
        header.extend(b"device");
        let mut stream = dial(&running);
        stream.write_all(&[header, connect_bytes()].concat()).expect("reads");
        let conn = connected(&mut stream, &running);
        let certificate = conn.certificate();
        let shown = certificate.as_ref().and_then(|certificate| certificate.common_name.as_deref());
        assert_eq!((conn.peer().as_str(), shown), ("192.0.2.9:4000", name));
    }
}

#[test]
fn who_is_not_trusted_or_says_no_header_is_closed_and_counted() {
    let running = start("127.0.0.2", Limits::default());
    assert_closed(dial(&running));
    let counters = &running.context.counters;
    assert_eq!((counters.get(Metric::ProxySourcesRefused), counters.get(Metric::SocketsAccepted)), (1, 0));

    let running = start("127.0.0.0/8", Limits::default());
    let mut stream = dial(&running);
    stream.write_all(&connect_bytes()).expect("reads");
    assert_closed(stream);
    running.until("it is gone", |r| r.context.counters.get(Metric::Sockets) == 0);
    let counters = &running.context.counters;
    assert_eq!((counters.get(Metric::ProxyHeadersRefused), counters.get(Metric::Handshakes)), (1, 0));
    assert!(running.service.calls.lock().is_empty());
}

#[test]
fn a_header_without_its_end_runs_out_of_time() {
    let running = start("127.0.0.1", Limits { connect_timeout_ms: 200, ..Limits::default() });
    for said in [&HEADER[..20], HEADER] {
        let mut stream = dial(&running);
        stream.write_all(said).expect("reads");
        assert_closed(stream);
    }
    assert_eq!(running.context.counters.get(Metric::ConnectTimeouts), 2);
}

#[test]
fn an_address_that_is_not_admitted() {
    let here: IpAddr = [127, 0, 0, 1].into();
    let running = super::start(Kind::Tcp, Limits::default(), 1);
    running.service.banned.lock().replace(here);
    assert_closed(dial(&running));
    assert_eq!(running.context.counters.get(Metric::AddressesRefused), 1);
    running.service.banned.lock().take();
    let mut stream = dial(&running);
    stream.write_all(&connect_bytes()).expect("reads");
    let client: SocketAddr = stream.local_addr().expect("connected");
    assert_eq!(connected(&mut stream, &running).address(), Some(client));

    // Behind a proxy the client's counts, not the proxy's.
    let running = start("127.0.0.1", Limits::default());
    running.service.banned.lock().replace(here);
    let mut stream = dial(&running);
    stream.write_all(&[HEADER, &connect_bytes()].concat()).expect("reads");
    connected(&mut stream, &running);
    running.service.banned.lock().replace([192, 0, 2, 9].into());
    let mut stream = dial(&running);
    stream.write_all(&[HEADER, &connect_bytes()].concat()).expect("reads");
    assert_closed(stream);
    running.until("it is counted", |r| r.context.counters.get(Metric::AddressesRefused) == 1);
}
