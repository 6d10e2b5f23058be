//! Clients that publish to each other at a steady rate, whatever else happens: what one looks at to
//! tell whether anybody else suffers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::frames::{Frame, Stamp, Template, connect_frame, split, subscribe_frame};

/// Between two looks at whether a message is due.
const TICK: Duration = Duration::from_millis(1);
const ANSWERS: Duration = Duration::from_secs(30);
const READ_BUFFER: usize = 64 << 10;

/// One message that arrived, microseconds from the start.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    sent_us: u64,
    took_us: u32,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    arrivals: Mutex<Vec<Arrival>>,
    failure: Mutex<Option<String>>,
}

/// The clients, on a thread of their own. Each second one subscribes, at QoS 1, and has a publisher of
/// its own.
#[derive(Debug)]
pub struct Steady {
    shared: Arc<Shared>,
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

/// How long messages took that were sent in some time, the quickest first.
#[derive(Clone, Debug, Default)]
pub struct Window(Vec<u32>);

impl Window {
    /// The time below which `share` (0 to 1) of all lie.
    pub fn quantile(&self, share: f64) -> Duration {
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        Duration::from_micros(self.0.get(at).copied().unwrap_or(0).into())
    }

    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.0.sort_unstable();
        self
    }
}

impl Steady {
    /// Connects `clients` to these nodes, each of a pair to any of them, and lets them publish
    /// `per_s` messages a second altogether.
    ///
    /// # Errors
    /// When one is refused or gets no answer.
    pub fn start(nodes: &[SocketAddr], clients: usize, per_s: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let began = Instant::now();
        let mut engine = Engine::new(nodes, clients / 2, began, shared.clone())?;
        let thread = std::thread::spawn(move || {
            if let Err(error) = engine.run(per_s) {
                *engine.shared.failure.lock().expect("no panic under it") = Some(error.to_string());
            }
        });
        Ok(Self { shared, began, thread: Some(thread) })
    }

    /// Runs `work` and gives what was sent meanwhile, besides what it came to.
    ///
    /// # Panics
    /// When a connection was lost, or a message.
    #[track_caller]
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> (Window, T) {
        let from_us = self.began.elapsed().as_micros() as u64;
        let result = work();
        let sent = self.shared.sent.load(Ordering::Relaxed);
        let to_us = self.began.elapsed().as_micros() as u64;
        (self.window(from_us, to_us, sent), result)
    }

    /// Waits for the first `sent` messages, the slowest of them too: all were sent before `to_us`.
    #[track_caller]
    fn window(&self, from_us: u64, to_us: u64, sent: u64) -> Window {
        crate::wait::eventually("what was published to arrive", ANSWERS, || {
            self.check();
            let arrivals = self.shared.arrivals.lock().expect("no panic under it");
            let arrived = arrivals.iter().filter(|arrival| arrival.sent_us < to_us).count() as u64;
            (arrived >= sent).then_some(())
        });
        let arrivals = self.shared.arrivals.lock().expect("no panic under it");
        let within = arrivals.iter().filter(|arrival| (from_us..to_us).contains(&arrival.sent_us));
        let mut window: Vec<u32> = within.map(|arrival| arrival.took_us).collect();
        window.sort_unstable();
        Window(window)
    }

    /// # Panics
    /// When a connection was lost, or a message.
    #[track_caller]
    pub fn check(&self) {
        if let Some(failure) = &*self.shared.failure.lock().expect("no panic under it") {
            panic!("a client that did nothing wrong suffered: {failure}");
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it had to say is in `failure`.
            let _ = thread.join();
        }
    }
}

struct Conn {
    stream: TcpStream,
    partial: Vec<u8>,
    out: Vec<u8>,
}

/// Publisher `p` is connection `2 * p`, its subscriber the next.
struct Engine {
    poll: Poll,
    conns: Vec<Conn>,
    templates: Vec<Template>,
    /// Per publisher, how many it has sent, and how many have arrived.
    counts: Vec<(u32, u32)>,
    began: Instant,
    shared: Arc<Shared>,
}

