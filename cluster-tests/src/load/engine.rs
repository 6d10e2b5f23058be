//! The loop that drives all connections of a measurement.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::frames::{Frame, Stamp, Template, connect_frame, split, subscribe_frame};
use super::histogram::Histogram;
use super::{Job, Measured, Shape, WARM_UP, cpu_seconds};

/// Nothing delivered for so long: the loop has stalled, since something was lost.
const STALL: Duration = Duration::from_secs(5);

const READ_BUFFER: usize = 256 * 1024;

/// Handshakes on their way at a time.
const BATCH: usize = 64;

struct Conn {
    stream: TcpStream,
    /// The beginning of a frame whose rest has not come yet.
    partial: Vec<u8>,
    out: Vec<u8>,
    dirty: bool,
}

struct Publisher {
    conn: usize,
    template: Template,
    sent: u64,
    acked: u64,
    delivered: u64,
}

struct Engine {
    job: Job,
    poll: Poll,
    conns: Vec<Conn>,
    publishers: Vec<Publisher>,
    /// Connections with something to write.
    dirty: Vec<usize>,
    /// Publishers that may have room in their window.
    ready: Vec<usize>,
    /// Fan-out: copies still to come of the messages in flight, the oldest first.
    copies: VecDeque<u64>,
    start: Instant,
    now_us: u64,
    delivered: u64,
    latency: Histogram,
}

/// Connects, subscribes, and measures.
///
/// # Errors
/// When the broker refuses a client, closes a connection or loses a message.
pub fn run(job: &Job) -> io::Result<Measured> {
    let mut engine = Engine::new(job.clone())?;
    engine.ready = (0..engine.publishers.len()).collect();
    engine.drive(WARM_UP)?;
    engine.latency.clear();
    let cpu = |pid: Option<u32>| pid.map(cpu_seconds).transpose();
    let (before, own_before) = (cpu(job.pid)?, cpu_seconds(std::process::id())?);
    let (delivered, start) = (engine.delivered, Instant::now());
    engine.drive(job.measured)?;
    let seconds = start.elapsed().as_secs_f64();
    let (after, own_after) = (cpu(job.pid)?, cpu_seconds(std::process::id())?);
    Ok(Measured {
        delivered: engine.delivered - delivered,
        seconds,
        p50_us: engine.latency.quantile(0.5),
        p99_us: engine.latency.quantile(0.99),
        broker_cpu_s: after.zip(before).map(|(after, before)| after - before),
        own_cpu_s: own_after - own_before,
    })
}

/// Connects all at once in batches, each with a request that has an answer.
fn handshake(
    streams: &mut [std::net::TcpStream],
    request: impl Fn(usize) -> Vec<u8>,
    reply: usize,
) -> io::Result<()> {
    for (batch, streams) in streams.chunks_mut(BATCH).enumerate() {
        for (i, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&request(batch * BATCH + i))?;
        }
        for stream in streams {
            let mut answer = vec![0; reply];
            stream.read_exact(&mut answer)?;
            match split(&answer) {
                Some((Frame::Answer(code), _)) if code < 0x80 => {}
                other => return Err(io::Error::other(format!("the broker answered {other:?}"))),
            }
        }
    }
    Ok(())
}

