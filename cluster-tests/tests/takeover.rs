//! What becomes of a session and its will, however its connection ends and whenever its client
//! comes back: the standard's table against a real cluster, all rows at the same time.
//!
//! The same table, finer and on a driven clock, runs against the replicated state in
//! `node/src/state/tests/takeover.rs`. Here its rows pass through connections, nodes and leases.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::mqtt::{Client, Error, Options, Prop, Version, Will, prop};
use cluster_tests::wait::pass;
use cluster_tests::{fresh, http};

/// Rows are spread over so many threads.
const WORKERS: usize = 8;

/// Seconds. Far enough apart for a machine that does something else as well, and for a node's death,
/// which is noticed up to [`NOTICED_S`] later.
const EXPIRY_S: u32 = 14;
const SHORT_DELAY_S: u32 = 4;
const LONG_DELAY_S: u32 = 40;
const BACK_MID_S: u64 = 10;
const BACK_LATE_S: u64 = 19;
/// From a silent client's or a killed node's end to its being noticed.
const NOTICED_S: u64 = 4;
/// How much later than that a will may come.
const SLACK_S: u64 = 3;

const SOON: Duration = Duration::from_secs(20);

/// Where everything happens but what happens to the victim.
const HOME: usize = 0;
const AWAY: usize = 1;
const VICTIM: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    TakeoverSameNode,
    TakeoverOtherNode,
    Kick,
    /// DISCONNECT with its reason code and new expiry.
    Disconnect(u8, Option<u32>),
    SocketLost,
    KeepAlive,
    NodeKilled,
}

const ENDS: [End; 11] = [
    End::TakeoverSameNode,
    End::TakeoverOtherNode,
    End::Kick,
    End::Disconnect(0x00, None),
    End::Disconnect(0x04, None),
    End::Disconnect(0x04, Some(0)),
    End::Disconnect(0x00, Some(u32::MAX)),
    End::Disconnect(0x04, Some(EXPIRY_S)),
    End::SocketLost,
    End::KeepAlive,
    End::NodeKilled,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    AtOnce,
    Mid,
    Late,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    version: Version,
    /// Of 3.1.1: 0 is a clean session, `u32::MAX` one that is not.
    expiry_s: u32,
    delay_s: Option<u32>,
    end: End,
    /// Of the CONNECT that follows.
    clean_start: bool,
    back: Back,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// Seconds after the end; `None`: never.
    will_s: Option<u64>,
    present: bool,
}

