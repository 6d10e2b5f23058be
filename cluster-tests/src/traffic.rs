//! Publishers that go on through failures and remember what was acknowledged, and a subscriber
//! that checks what arrived against it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::mqtt::{Client, Error, Options, Props, Publish, Received};
use crate::{fresh, wait};

/// Messages a publisher has in flight; below every Receive Maximum that a broker grants here.
const WINDOW: usize = 8;

/// Acknowledgements between two pauses: the tests want load that goes on, not the most there can
/// be, so that a subscriber's queue stays within its limit while it is away.
const PACE: usize = 8;

/// A publisher takes its connection for dead when it hears nothing for so long: longer than a
/// lease, so that a paused node and not a busy one is left.
const SILENCE: Duration = Duration::from_secs(4);

/// Messages of one publisher are `0, 1, 2, …`, each as text on `<prefix>/<publisher>`.
struct Publisher {
    topic: String,
    /// Where to connect, the next address after every failure.
    addresses: Vec<SocketAddr>,
    turn: usize,
    /// Sent or to be sent and not acknowledged, in order.
    open: VecDeque<u64>,
    next: u64,
    acked: Vec<u64>,
}

/// When acknowledgements came, of all publishers together.
struct Pulse {
    last: Instant,
    longest: Duration,
}

/// What the publishers tell while they run.
struct Progress {
    count: AtomicU64,
    pulse: Mutex<Pulse>,
}

impl Progress {
    fn beat(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut pulse = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        pulse.longest = pulse.longest.max(pulse.last.elapsed());
        pulse.last = Instant::now();
    }
}

/// Publishers at QoS 1, each on a thread of its own.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<Publisher>>,
}

/// Per topic, the numbers that were acknowledged.
pub type Acked = BTreeMap<String, Vec<u64>>;

impl Traffic {
    /// Starts `publishers` at up to a few hundred messages a second each; publisher k begins
    /// at the address k and goes to the next one when its connection fails.
    pub fn start(prefix: &str, addresses: &[SocketAddr], publishers: usize) -> Self {
        let pulse = Pulse { last: Instant::now(), longest: Duration::ZERO };
        let progress = Arc::new(Progress { count: AtomicU64::new(0), pulse: Mutex::new(pulse) });
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..publishers).map(|k| {
            let publisher = Publisher {
                topic: format!("{prefix}/{k}"),
                addresses: addresses.to_vec(),
                turn: k,
                open: VecDeque::new(),
                next: 0,
                acked: Vec::new(),
            };
            let (stop, progress) = (Arc::clone(&stop), Arc::clone(&progress));
            std::thread::spawn(move || publisher.run(&stop, &progress))
        });
        let threads = threads.collect();
        Traffic { stop, progress, threads }
    }

    /// Messages acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.progress.count.load(Ordering::Relaxed)
    }

    /// The longest time without any acknowledgement so far, the present one included.
    pub fn longest_silence(&self) -> Duration {
        let pulse = self.progress.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        pulse.longest.max(pulse.last.elapsed())
    }

    /// Waits until `more` further messages were acknowledged: the load goes on.
    #[track_caller]
    pub fn wait_more(&self, more: u64) {
        let want = self.acked() + more;
        let what = format!("{more} more messages acknowledged");
        wait::eventually(&what, Duration::from_secs(60), || (self.acked() >= want).then_some(()));
    }

    /// Stops the publishers, once each has settled what it had in flight.
    pub fn stop(self) -> Acked {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.threads.into_iter().map(|thread| thread.join().expect("a publisher that ends"));
        done.map(|publisher| (publisher.topic, publisher.acked)).collect()
    }
}

impl Publisher {
    fn run(mut self, stop: &AtomicBool, progress: &Progress) -> Self {
        let client_id = fresh("publisher");
        let end = |stop: &AtomicBool| stop.load(Ordering::Relaxed);
        // Stopping waits for what is in flight, but not for ever: the cluster may be gone.
        let mut grace: Option<Instant> = None;
        loop {
            if end(stop) {
                let until = *grace.get_or_insert_with(|| Instant::now() + Duration::from_secs(30));
                if self.open.is_empty() || Instant::now() > until {
                    return self;
                }
            }
            let address = self.addresses[self.turn % self.addresses.len()];
            if let Ok(mut client) = Client::connect(address, &Options::v5(&client_id)) {
                // Whatever ends the connection, the next one takes up what is open.
                let _ = self.publish(&mut client, stop, progress);
            } else {
                wait::pause();
            }
            if !end(stop) || !self.open.is_empty() {
                self.turn += 1;
            }
        }
    }

