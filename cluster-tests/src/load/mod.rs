//! A load generator cheap enough not to be what is measured: one thread, one epoll, frames built
//! once, no packet library. MQTT 3.1.1, 64-byte payloads, closed loops: so many messages are in
//! flight, and the next leaves when one has arrived (and, at QoS 1, was acknowledged).

mod engine;
pub(crate) mod frames;
mod histogram;
mod idle;
mod priority;
mod sessions;
mod steady;

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Poll};

pub use engine::run;
pub use idle::Idle;
pub(crate) use priority::{low_priority, own_thread};
pub use sessions::Sessions;
pub use steady::{Steady, Window};

/// Bytes of payload in every message.
pub const PAYLOAD: usize = 64;

/// Runs before what is measured: connections settle, caches fill, allocators grow.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `n` publishers to one subscriber, 10 messages of each in flight.
    FanIn(usize),
    /// One publisher to `n` subscribers, 4 messages in flight.
    FanOut(usize),
    /// `n` publishers, each to a subscriber of its own, 1 message in flight.
    Pairs(usize),
}

impl Shape {
    fn publishers(self) -> usize {
        match self {
            Shape::FanIn(n) | Shape::Pairs(n) => n,
            Shape::FanOut(_) => 1,
        }
    }

    fn subscribers(self) -> usize {
        match self {
            Shape::FanIn(_) => 1,
            Shape::FanOut(n) | Shape::Pairs(n) => n,
        }
    }

    /// Messages that each publisher keeps in flight.
    fn window(self) -> u64 {
        match self {
            Shape::FanIn(_) => 10,
            Shape::FanOut(_) => 4,
            Shape::Pairs(_) => 1,
        }
    }

    /// Deliveries that one publish causes.
    fn copies(self) -> u64 {
        match self {
            Shape::FanOut(n) => n as u64,
            _ => 1,
        }
    }

    /// The topic of a publisher.
    fn topic(self, publisher: usize) -> String {
        match self {
            Shape::FanIn(_) => "load/in".into(),
            Shape::FanOut(_) => "load/out".into(),
            Shape::Pairs(_) => format!("load/pair/{publisher}"),
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Job {
    pub shape: Shape,
    pub broker: SocketAddr,
    /// 0 or 1.
    pub qos: u8,
    pub measured: Duration,
    /// The broker's process, to read its CPU time.
    pub pid: Option<u32>,
}

/// What a measurement gave.
#[derive(Clone, Debug)]
pub struct Measured {
    pub delivered: u64,
    pub seconds: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    /// CPU time of the broker's process, in the kernel and outside, in steps of 10 ms.
    pub broker_cpu_s: Option<f64>,
    /// CPU time of this generator.
    pub own_cpu_s: f64,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.delivered as f64 / self.seconds
    }

    /// Seconds of the broker's CPU per million deliveries.
    pub fn cpu_s_per_million(&self) -> Option<f64> {
        Some(self.broker_cpu_s? * 1e6 / self.delivered.max(1) as f64)
    }
}

/// CPU seconds that a process has used, all its threads, from `/proc/<pid>/stat`.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> std::io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain anything; utime and stime are the 12th and 13th after it.
    let ticks = stat.rsplit_once(") ").map(|(_, rest)| {
        let numbers = rest.split(' ').skip(11).take(2);
        numbers.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>()
    });
    let ticks = ticks.ok_or_else(|| std::io::Error::other("unexpected /proc/<pid>/stat"))?;
    // USER_HZ is 100 on every Linux that Rust runs on.
    Ok(ticks as f64 / 100.0)
}

/// Writes what the socket takes of `out`, which keeps the rest.
fn flush(stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    while !out.is_empty() {
        match stream.write(out) {
            Ok(written) => drop(out.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for events; a signal to this process is none.
pub(crate) fn poll(poll: &mut Poll, events: &mut Events, timeout: Duration) -> io::Result<()> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        done => done,
    }
}