/// What the standard says, by MQTT 5.0; of 3.1.1 it covers what there is. Written from its
/// statements alone.
fn expected(row: Row) -> Expected {
    let back_s = match row.back {
        Back::AtOnce => 0,
        Back::Mid => BACK_MID_S,
        Back::Late => BACK_LATE_S,
    };
    let (closed_with_0, expiry_s) = match row.end {
        // "If the Session Expiry Interval in the CONNECT packet was zero, then it is a Protocol Error
        // to set a non-zero Session Expiry Interval in the DISCONNECT packet": it "does not treat it
        // as a valid DISCONNECT packet" (3.14.2.2.2).
        End::Disconnect(_, Some(new)) if row.expiry_s == 0 && new > 0 => (false, 0),
        End::Disconnect(code, Some(new)) => (code == 0, new),
        // The will is deleted by a DISCONNECT with 0x00 alone [MQTT-3.1.2-10; 3.1.1, MQTT-3.14.4-3].
        End::Disconnect(code, None) => (code == 0, row.expiry_s),
        _ => (false, row.expiry_s),
    };
    // 0: "the Session ends when the Network Connection is closed"; 0xFFFFFFFF: it "does not expire"
    // (3.1.2.11.2). A kick ends the session.
    let ends_s = match (row.end, expiry_s) {
        (End::Kick, _) => 0,
        (_, u32::MAX) => u64::MAX,
        (_, expiry_s) => u64::from(expiry_s),
    };
    // [MQTT-3.1.2-4] to [MQTT-3.1.2-6].
    let present = !row.clean_start && back_s < ends_s;
    let ends_s = if present { u64::MAX } else { ends_s.min(back_s) };
    let Some(delay_s) = row.delay_s.filter(|_| !closed_with_0) else {
        return Expected { will_s: None, present };
    };
    // "…after the Network Connection is subsequently closed and either the Will Delay Interval has
    // elapsed or the Session ends" [MQTT-3.1.2-8], unless "a new Network Connection to this Session is
    // made before the Will Delay Interval has passed" [MQTT-3.1.3-9]; for takeovers see 3.1.3.2.2.
    let due_s = u64::from(delay_s).min(ends_s);
    let cancelled = present && back_s < due_s;
    Expected { will_s: (!cancelled).then_some(due_s), present }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let kinds = [0, EXPIRY_S, u32::MAX].into_iter().flat_map(|expiry_s| {
        [None, Some(0), Some(SHORT_DELAY_S), Some(LONG_DELAY_S)]
            .map(|delay_s| (Version::V5, expiry_s, delay_s))
    });
    let old = [0, u32::MAX].into_iter().flat_map(|e| [None, Some(0)].map(|d| (Version::V311, e, d)));
    for (version, expiry_s, delay_s) in kinds.chain(old) {
        for end in ENDS {
            for back in [Back::AtOnce, Back::Mid, Back::Late] {
                for clean_start in [false, true] {
                    rows.push(Row { version, expiry_s, delay_s, end, clean_start, back });
                }
            }
        }
    }
    rows.retain(|row| match row.end {
        End::TakeoverSameNode | End::TakeoverOtherNode => row.back == Back::AtOnce,
        End::Disconnect(code, expiry) => row.version == Version::V5 || (code == 0 && expiry.is_none()),
        _ => true,
    });
    // Without a will or an expiry, later is no different.
    rows.retain(|row| {
        let waits = row.delay_s.is_some_and(|delay_s| delay_s > 0) || row.expiry_s == EXPIRY_S;
        row.back == Back::AtOnce || waits
    });
    rows
}

/// One row on its way.
struct Walker {
    row: Row,
    name: String,
    first: Option<Client>,
    second: Option<Client>,
}

impl Walker {
    fn will_topic(&self, prefix: &str) -> String {
        format!("{prefix}/will/{}", self.name)
    }

    fn connect(&mut self, nodes: &[SocketAddr; 3], prefix: &str) {
        let row = self.row;
        let mut options = Options::new(row.version, &self.name);
        options.clean_start = row.version == Version::V311 && row.expiry_s == 0;
        if row.version == Version::V5 {
            options = options.prop(prop::SESSION_EXPIRY_S, Prop::U32(row.expiry_s));
        }
        if row.end == End::KeepAlive {
            options.keep_alive_s = 2;
        }
        if let Some(delay_s) = row.delay_s {
            options = options.will(Will { delay_s, ..Will::new(&self.will_topic(prefix), "gone", 1) });
        }
        let node = if row.end == End::NodeKilled { VICTIM } else { HOME };
        let mut client = Client::connect(nodes[node], &options).expect("connects");
        assert!(!client.session_present, "{row:?}");
        client.auto_ack = false;
        client.subscribe(&[(&format!("{prefix}/to/{}", self.name), 1)]).expect("SUBACK");
        self.first = Some(client);
    }

