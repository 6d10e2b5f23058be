//! Clients on threads of their own: probes, which time one answer after the other, and sinks, which
//! take what comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::mqtt::{Client, Error, Options, Prop, Result, prop};
use crate::{fresh, wait};

/// Sessions that the measurements leave behind end by themselves after this, seconds.
pub const SESSION_EXPIRY_S: u32 = 60;

/// Between two looks of a sink at whether it is still wanted.
const SINK_TURN: Duration = Duration::from_millis(200);

/// The times at which each question was asked and answered.
#[derive(Default)]
pub struct Answers {
    times: Vec<(Instant, Instant)>,
    /// Attempts that failed and were repeated; the time of the answer includes them.
    pub errors: u64,
}

impl Answers {
    /// The longest wait of those that ended after `from` and began before `to`.
    pub fn longest_touching(&self, from: Instant, to: Instant) -> Option<Duration> {
        self.longest(|asked, answered| answered >= from && asked <= to)
    }

    /// The longest wait of those that began and ended between the two.
    pub fn longest_within(&self, from: Instant, to: Instant) -> Option<Duration> {
        self.longest(|asked, answered| asked >= from && answered <= to)
    }

    fn longest(&self, counts: impl Fn(Instant, Instant) -> bool) -> Option<Duration> {
        let counted = self.times.iter().filter(|(asked, answered)| counts(*asked, *answered));
        counted.map(|(asked, answered)| *answered - *asked).max()
    }
}

/// One question after the other on one connection, with a short pause between.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

impl Probe {
    /// `ask` is given a number that grows with every question. Returns when there was one answer.
    pub fn start(
        node: SocketAddr,
        mut ask: impl FnMut(&mut Client, u64) -> Result<()> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut client = Client::connect(node, &Options::v5(&fresh("probe"))).expect("a probe connects");
        ask(&mut client, 0).expect("a first answer");
        let thread = std::thread::spawn(move || {
            let mut answers = Answers::default();
            let mut client = Some(client);
            for number in 1.. {
                let asked = Instant::now();
                while !stopped.load(Ordering::Relaxed) {
                    match attempt(&mut client, node, |client| ask(client, number)) {
                        Ok(()) => {
                            answers.times.push((asked, Instant::now()));
                            break;
                        }
                        Err(_) => answers.errors += 1,
                    }
                    wait::pause();
                }
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                wait::pause();
            }
            answers
        });
        Probe { stop, thread }
    }

    /// Waits for the answer to the last question.
    pub fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a probe that ends")
    }
}

/// Asks on the connection that is there, or a new one.
fn attempt(
    client: &mut Option<Client>,
    node: SocketAddr,
    ask: impl FnOnce(&mut Client) -> Result<()>,
) -> Result<()> {
    let mut connection = match client.take() {
        Some(connection) => connection,
        None => Client::connect(node, &Options::v5(&fresh("probe")))?,
    };
    ask(&mut connection)?;
    *client = Some(connection);
    Ok(())
}

/// A success, or the error that a reason code is.
pub fn granted(code: u8) -> Result<()> {
    if code < 0x80 { Ok(()) } else { Err(Error::Refused(code)) }
}

/// A subscriber that takes what comes until its connection ends or it is not wanted any more.
pub struct Sink {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sink {
    /// Returns when it is subscribed.
    pub fn start(node: SocketAddr, filter: &str, persistent: bool) -> Self {
        let mut options = Options::v5(&fresh("sink"));
        if persistent {
            options = options.prop(prop::SESSION_EXPIRY_S, Prop::U32(SESSION_EXPIRY_S));
        }
        let mut client = Client::connect(node, &options).expect("a sink connects");
        client.subscribe(&[(filter, 1)]).expect("SUBACK");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed)
                && matches!(client.recv(SINK_TURN), Ok(_) | Err(Error::Timeout))
            {}
        });
        Sink { stop, thread }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a sink that ends");
    }
}
