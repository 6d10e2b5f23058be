//! Clients whose wills are due when their node dies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::probe::SESSION_EXPIRY_S;
use crate::fresh;
use crate::mqtt::{Client, Options, Prop, Version, Will, prop};

/// Of each kind: 3.1.1 and 5.0, clean and persistent.
const EACH: usize = 3;

const TURN: Duration = Duration::from_millis(100);

pub struct Wills {
    /// Their connections; they end with their node.
    _dying: Vec<Client>,
    stop: Arc<AtomicBool>,
    watching: JoinHandle<BTreeMap<String, Vec<Instant>>>,
    topics: Vec<String>,
}

impl Wills {
    /// Clients on `node` with wills, and one on `watch_at` that waits for them.
    pub fn prepare(node: SocketAddr, watch_at: SocketAddr) -> Self {
        let prefix = fresh("will");
        let mut watcher = Client::connect(watch_at, &Options::v5(&fresh("heir"))).expect("connects");
        watcher.subscribe(&[(&format!("{prefix}/+"), 1)]).expect("SUBACK");
        let mut topics = Vec::new();
        let mut dying = Vec::new();
        for number in 0..4 * EACH {
            let topic = format!("{prefix}/{number}");
            let will = Will::new(&topic, "gone", (number % 3) as u8);
            let client_id = fresh("dying");
            let mut options = match number % 4 {
                0 => Options::v5(&client_id),
                1 => Options::v5(&client_id).prop(prop::SESSION_EXPIRY_S, Prop::U32(SESSION_EXPIRY_S)),
                2 => Options::v311(&client_id),
                _ => Options::new(Version::V311, &client_id).persistent(),
            };
            options = options.will(will);
            dying.push(Client::connect(node, &options).expect("connects"));
            topics.push(topic);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watching = std::thread::spawn(move || {
            let mut came: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(message) = watcher.recv(TURN) {
                    came.entry(message.topic).or_default().push(Instant::now());
                }
            }
            came
        });
        Wills { _dying: dying, stop, watching, topics }
    }

    /// When each will came, in the order of the clients; called when none can come any more.
    pub fn came(self) -> Vec<Vec<Instant>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut came = self.watching.join().expect("a watcher that ends");
        self.topics.iter().map(|topic| came.remove(topic).unwrap_or_default()).collect()
    }
}