impl Engine {
    fn new(nodes: &[SocketAddr], pairs: usize, began: Instant, shared: Arc<Shared>) -> io::Result<Self> {
        let prefix = crate::fresh("steady");
        let poll = Poll::new()?;
        let (mut conns, mut templates) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            let topic = format!("{prefix}/{pair}");
            for role in 0..2 {
                // All of the ways between two nodes, and those within them.
                let node = nodes[(pair >> role) % nodes.len()];
                let mut stream = std::net::TcpStream::connect(node)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWERS))?;
                let mut asks = connect_frame(&format!("{prefix}-{pair}-{role}"));
                if role == 1 {
                    asks.extend(subscribe_frame(&topic, 1));
                }
                stream.write_all(&asks)?;
                for length in [4, 5].into_iter().take(role + 1) {
                    let mut answer = vec![0; length];
                    stream.read_exact(&mut answer)?;
                    if !matches!(split(&answer), Some((Frame::Answer(code), _)) if code < 0x80) {
                        return Err(io::Error::other(format!("the broker answered {answer:?}")));
                    }
                }
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                let interests = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(conns.len()), interests)?;
                conns.push(Conn { stream, partial: Vec::new(), out: Vec::new() });
            }
            templates.push(Template::new(&topic, 1));
        }
        Ok(Self { poll, conns, templates, counts: vec![(0, 0); pairs], began, shared })
    }

    fn run(&mut self, per_s: u32) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BUFFER];
        let start = Instant::now();
        let (mut sent, mut next) = (0_u64, 0);
        while !self.shared.stop.load(Ordering::Relaxed) {
            // What the machine did not get to is made up for a little at a time.
            let due = (start.elapsed().as_secs_f64() * f64::from(per_s)) as u64;
            sent = sent.max(due.saturating_sub(u64::from(per_s / 100).max(1)));
            while sent < due {
                self.publish(next)?;
                next = (next + 1) % self.templates.len();
                sent += 1;
            }
            super::poll(&mut self.poll, &mut events, TICK)?;
            for event in &events {
                let at = event.token().0;
                if event.is_writable() {
                    self.flush(at)?;
                }
                if event.is_readable() {
                    self.read(at, &mut buffer)?;
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, publisher: usize) -> io::Result<()> {
        let number = &mut self.counts[publisher].0;
        let stamp = Stamp {
            sent_us: self.began.elapsed().as_micros() as u64,
            publisher: publisher as u32,
            number: *number,
        };
        let packet_id = 1 + (*number % 65_535) as u16;
        *number += 1;
        let at = 2 * publisher;
        self.templates[publisher].write(&mut self.conns[at].out, packet_id, stamp);
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
        self.flush(at)
    }

    fn flush(&mut self, at: usize) -> io::Result<()> {
        let conn = &mut self.conns[at];
        super::flush(&mut conn.stream, &mut conn.out)
    }

    fn read(&mut self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let read = match self.conns[at].stream.read(buffer) {
                Ok(0) => return Err(io::Error::other(format!("the broker closed connection {at}"))),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.flush(at),
                Err(error) => return Err(error),
            };
            let mut bytes = std::mem::take(&mut self.conns[at].partial);
            bytes.extend_from_slice(&buffer[..read]);
            let mut used = 0;
            while let Some((frame, length)) = split(&bytes[used..]) {
                used += length;
                self.take(at, frame)?;
            }
            bytes.drain(..used);
            self.conns[at].partial = bytes;
        }
    }

    fn take(&mut self, at: usize, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Publish { packet_id, stamp } => {
                let [high, low] = packet_id.to_be_bytes();
                self.conns[at].out.extend_from_slice(&[0x40, 2, high, low]);
                let expected = &mut self.counts[at / 2].1;
                if stamp.publisher as usize != at / 2 || stamp.number != *expected {
                    return Err(io::Error::other(format!(
                        "message {} came instead of {expected}",
                        stamp.number
                    )));
                }
                *expected += 1;
                let now_us = self.began.elapsed().as_micros() as u64;
                let took_us = u32::try_from(now_us.saturating_sub(stamp.sent_us)).unwrap_or(u32::MAX);
                let arrival = Arrival { sent_us: stamp.sent_us, took_us };
                self.shared.arrivals.lock().expect("no panic under it").push(arrival);
                Ok(())
            }
            Frame::PubAck => Ok(()),
            other => Err(io::Error::other(format!("the broker sent {other:?}"))),
        }
    }
}
