//! Clients that break the rules are told so or closed, and nobody else notices.

use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::fresh;
use cluster_tests::mqtt::{Client, Error, Options, Transport, Version, connect};

/// For the broker to end a connection that it has a reason to end.
const ENDS: Duration = Duration::from_secs(10);

/// The healthy client's slowest round trip, on a machine that runs other tests.
const PING: Duration = Duration::from_millis(500);

const CONNECT_TIMEOUT_MS: u64 = 1_000;

const PROTOCOL_ERRORS: &str = "rookery_protocol_errors_total";
const CONNECT_TIMEOUTS: &str = "rookery_connect_timeouts_total";

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;

/// What a connected client may not send, with the reason codes that say so. The bytes are of 5.0
/// and of 3.1.1; empty: no such thing there.
struct Case {
    what: &'static str,
    v5: &'static [u8],
    v311: &'static [u8],
    codes: &'static [u8],
}

const BOTH: &[u8] = &[MALFORMED, PROTOCOL_ERROR];

const CASES: &[Case] = &[
    Case { what: "packet type 0", v5: &[0x00, 0], v311: &[0x00, 0], codes: BOTH },
    Case { what: "a CONNACK", v5: &[0x20, 3, 0, 0, 0], v311: &[0x20, 2, 0, 0], codes: BOTH },
    Case { what: "a SUBACK", v5: &[0x90, 4, 0, 1, 0, 0], v311: &[0x90, 3, 0, 1, 0], codes: BOTH },
    Case { what: "flags on PINGREQ", v5: &[0xc1, 0], v311: &[0xc1, 0], codes: BOTH },
    Case { what: "a body of PINGREQ", v5: &[0xc0, 1, 0], v311: &[0xc0, 1, 0], codes: BOTH },
    Case {
        what: "a length of five bytes",
        v5: &[0x30, 0xff, 0xff, 0xff, 0xff, 1],
        v311: &[0x30, 0xff, 0xff, 0xff, 0xff, 1],
        codes: BOTH,
    },
    Case {
        what: "more than the largest packet",
        v5: &[0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1],
        v311: &[0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1],
        codes: &[0x95],
    },
    Case {
        what: "QoS 3",
        v5: &[0x36, 6, 0, 1, b'a', 0, 1, 0],
        v311: &[0x36, 5, 0, 1, b'a', 0, 1],
        codes: BOTH,
    },
    Case { what: "DUP at QoS 0", v5: &[0x38, 4, 0, 1, b'a', 0], v311: &[0x38, 3, 0, 1, b'a'], codes: BOTH },
    Case {
        what: "packet id 0",
        v5: &[0x32, 6, 0, 1, b'a', 0, 0, 0],
        v311: &[0x32, 5, 0, 1, b'a', 0, 0],
        codes: BOTH,
    },
    Case {
        what: "a wildcard in a topic",
        v5: &[0x30, 6, 0, 3, b'a', b'/', b'#', 0],
        v311: &[0x30, 5, 0, 3, b'a', b'/', b'#'],
        codes: &[MALFORMED, PROTOCOL_ERROR, 0x90],
    },
    Case {
        what: "a topic that is not UTF-8",
        v5: &[0x30, 5, 0, 2, 0xc3, 0x28, 0],
        v311: &[0x30, 4, 0, 2, 0xc3, 0x28],
        codes: &[MALFORMED, PROTOCOL_ERROR, 0x90],
    },
    Case {
        what: "U+0000 in a topic",
        v5: &[0x30, 5, 0, 2, b'a', 0, 0],
        v311: &[0x30, 4, 0, 2, b'a', 0],
        codes: &[MALFORMED, PROTOCOL_ERROR, 0x90],
    },
    Case {
        what: "an empty topic",
        v5: &[0x30, 3, 0, 0, 0],
        v311: &[0x30, 2, 0, 0],
        codes: &[MALFORMED, PROTOCOL_ERROR, 0x90],
    },
    Case {
        what: "a topic beyond the packet",
        v5: &[0x30, 4, 0, 9, b'a', 0],
        v311: &[0x30, 3, 0, 9, b'a'],
        codes: BOTH,
    },
    Case {
        what: "SUBSCRIBE without flags",
        v5: &[0x80, 7, 0, 1, 0, 0, 1, b'a', 0],
        v311: &[0x80, 6, 0, 1, 0, 1, b'a', 0],
        codes: BOTH,
    },
    Case { what: "SUBSCRIBE to nothing", v5: &[0x82, 3, 0, 1, 0], v311: &[0x82, 2, 0, 1], codes: BOTH },
    Case {
        what: "SUBSCRIBE at QoS 3",
        v5: &[0x82, 7, 0, 1, 0, 0, 1, b'a', 3],
        v311: &[0x82, 6, 0, 1, 0, 1, b'a', 3],
        codes: BOTH,
    },
    Case {
        what: "reserved subscription options",
        v5: &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0xc0],
        v311: &[0x82, 6, 0, 1, 0, 1, b'a', 0xc0],
        codes: BOTH,
    },
    Case { what: "UNSUBSCRIBE from nothing", v5: &[0xa2, 3, 0, 1, 0], v311: &[0xa2, 2, 0, 1], codes: BOTH },
    Case { what: "PUBREL without flags", v5: &[0x60, 2, 0, 1], v311: &[0x60, 2, 0, 1], codes: BOTH },
    Case { what: "an unknown property", v5: &[0x30, 6, 0, 1, b'a', 2, 0x7e, 0], v311: &[], codes: BOTH },
    Case {
        what: "a property twice",
        v5: &[0x30, 8, 0, 1, b'a', 4, 0x01, 0, 0x01, 0],
        v311: &[],
        codes: BOTH,
    },
    Case {
        what: "topic alias 0",
        v5: &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0],
        v311: &[],
        codes: &[0x94, PROTOCOL_ERROR],
    },
    Case {
        what: "a topic alias beyond the maximum",
        v5: &[0x30, 7, 0, 1, b'a', 3, 0x23, 0xff, 0xff],
        v311: &[],
        codes: &[0x94],
    },
    Case {
        what: "an unknown topic alias",
        v5: &[0x30, 6, 0, 0, 3, 0x23, 0, 1],
        v311: &[],
        codes: &[0x94, PROTOCOL_ERROR],
    },
    Case { what: "AUTH nobody asked for", v5: &[0xf0, 0], v311: &[0xf0, 0], codes: BOTH },
];

