//! Well-behaved clients that publish to each other and measure how long it takes, on the attacked
//! node, across nodes and away from it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::noise;
use crate::mqtt::{Client, Error, Options, Transport, VERSIONS, Version};
use crate::{fresh, wait};

/// The row that no broker has a part in.
pub const NOISE: &str = "the machine itself";
/// What a broker says while it may not speak for its cluster, as on a machine that starves it; the
/// message may be sent again, and the time counts on.
const NOT_NOW: u8 = 0x80;
const UNAVAILABLE: u8 = 0x88;
const UNAVAILABLE_V3: u8 = 3;
/// For a message to arrive: beyond it, it counts as lost.
const ARRIVES: Duration = Duration::from_secs(20);
/// Rounds between two PINGREQs of the subscriber, which sends nothing else at QoS 0.
const PING_EVERY: u64 = 50;

/// Latencies of one kind, microseconds.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<u32>);

impl Samples {
    fn record(&mut self, took: Duration) {
        self.0.push(took.as_micros().try_into().unwrap_or(u32::MAX));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value below which `share` (0 to 1) of all lie.
    pub fn quantile(&mut self, share: f64) -> Duration {
        self.0.sort_unstable();
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        Duration::from_micros(self.0.get(at).copied().unwrap_or(0).into())
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.iter().max().copied().unwrap_or(0).into())
    }
}

/// What one client or pair measures.
#[derive(Debug)]
pub(super) struct Row {
    name: String,
    samples: Mutex<Samples>,
}

impl Row {
    pub fn record(&self, took: Duration) {
        self.samples.lock().expect("no panic under it").record(took);
    }
}

struct Pair {
    name: &'static str,
    from: Transport,
    to: Transport,
    qos: u8,
    version: Version,
    persistent: bool,
}

/// The clients, each pair on a thread of its own.
#[derive(Debug)]
pub struct Bystanders {
    rows: Vec<Arc<Row>>,
    stop: Arc<AtomicBool>,
    failures: mpsc::Receiver<String>,
    threads: Vec<JoinHandle<()>>,
}