    /// Ends the connection and sees to it that the broker has noticed, where that can be seen.
    fn end(&mut self, api: SocketAddr) {
        let row = self.row;
        match row.end {
            End::TakeoverSameNode | End::TakeoverOtherNode | End::NodeKilled => {}
            End::Kick => {
                let (status, body) =
                    http::delete(api, &format!("/api/v1/clients/{}", self.name)).expect("answers");
                assert!((200..300).contains(&status), "{row:?}: {status} {body}");
                let ended = self.first.as_mut().expect("connected").ending(SOON);
                assert!(matches!(ended, Ok(Error::Disconnected(0x8e) | Error::Closed)), "{row:?}: {ended:?}");
            }
            End::Disconnect(code, expiry_s) => {
                let client = self.first.as_mut().expect("connected");
                let packet = match (row.version, expiry_s) {
                    (Version::V5, Some(expiry_s)) => {
                        let [a, b, c, d] = expiry_s.to_be_bytes();
                        vec![0xe0, 7, code, 5, prop::SESSION_EXPIRY_S, a, b, c, d]
                    }
                    (Version::V5, None) if code != 0 => vec![0xe0, 1, code],
                    _ => vec![0xe0, 0],
                };
                client.send(&packet).expect("sent");
                let ended = client.ending(SOON).expect("the end of the stream");
                let is_error = row.expiry_s == 0 && expiry_s.is_some_and(|new| new > 0);
                match ended {
                    Error::Disconnected(0x82) if is_error => {}
                    Error::Closed if !is_error => {}
                    other => panic!("{row:?}: {other}"),
                }
            }
            End::SocketLost => drop(self.first.take().expect("connected").crash()),
            End::KeepAlive => {
                let ended = self.first.as_mut().expect("connected").ending(SOON).expect("ends");
                assert!(matches!(ended, Error::Disconnected(0x8d) | Error::Closed), "{row:?}: {ended}");
            }
        }
    }

    fn back(&mut self, nodes: &[SocketAddr; 3]) {
        let row = self.row;
        let mut options = Options::new(row.version, &self.name).persistent();
        options.clean_start = row.clean_start;
        let node = if row.end == End::TakeoverSameNode { HOME } else { AWAY };
        let client = Client::connect(nodes[node], &options).expect("connects again");
        assert_eq!(client.session_present, expected(row).present, "session present of {row:?}");
        if matches!(row.end, End::TakeoverSameNode | End::TakeoverOtherNode) {
            let ended = self.first.as_mut().expect("connected").ending(SOON).expect("ends");
            match row.version {
                Version::V5 => assert!(matches!(ended, Error::Disconnected(0x8e)), "{row:?}: {ended}"),
                _ => assert!(matches!(ended, Error::Closed), "{row:?}: {ended}"),
            }
        }
        self.second = Some(client);
    }

    /// What was queued and what came since, if the session was there; else nothing.
    fn check_messages(&mut self) {
        let row = self.row;
        let client = self.second.as_mut().expect("connected again");
        if expected(row).present {
            let got = client.texts(3, SOON).unwrap_or_else(|e| panic!("{row:?}: {e}"));
            assert_eq!(got, ["before", "away", "back"], "{row:?}");
        }
        assert!(client.quiet().expect("connected"), "{row:?}");
    }
}

/// Publishes to the topics of those who are chosen.
fn publish(
    publisher: &mut Client,
    walkers: &[Mutex<Walker>],
    prefix: &str,
    text: &str,
    chosen: impl Fn(&Walker) -> bool,
) {
    for walker in walkers {
        let walker = walker.lock().expect("no panic");
        if chosen(&walker) {
            let topic = format!("{prefix}/to/{}", walker.name);
            assert!(publisher.publish(&topic, text, 1).expect("acknowledged") < 0x80);
        }
    }
}