/// A client that nobody disturbs, pinged between the attempts of the others.
struct Healthy {
    client: Client,
    slowest: Duration,
}

impl Healthy {
    fn new(cluster: &Cluster) -> Self {
        let client = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("healthy"))).expect("connects");
        Healthy { client, slowest: Duration::ZERO }
    }

    fn check(&mut self, after: &str) {
        let took = self.client.ping().unwrap_or_else(|e| panic!("the healthy client after {after}: {e}"));
        self.slowest = self.slowest.max(took);
        assert!(took < PING, "a ping took {took:?} after {after}");
    }
}

fn alone() -> Cluster {
    Cluster::start_with(1, &format!("[limits]\nconnect_timeout_ms = {CONNECT_TIMEOUT_MS}"))
}

#[test]
fn a_connected_client_that_breaks_the_protocol() {
    let cluster = alone();
    let mut healthy = Healthy::new(&cluster);
    let before = cluster.metric(1, PROTOCOL_ERRORS);
    let mut tried = 0.0;
    for case in CASES {
        let mut bad = Client::connect(cluster.mqtt(1), &Options::v5(&fresh("bad"))).expect("connects");
        bad.send(case.v5).expect("sent");
        match bad.ending(ENDS) {
            Ok(Error::Disconnected(code)) => {
                assert!(case.codes.contains(&code), "{} in 5.0: {code:#04x}", case.what);
            }
            other => panic!("{} in 5.0: {other:?}", case.what),
        }
        tried += 1.0;
        if !case.v311.is_empty() {
            let mut bad = Client::connect(cluster.mqtt(1), &Options::v311(&fresh("bad"))).expect("connects");
            bad.send(case.v311).expect("sent");
            let ended = bad.ending(ENDS);
            assert!(matches!(ended, Ok(Error::Closed)), "{} in 3.1.1: {ended:?}", case.what);
            tried += 1.0;
        }
        healthy.check(case.what);
    }
    let counted = cluster.metric(1, PROTOCOL_ERRORS) - before;
    assert!(counted >= tried, "{counted} of {tried} protocol errors were counted");
}

#[test]
fn a_second_connect() {
    let cluster = alone();
    let options = Options::v5(&fresh("twice"));
    let mut twice = Client::connect(cluster.mqtt(1), &options).expect("connects");
    twice.send(&connect(&options)).expect("sent");
    let ended = twice.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Disconnected(PROTOCOL_ERROR))), "{ended:?}");
    let options = Options::v311(&fresh("twice"));
    let mut twice = Client::connect(cluster.mqtt(1), &options).expect("connects");
    twice.send(&connect(&options)).expect("sent");
    let ended = twice.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Closed)), "{ended:?}");
}