impl Bystanders {
    /// Connects them. The first node is the one that is attacked; with a single node all are on it.
    pub fn start(tcp: &[std::net::SocketAddr], ws: std::net::SocketAddr) -> Self {
        let at = |i: usize| Transport::Tcp(tcp[i % tcp.len()]);
        // A node that a starved machine keeps from its lease closes 3.x clients that publish at
        // QoS 1, as it must: they are 5.0 here, which is told and goes on.
        let [v31, v311, v5] = VERSIONS;
        let pair = |name, from, to, qos, version| Pair { name, from, to, qos, version, persistent: false };
        let mut pairs = vec![
            pair("on the node, QoS 0", at(0), at(0), 0, v311),
            pair("on the node, QoS 1", at(0), at(0), 1, v5),
            pair("WebSocket on the node, QoS 1", Transport::Ws(ws), Transport::Ws(ws), 1, v5),
            Pair { persistent: true, ..pair("persistent on the node, QoS 1", at(1), at(0), 1, v5) },
        ];
        if tcp.len() > 1 {
            pairs.push(pair("from the node, QoS 1", at(0), at(1), 1, v5));
            pairs.push(pair("to the node, QoS 0", at(2), at(0), 0, v31));
            pairs.push(pair("away from the node, QoS 1", at(1), at(2), 1, v5));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (report, failures) = mpsc::channel();
        let (mut rows, mut threads) = (Vec::new(), Vec::new());
        let mut row = |name: String| {
            let row = Arc::new(Row { name, samples: Mutex::default() });
            rows.push(row.clone());
            row
        };
        for pair in pairs {
            let acked = (pair.qos > 0).then(|| row(format!("{}: PUBACK", pair.name)));
            let arrived = row(format!("{}: delivery", pair.name));
            let (stop, report) = (stop.clone(), report.clone());
            threads.push(std::thread::spawn(move || {
                if let Err(what) = converse(&pair, acked.as_deref(), &arrived, &stop) {
                    // Nobody listens once the arena has failed otherwise.
                    let _ = report.send(format!("{}: {what}", pair.name));
                }
            }));
        }
        let connected = row("on the node: CONNECT".into());
        let (again, to) = (stop.clone(), [Transport::Tcp(tcp[0]), Transport::Ws(ws)]);
        let failed = report.clone();
        threads.push(std::thread::spawn(move || {
            if let Err(what) = visit(to, &connected, &again) {
                let _ = failed.send(format!("a new client: {what}"));
            }
        }));
        let itself = row(NOISE.into());
        let again = stop.clone();
        threads.push(std::thread::spawn(move || {
            if let Err(what) = noise::measure(&itself, &again) {
                // As above.
                let _ = report.send(format!("{NOISE}: {what}"));
            }
        }));
        Bystanders { rows, stop, failures, threads }
    }

    /// What was measured since the last time.
    pub fn take(&self) -> Vec<(String, Samples)> {
        let take = |row: &Arc<Row>| {
            (row.name.clone(), std::mem::take(&mut *row.samples.lock().expect("no panic under it")))
        };
        self.rows.iter().map(take).collect()
    }

    /// Whether every row has at least `count` measurements.
    pub fn have(&self, count: usize) -> bool {
        self.rows.iter().all(|row| row.samples.lock().expect("no panic under it").len() >= count)
    }

    /// # Panics
    /// When a connection was lost, or a message.
    #[track_caller]
    pub fn check(&self) {
        if let Ok(failure) = self.failures.try_recv() {
            panic!("a bystander suffered: {failure}");
        }
    }

    /// Stops them all; they finish what they are at.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("a bystander's thread ends");
        }
        self.check();
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Publishes one message after the other, and waits for each to be acknowledged and delivered.
fn converse(pair: &Pair, acked: Option<&Row>, arrived: &Row, stop: &AtomicBool) -> Result<(), String> {
    let fail = |at: u64| move |e: Error| format!("message {at}: {e}");
    let topic = fresh("bystander");
    let options = |role: &str| Options::new(pair.version, &fresh(role));
    let mut publisher = let_in(pair.from, &options("bp")).map_err(fail(0))?;
    let receiving = if pair.persistent { options("bs").persistent() } else { options("bs") };
    let mut subscriber = let_in(pair.to, &receiving).map_err(fail(0))?;
    let began = Instant::now();
    while subscriber.subscribe(&[(&topic, pair.qos)]).map_err(fail(0))?[0] >= NOT_NOW {
        if began.elapsed() > ARRIVES {
            return Err("not subscribed".into());
        }
    }
    // `again`: the last message that was sent more than once.
    let (mut at, mut again) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let sent = Instant::now();
        let mut code = NOT_NOW;
        while code == NOT_NOW && sent.elapsed() < ARRIVES {
            code = publisher.publish(&topic, at.to_string(), pair.qos).map_err(fail(at))?;
            if code == NOT_NOW {
                again = at;
            }
        }
        if code >= 0x80 {
            return Err(format!("message {at} was refused with {code:#04x}"));
        }
        if let Some(acked) = acked {
            acked.record(sent.elapsed());
        }
        loop {
            let text = subscriber.recv(ARRIVES).map_err(fail(at))?.text();
            match text.parse::<u64>() {
                Ok(number) if number == at => break,
                // One that was sent again may come again.
                Ok(number) if number == again && pair.qos > 0 => {}
                _ => return Err(format!("message {text} instead of {at}")),
            }
        }
        arrived.record(sent.elapsed());
        if at.is_multiple_of(PING_EVERY) {
            subscriber.ping().map_err(fail(at))?;
        }
        wait::pause();
    }
    Ok(())
}

/// Connects; asks again while the broker may let nobody in, as on a machine that starves it.
fn let_in(to: Transport, options: &Options) -> crate::mqtt::Result<Client> {
    let began = Instant::now();
    loop {
        match Client::connect(to, options) {
            Err(Error::Refused(UNAVAILABLE | UNAVAILABLE_V3)) if began.elapsed() < ARRIVES => wait::pause(),
            other => return other,
        }
    }
}

/// Comes, stays for a ping and leaves, again and again.
fn visit(to: [Transport; 2], connected: &Row, stop: &AtomicBool) -> Result<(), String> {
    for at in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let fail = |e: Error| format!("visit {at}: {e}");
        let began = Instant::now();
        let options = Options::new(VERSIONS[at % VERSIONS.len()], &fresh("bv"));
        let mut client = let_in(to[at % to.len()], &options).map_err(fail)?;
        connected.record(began.elapsed());
        client.ping().map_err(fail)?;
        client.disconnect().map_err(fail)?;
        wait::pause();
    }
    Ok(())
}