    /// Publishes until told to stop or the connection fails.
    fn publish(&mut self, client: &mut Client, stop: &AtomicBool, progress: &Progress) -> Result<(), Error> {
        let mut sent: VecDeque<(u16, u64)> = VecDeque::new();
        let mut again: VecDeque<u64> = self.open.clone();
        loop {
            while sent.len() < WINDOW {
                let number = match again.pop_front() {
                    Some(number) => number,
                    None if stop.load(Ordering::Relaxed) => break,
                    None => {
                        self.open.push_back(self.next);
                        self.next += 1;
                        self.next - 1
                    }
                };
                let id = client.take_id();
                sent.push_back((id, number));
                client.send_publish(&Publish {
                    topic: self.topic.clone(),
                    payload: number.to_string().into_bytes(),
                    qos: 1,
                    retain: false,
                    dup: false,
                    id,
                    props: Props::default(),
                })?;
            }
            if sent.is_empty() {
                return client.send(&crate::mqtt::disconnect(crate::mqtt::Version::V5, 0));
            }
            let ack = client.next_puback(SILENCE)?;
            let (id, number) = sent.pop_front().expect("not empty");
            if ack.id != id {
                return Err(Error::Protocol(format!("PUBACK {} before {id}", ack.id)));
            }
            if ack.code >= 0x80 {
                // Refused, so not acknowledged: to be sent again on another connection.
                return Err(Error::Disconnected(ack.code));
            }
            self.open.pop_front();
            self.acked.push(number);
            progress.beat();
            if self.acked.len().is_multiple_of(PACE) {
                wait::pause();
            }
        }
    }
}

/// A persistent subscriber at QoS 1 that moves between nodes.
pub struct Collector {
    options: Options,
    client: Option<Client>,
    received: Received,
    /// Per topic, what arrived, in order, repetitions included.
    seen: BTreeMap<String, Vec<u64>>,
}

impl Collector {
    /// Connects to `address` and subscribes to what the [`Traffic`] of this prefix will publish,
    /// which is to be started afterwards.
    pub fn subscribe(address: SocketAddr, prefix: &str) -> Self {
        let options = Options::v5(&fresh("collector")).persistent();
        let mut client = Client::connect(address, &options).expect("the collector connects");
        let codes = client.subscribe(&[(&format!("{prefix}/+"), 1)]).expect("SUBACK");
        assert_eq!(codes, [1]);
        Collector { options, client: Some(client), received: Received::new(), seen: BTreeMap::new() }
    }

    /// Connects to `address`, perhaps after the connection to another node was lost.
    ///
    /// # Panics
    /// When the session is gone.
    pub fn move_to(&mut self, address: SocketAddr) {
        self.leave();
        let options = self.options.clone();
        // The node may be electing or fenced; what counts is that it serves in the end.
        let mut client = wait::eventually("the collector is back", Duration::from_secs(30), || {
            Client::connect(address, &options).ok()
        });
        assert!(client.session_present, "the session of {} is lost", options.client_id);
        client.received = std::mem::take(&mut self.received);
        self.client = Some(client);
    }

    /// Drops the connection without DISCONNECT.
    pub fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            self.received = client.crash();
        }
    }

    /// Takes in what arrives within `window`; false when the connection is lost.
    pub fn collect(&mut self, window: Duration) -> bool {
        let deadline = Instant::now() + window;
        let Some(client) = self.client.as_mut() else { return false };
        loop {
            match client.recv(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    let number = message.text().parse().expect("a number as payload");
                    self.seen.entry(message.topic).or_default().push(number);
                }
                Err(Error::Timeout) => return true,
                Err(_) => {
                    self.leave();
                    return false;
                }
            }
        }
    }

    /// Collects, on the first of `addresses` that serves, until everything acknowledged is here.
    ///
    /// # Panics
    /// When something acknowledged does not arrive by the deadline, or a publisher's messages
    /// arrive in another order than they were first sent in.
    pub fn expect_all(&mut self, acked: &Acked, addresses: &[SocketAddr], deadline: Duration) {
        let end = Instant::now() + deadline;
        let mut turn = 0;
        while !self.missing(acked).is_empty() && Instant::now() < end {
            if !self.collect(Duration::from_millis(200)) {
                let address = addresses[turn % addresses.len()];
                turn += 1;
                if let Ok(client) = Client::connect(address, &self.options) {
                    assert!(client.session_present, "the session of {} is lost", self.options.client_id);
                    self.client = Some(client);
                } else {
                    wait::pause();
                }
            }
        }
        let missing = self.missing(acked);
        let total: usize = acked.values().map(Vec::len).sum();
        let shown: Vec<_> = missing.iter().take(20).collect();
        assert!(missing.is_empty(), "{} of {total} acknowledged messages are lost: {shown:?}", missing.len());
        self.check_order();
    }

    /// How many messages came more than once, as QoS 1 allows.
    pub fn repeated(&self) -> usize {
        let distinct = |numbers: &Vec<u64>| numbers.iter().collect::<std::collections::BTreeSet<_>>().len();
        self.seen.values().map(|numbers| numbers.len() - distinct(numbers)).sum()
    }

    fn missing(&self, acked: &Acked) -> Vec<(String, u64)> {
        let mut missing = Vec::new();
        for (topic, numbers) in acked {
            let seen: std::collections::BTreeSet<u64> =
                self.seen.get(topic).into_iter().flatten().copied().collect();
            let lost = numbers.iter().filter(|number| !seen.contains(number));
            missing.extend(lost.map(|number| (topic.clone(), *number)));
        }
        missing
    }

    /// First occurrences ascend per publisher; QoS 1 may repeat. [MQTT-4.6.0-6]
    fn check_order(&self) {
        for (topic, numbers) in &self.seen {
            let mut highest = None;
            let mut known = std::collections::BTreeSet::new();
            for number in numbers.iter().filter(|number| known.insert(**number)) {
                assert!(highest < Some(*number), "{topic}: {number} for the first time after {highest:?}");
                highest = Some(*number);
            }
        }
    }
}