#[test]
fn a_first_packet_that_is_no_connect() {
    let cluster = alone();
    let mut healthy = Healthy::new(&cluster);
    let v5 = connect(&Options::v5("x"));
    let with = |at: usize, byte: u8| {
        let mut changed = v5.clone();
        changed[at] = byte;
        changed
    };
    let attempts: [(&str, Vec<u8>); 9] = [
        ("PINGREQ", vec![0xc0, 0]),
        ("PUBLISH", vec![0x30, 4, 0, 1, b'a', 0]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("another protocol's name", with(5, b'X')),
        ("protocol level 6", with(8, 6)),
        ("the reserved connect flag", with(9, 3)),
        ("a will QoS without a will", with(9, 2 | 1 << 3)),
        ("a CONNECT of a megabyte and more", vec![0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4]),
    ];
    for (what, bytes) in attempts {
        let mut bad = Client::open(cluster.mqtt(1), Version::V5).expect("connects");
        bad.send(&bytes).expect("sent");
        match bad.ending(ENDS) {
            Ok(Error::Closed | Error::Protocol(_)) => {}
            Ok(Error::Refused(code) | Error::Disconnected(code)) => {
                assert!(code >= 0x80 || code == 1, "{what}: {code:#04x}");
            }
            other => panic!("{what}: {other:?}"),
        }
        healthy.check(what);
    }
}

#[test]
fn a_handshake_that_is_never_finished() {
    let cluster = alone();
    let mut healthy = Healthy::new(&cluster);
    let before = cluster.metric(1, CONNECT_TIMEOUTS);
    let whole = connect(&Options::v5("half"));
    let start = Instant::now();
    let mut half_open: Vec<(String, Client)> = [0, 1, 5, whole.len() - 1]
        .into_iter()
        .map(|length| {
            let mut client = Client::open(cluster.mqtt(1), Version::V5).expect("connects");
            client.send(&whole[..length]).expect("sent");
            (format!("{length} bytes of CONNECT"), client)
        })
        .collect();
    for (what, client) in &mut half_open {
        healthy.check(what);
        let ended = client.ending(ENDS);
        assert!(matches!(ended, Ok(Error::Closed | Error::Disconnected(_))), "{what}: {ended:?}");
        assert!(start.elapsed() >= Duration::from_millis(CONNECT_TIMEOUT_MS / 2), "{what} was given no time");
    }
    assert!(cluster.metric(1, CONNECT_TIMEOUTS) - before >= 4.0);
}

#[test]
fn websockets_that_are_not_mqtt() {
    let cluster = alone();
    let mut healthy = Healthy::new(&cluster);
    let ws = Transport::Ws(cluster.ws(1));

    let mut text = Client::connect(ws, &Options::v5(&fresh("text"))).expect("connects");
    text.send_text_frame("hello").expect("sent");
    let ended = text.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Closed | Error::Disconnected(_))), "a text frame: {ended:?}");
    healthy.check("a text frame");

    let mut early = Client::open(ws, Version::V5).expect("upgrades");
    early.send_text_frame("hello").expect("sent");
    let ended = early.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Closed)), "a text frame before CONNECT: {ended:?}");
    healthy.check("an early text frame");

    let mut bad = Client::connect(ws, &Options::v5(&fresh("bad"))).expect("connects");
    bad.send(&[0x36, 6, 0, 1, b'a', 0, 1, 0]).expect("sent");
    let ended = bad.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Disconnected(MALFORMED))), "QoS 3 in a frame: {ended:?}");

    let mut silent = Client::open(Transport::Tcp(cluster.ws(1)), Version::V5).expect("connects");
    silent.send(b"GET /mqtt HTTP/1.1\r\n").expect("sent");
    let ended = silent.ending(ENDS);
    assert!(matches!(ended, Ok(Error::Closed | Error::Protocol(_))), "half an upgrade: {ended:?}");
    healthy.check("half an upgrade");

    for path in ["/", "/other"] {
        let answer = cluster_tests::http::get(cluster.ws(1), path);
        assert!(answer.as_ref().map_or(true, |(status, _)| *status >= 400), "{path}: {answer:?}");
    }
}

#[test]
fn packets_may_straddle_websocket_frames() {
    let cluster = alone();
    let mut split = Client::open(Transport::Ws(cluster.ws(1)), Version::V5).expect("upgrades");
    for byte in connect(&Options::v5(&fresh("split"))) {
        split.send(&[byte]).expect("sent");
    }
    split.await_connack().expect("granted");
    // And several packets in one.
    split.send(&[0xc0, 0, 0xc0, 0, 0xc0, 0]).expect("sent");
    split.ping().expect("served");
}

#[test]
fn a_flood_of_garbage_leaves_the_others_alone() {
    let cluster = alone();
    let mut healthy = Healthy::new(&cluster);
    let address = cluster.mqtt(1);
    let flood: Vec<_> = (0..8_u32)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut state = 0x9e37_79b9_u32 ^ seed;
                for _ in 0..200 {
                    let garbage: Vec<u8> = (0..512)
                        .map(|_| {
                            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            (state >> 24) as u8
                        })
                        .collect();
                    // The broker may close before all is written.
                    if let Ok(mut client) = Client::open(address, Version::V5) {
                        let _ = client.send(&garbage);
                    }
                }
            })
        })
        .collect();
    while flood.iter().any(|thread| !thread.is_finished()) {
        healthy.check("garbage");
    }
    flood.into_iter().for_each(|thread| thread.join().expect("the flood ends"));
    let log = std::fs::metadata(cluster.path().join("n1/log")).expect("a log").len();
    assert!(log < 256 * 1024, "1600 bad clients made {log} bytes of log");
}
