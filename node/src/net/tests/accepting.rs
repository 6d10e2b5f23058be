//! Who is accepted when, and what becomes of who is too many.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::over_tcp::{connect, dial, read_end, read_packets, v5, v311, write_connect};
use super::{Running, start};
use crate::env;
use crate::mqtt::Version;
use crate::net::{Bound, Kind, ListenerOptions, Share};
use crate::overload::{Level, Rate};
use crate::session::{Limits, Metric};

/// Waiting clients, with their CONNECT on its way.
fn crowd(running: &Running, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|i| {
            let mut stream = dial(running);
            write_connect(&mut stream, &v311(&format!("c{i}")));
            stream
        })
        .collect()
}

/// Opens another listener.
fn also_listen(running: &Running, share: Share) -> SocketAddr {
    let options = ListenerOptions { share: Arc::new(share), ..ListenerOptions::new(Kind::Tcp) };
    let bound = Bound::new("127.0.0.1:0".parse().expect("an address"), options, "listeners.tcp.bind", 1);
    let bound = bound.expect("a free port");
    let address = bound.address();
    running.server.open(bound).expect("listens");
    address
}

#[test]
fn what_comes_beyond_the_rate_waits_and_nobody_is_lost() {
    // Two at once, and then 40 a second, shared by both loops.
    let limits = Limits { accept_rate: Rate::new(40, 50), ..Limits::default() };
    let running = start(Kind::Tcp, limits, 2);
    let began = env::now();
    for mut stream in crowd(&running, 22) {
        assert_eq!(read_packets(&mut stream, 1, Version::V311), ["CONNACK 00"]);
    }
    let took = began.elapsed();
    assert!((Duration::from_millis(490)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(running.context.counters.get(Metric::SocketsRefused), 0);
}

#[test]
fn a_listener_has_a_rate_and_a_bound_of_its_own() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    let address = also_listen(&running, Share::new(Some(2), Rate::new(20, 50)));
    let narrow = |id: &str| {
        let mut stream = TcpStream::connect(address).expect("listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        write_connect(&mut stream, &v5(id));
        let said = read_packets(&mut stream, 1, Version::V5).remove(0);
        (stream, said)
    };
    let began = env::now();
    let (first, said) = narrow("a");
    assert_eq!(said, "CONNACK 00");
    let (_second, said) = narrow("b");
    assert_eq!(said, "CONNACK 00");
    let (mut third, said) = narrow("c");
    assert_eq!(said, "CONNACK 97");
    assert_eq!(read_end(&mut third), b"");
    assert!(began.elapsed() >= Duration::from_millis(95), "two of the three had to wait");
    // The other listener has nothing to do with it.
    connect(&running, &v5("d"));
    drop(first);
    running.until("the first has left", |r| r.context.counters.get(Metric::Connections) <= 2);
    let deadline = env::now() + Duration::from_secs(10);
    while narrow("e").1 != "CONNACK 00" {
        assert!(env::now() < deadline, "its place is not free again");
    }
}

#[test]
fn a_listener_that_makes_its_clients_wait_holds_up_no_other() {
    let running = start(Kind::Tcp, Limits::default(), 1);
    // One a second.
    let address = also_listen(&running, Share::new(None, Rate::new(1, 1)));
    let _crowd: Vec<_> = (0..30).map(|_| TcpStream::connect(address).expect("listens")).collect();
    running.until("the first of them is in", |r| r.context.counters.get(Metric::Sockets) == 1);
    let began = env::now();
    // One after the other: they would share its seconds.
    for i in 0..20 {
        connect(&running, &v5(&format!("c{i}")));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn who_is_too_many_is_told_so_and_others_are_cut_only_beyond_that() {
    let limits = Limits { connections_max: 2, surplus_max: 1, ..Limits::default() };
    let running = start(Kind::Tcp, limits, 1);
    let first = connect(&running, &v5("a"));
    let _second = connect(&running, &v5("b"));
    let mut third = dial(&running);
    write_connect(&mut third, &v5("c"));
    assert_eq!(read_packets(&mut third, 1, Version::V5), ["CONNACK 97"]);
    assert_eq!(read_end(&mut third), b"");
    drop(third);
    running.until("the third is gone", |r| r.context.counters.get(Metric::Sockets) == 2);
    // One that says nothing takes the last place, and makes room for the next.
    let mut silent = dial(&running);
    running.until("it is there", |r| r.context.counters.get(Metric::Sockets) == 3);
    let mut fourth = dial(&running);
    write_connect(&mut fourth, &v311("d"));
    assert_eq!(read_packets(&mut fourth, 1, Version::V311), ["CONNACK 88"]);
    assert_eq!(read_end(&mut silent), b"");
    drop(first);
    running.until("there is room", |r| r.context.counters.get(Metric::Connections) == 1);
    connect(&running, &v5("e"));
}

#[test]
fn while_accepting_pauses_who_is_connected_is_served_and_who_comes_waits() {
    let running = start(Kind::Tcp, Limits::default(), 2);
    let mut early = connect(&running, &v311("early"));
    running.context.pressure.set_level(Level::Pause);
    let mut late = crowd(&running, 5);
    for _ in 0..20 {
        std::io::Write::write_all(&mut early, &[0xC0, 0]).expect("reads");
        assert_eq!(read_packets(&mut early, 1, Version::V311), ["PINGRESP"]);
    }
    late[0].set_read_timeout(Some(Duration::from_millis(150))).expect("a time-out");
    late[0].read_exact(&mut [0]).expect_err("nobody answers");
    late[0].set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    assert_eq!(running.context.counters.get(Metric::Sockets), 1);
    running.context.pressure.set_level(Level::Shrink);
    for mut stream in late {
        assert_eq!(read_packets(&mut stream, 1, Version::V311), ["CONNACK 00"]);
    }
}