impl Engine {
    fn new(job: Job) -> io::Result<Self> {
        let (subscribers, publishers) = (job.shape.subscribers(), job.shape.publishers());
        let all = (0..subscribers + publishers).map(|_| {
            let stream = std::net::TcpStream::connect(job.broker)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            Ok(stream)
        });
        let mut streams = all.collect::<io::Result<Vec<_>>>()?;
        let run = std::process::id();
        handshake(&mut streams, |i| connect_frame(&format!("load-{run}-{i}")), 4)?;
        handshake(&mut streams[..subscribers], |i| subscribe_frame(&job.shape.topic(i), job.qos), 5)?;

        let poll = Poll::new()?;
        let mut conns = Vec::with_capacity(streams.len());
        for (i, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(i), Interest::READABLE | Interest::WRITABLE)?;
            conns.push(Conn { stream, partial: Vec::new(), out: Vec::new(), dirty: false });
        }
        let publishers = (0..publishers).map(|p| Publisher {
            conn: subscribers + p,
            template: Template::new(&job.shape.topic(p), job.qos),
            sent: 0,
            acked: 0,
            delivered: 0,
        });
        Ok(Engine {
            publishers: publishers.collect(),
            job,
            poll,
            conns,
            dirty: Vec::new(),
            ready: Vec::new(),
            copies: VecDeque::new(),
            start: Instant::now(),
            now_us: 0,
            delivered: 0,
            latency: Histogram::new(),
        })
    }

    fn drive(&mut self, time: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BUFFER];
        let end = Instant::now() + time;
        let mut progress = (self.delivered, Instant::now());
        loop {
            let now = Instant::now();
            self.now_us = (now - self.start).as_micros() as u64;
            self.send();
            self.flush()?;
            if now >= end {
                return Ok(());
            }
            if progress.0 != self.delivered {
                progress = (self.delivered, now);
            } else if now - progress.1 > STALL {
                return Err(io::Error::other(format!("nothing delivered for {STALL:?}: a message was lost")));
            }
            super::poll(&mut self.poll, &mut events, (end - now).min(Duration::from_millis(100)))?;
            self.now_us = self.start.elapsed().as_micros() as u64;
            for event in &events {
                let conn = event.token().0;
                if event.is_writable() && !self.conns[conn].out.is_empty() {
                    self.mark(conn);
                }
                if event.is_readable() {
                    self.read(conn, &mut buffer)?;
                }
            }
        }
    }

    /// Fills the windows of the publishers that have room.
    fn send(&mut self) {
        let window = self.job.shape.window();
        for p in std::mem::take(&mut self.ready) {
            let qos = self.job.qos;
            let publisher = &mut self.publishers[p];
            let done = if qos == 0 { publisher.delivered } else { publisher.delivered.min(publisher.acked) };
            let conn = publisher.conn;
            let before = publisher.sent;
            while publisher.sent < done + window {
                let stamp =
                    Stamp { sent_us: self.now_us, publisher: p as u32, number: publisher.sent as u32 };
                let packet_id = 1 + (publisher.sent % 65_535) as u16;
                publisher.template.write(&mut self.conns[conn].out, packet_id, stamp);
                publisher.sent += 1;
                if let Shape::FanOut(_) = self.job.shape {
                    self.copies.push_back(self.job.shape.copies());
                }
            }
            if publisher.sent > before {
                self.mark(conn);
            }
        }
    }

    fn mark(&mut self, conn: usize) {
        if !std::mem::replace(&mut self.conns[conn].dirty, true) {
            self.dirty.push(conn);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        for i in std::mem::take(&mut self.dirty) {
            let conn = &mut self.conns[i];
            conn.dirty = false;
            super::flush(&mut conn.stream, &mut conn.out)?;
        }
        Ok(())
    }

    fn read(&mut self, i: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let kept = self.conns[i].partial.len();
            buffer[..kept].copy_from_slice(&self.conns[i].partial);
            self.conns[i].partial.clear();
            let read = match self.conns[i].stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(io::Error::other(format!("the broker closed connection {i}"))),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.conns[i].partial.extend_from_slice(&buffer[..kept]);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let filled = kept + read;
            let mut at = 0;
            while let Some((frame, length)) = split(&buffer[at..filled]) {
                at += length;
                self.take(i, frame)?;
            }
            self.conns[i].partial.extend_from_slice(&buffer[at..filled]);
            // A short read has emptied the socket; the edge comes again with the next bytes.
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, i: usize, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Publish { packet_id, stamp } => {
                if packet_id > 0 {
                    let [high, low] = packet_id.to_be_bytes();
                    self.conns[i].out.extend_from_slice(&[0x40, 2, high, low]);
                    self.mark(i);
                }
                self.deliver(stamp);
                Ok(())
            }
            Frame::PubAck => {
                let p = i - self.job.shape.subscribers();
                self.publishers[p].acked += 1;
                self.ready.push(p);
                Ok(())
            }
            other => Err(io::Error::other(format!("the broker sent {other:?}"))),
        }
    }

    fn deliver(&mut self, stamp: Stamp) {
        self.delivered += 1;
        self.latency.record(self.now_us.saturating_sub(stamp.sent_us));
        let p = stamp.publisher as usize;
        if let Shape::FanOut(_) = self.job.shape {
            // Numbers count from the oldest message in flight.
            let oldest = self.publishers[p].delivered as u32;
            let Some(left) = self.copies.get_mut(stamp.number.wrapping_sub(oldest) as usize) else { return };
            *left -= 1;
            while self.copies.front() == Some(&0) {
                self.copies.pop_front();
                self.publishers[p].delivered += 1;
                self.ready.push(p);
            }
        } else {
            self.publishers[p].delivered += 1;
            self.ready.push(p);
        }
    }
}