/// Collects the wills and when they came, until it is told to stop.
fn watch(mut watcher: Client, stop: &AtomicBool) -> Vec<(String, Instant)> {
    let mut wills = Vec::new();
    loop {
        match watcher.recv(Duration::from_millis(200)) {
            Ok(message) => wills.push((message.topic, Instant::now())),
            Err(Error::Timeout) if stop.load(Ordering::Acquire) => return wills,
            Err(Error::Timeout) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_end_of_a_connection_follows_the_standard() {
    let mut cluster = Cluster::start(3);
    let victim = cluster.follower(&[]);
    let others: Vec<usize> = (1..=3).filter(|i| *i != victim).collect();
    let nodes = [others[0], others[1], victim].map(|i| cluster.mqtt(i));
    let api = cluster.api(others[0]);
    let prefix = fresh("table");
    let walker = |(i, row)| Walker { row, name: format!("{prefix}-{i}"), first: None, second: None };
    let walkers: Vec<_> = rows().into_iter().enumerate().map(|row| Mutex::new(walker(row))).collect();
    assert!(walkers.len() > 300, "{}", walkers.len());
    let options = Options::v5(&fresh("watcher")).persistent();
    let mut watcher = Client::connect(nodes[HOME], &options).expect("connects");
    watcher.subscribe(&[(&format!("{prefix}/will/#"), 1)]).expect("SUBACK");
    let mut publisher = Client::connect(nodes[AWAY], &Options::v5(&fresh("publisher"))).expect("connects");

    let each = |chosen: &(dyn Fn(&Row) -> bool + Sync), what: &(dyn Fn(&mut Walker) + Sync)| {
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let mine = walkers.iter().skip(worker).step_by(WORKERS);
                scope.spawn(move || {
                    for walker in mine {
                        let mut walker = walker.lock().expect("no panic");
                        if chosen(&walker.row) {
                            what(&mut walker);
                        }
                    }
                });
            }
        });
    };
    // Those that will be silent come last, as their time runs from then on.
    for silent in [false, true] {
        each(&|row| (row.end == End::KeepAlive) == silent, &|walker| walker.connect(&nodes, &prefix));
        publish(&mut publisher, &walkers, &prefix, "before", |walker| {
            walker.row.expiry_s > 0 && (walker.row.end == End::KeepAlive) == silent
        });
    }

    let stop = AtomicBool::new(false);
    let (wills, began, ends_took) = std::thread::scope(|scope| {
        let stop = &stop;
        let watching = scope.spawn(move || watch(watcher, stop));
        let began = Instant::now();
        cluster.kill9(victim);
        let end = |walker: &mut Walker| {
            walker.end(api);
            if walker.row.back == Back::AtOnce {
                walker.back(&nodes);
            }
        };
        std::thread::scope(|scope| {
            // All of them wait: a thread for each.
            for walker in walkers.iter().filter(|w| w.lock().expect("no panic").row.end == End::KeepAlive) {
                scope.spawn(move || end(&mut walker.lock().expect("no panic")));
            }
            each(&|row| row.end != End::KeepAlive, &end);
        });
        let ends_took = began.elapsed();
        publish(&mut publisher, &walkers, &prefix, "away", |_| true);
        for (back, at_s) in [(Back::Mid, BACK_MID_S), (Back::Late, BACK_LATE_S)] {
            pass(Duration::from_secs(at_s).saturating_sub(began.elapsed()));
            each(&|row| row.back == back, &|walker| walker.back(&nodes));
        }
        publish(&mut publisher, &walkers, &prefix, "back", |_| true);
        each(&|_| true, &Walker::check_messages);
        stop.store(true, Ordering::Release);
        (watching.join().expect("no panic"), began, ends_took)
    });

    let mut fired: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for (topic, at) in wills {
        fired.entry(topic).or_default().push(at - began);
    }
    for walker in &walkers {
        let walker = walker.lock().expect("no panic");
        let fired = fired.remove(&walker.will_topic(&prefix)).unwrap_or_default();
        match expected(walker.row).will_s.map(Duration::from_secs) {
            None => assert!(fired.is_empty(), "no will of {:?}, but {fired:?}", walker.row),
            Some(due) => {
                let latest = due + ends_took + Duration::from_secs(NOTICED_S + SLACK_S);
                let in_time = fired.iter().all(|at| *at >= due && *at <= latest);
                assert!(fired.len() == 1 && in_time, "due at {due:?}: {fired:?} of {:?}", walker.row);
            }
        }
    }
    assert!(fired.is_empty(), "wills of nobody: {fired:?}");
}
