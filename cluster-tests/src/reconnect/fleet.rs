//! Very many clients of one thread that want nothing but to be connected.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::load::frames::{Frame, split};
use crate::load::{self, low_priority, own_thread};
use crate::mqtt::{Options, Version, connect};

/// Connections per source address: with many, the kernel searches long for a free port, and holds up
/// others meanwhile.
const PER_SOURCE: usize = 500;
/// A client that is refused or finds nobody asks again after this.
const RETRY: Duration = Duration::from_millis(500);
/// Connections that are opened between two looks at the events.
const OPENED_AT_ONCE: usize = 256;
/// Each of so many has a persistent session.
const PERSISTENT: usize = 10;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connected: AtomicUsize,
    /// Of all CONNACKs that let somebody in.
    granted: Mutex<Vec<Instant>>,
    refused: AtomicUsize,
    lost: AtomicUsize,
    /// What a client connects to next: the nodes in turn.
    targets: Mutex<Vec<SocketAddr>>,
}

/// The clients. Whoever loses its connection wants it back at once, at one of the targets.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    size: usize,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Fleet {
    /// Lets `size` clients connect to the targets, all at once.
    pub fn start(size: usize, targets: &[SocketAddr]) -> Self {
        let shared = Arc::new(Shared { targets: Mutex::new(targets.to_vec()), ..Shared::default() });
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || Engine::new(size, of_thread)?.run());
        Self { shared, size, thread: Some(thread) }
    }

    /// Where clients go from now on that have no connection.
    pub fn aim(&self, targets: &[SocketAddr]) {
        *self.shared.targets.lock().expect("no panic under it") = targets.to_vec();
    }

    pub fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Relaxed)
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// CONNECTs that were refused, or not answered before the connection ended.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Connections that were lost once they were granted.
    pub fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// CONNECTs that were granted.
    pub fn granted(&self) -> usize {
        self.shared.granted.lock().expect("no panic under it").len()
    }

    /// How long after `since` clients were let in, the first first.
    pub fn granted_since(&self, since: Instant) -> Vec<Duration> {
        let granted = self.shared.granted.lock().expect("no panic under it");
        let mut after: Vec<_> = granted.iter().filter_map(|at| at.checked_duration_since(since)).collect();
        after.sort_unstable();
        after
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the fleet ended early: {error}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Asking,
    In,
}

struct Client {
    stream: Option<TcpStream>,
    state: State,
}

struct Engine {
    poll: Poll,
    clients: Vec<Client>,
    prefix: String,
    /// Who has to connect now, and who later.
    wanting: VecDeque<usize>,
    retrying: VecDeque<(Instant, usize)>,
    opened: usize,
    shared: Arc<Shared>,
}

impl Engine {
    fn new(size: usize, shared: Arc<Shared>) -> io::Result<Self> {
        // The figures are about the nodes, and about clients of another thread.
        low_priority(own_thread());
        let clients = (0..size).map(|_| Client { stream: None, state: State::Away }).collect();
        Ok(Self {
            poll: Poll::new()?,
            clients,
            prefix: crate::fresh("fleet"),
            wanting: (0..size).collect(),
            retrying: VecDeque::new(),
            opened: 0,
            shared,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(4096);
        while !self.shared.stop.load(Ordering::Relaxed) {
            while self.retrying.front().is_some_and(|(at, _)| *at <= Instant::now()) {
                self.wanting.extend(self.retrying.pop_front().map(|(_, client)| client));
            }
            for _ in 0..OPENED_AT_ONCE {
                let Some(client) = self.wanting.pop_front() else { break };
                if self.open(client).is_err() {
                    self.retrying.push_back((Instant::now() + RETRY, client));
                }
            }
            let pause = if self.wanting.is_empty() { 10 } else { 0 };
            load::poll(&mut self.poll, &mut events, Duration::from_millis(pause))?;
            for event in &events {
                self.event(event.token().0);
            }
        }
        Ok(())
    }

    fn open(&mut self, client: usize) -> io::Result<()> {
        let to = {
            let targets = self.shared.targets.lock().expect("no panic under it");
            targets[self.opened % targets.len()]
        };
        self.opened += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let source = Ipv4Addr::new(127, 0, 3, 1 + (client / PER_SOURCE) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(client), interests)?;
        let client = &mut self.clients[client];
        client.stream = Some(stream);
        client.state = State::Away;
        Ok(())
    }

    fn event(&mut self, index: usize) {
        let Client { stream, state } = &mut self.clients[index];
        let Some(connected) = stream.as_mut() else { return };
        if *state == State::Away {
            if connected.peer_addr().is_ok() {
                let options =
                    Options::new(Version::V311, &format!("{}-{index}", self.prefix)).keep_alive_s(600);
                let options = if index.is_multiple_of(PERSISTENT) { options.persistent() } else { options };
                if connected.write_all(&connect(&options)).is_ok() {
                    *state = State::Asking;
                }
                return;
            }
            if connected.take_error().is_ok_and(|error| error.is_none()) {
                return;
            }
        }
        let mut answer = [0; 64];
        loop {
            match connected.read(&mut answer) {
                Ok(0) => break,
                Ok(read) => {
                    if *state == State::Asking
                        && matches!(split(&answer[..read]), Some((Frame::Answer(0), _)))
                    {
                        *state = State::In;
                        self.shared.granted.lock().expect("no panic under it").push(Instant::now());
                        self.shared.connected.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        // It is over.
        *stream = None;
        if std::mem::replace(state, State::Away) == State::In {
            self.shared.connected.fetch_sub(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            self.wanting.push_back(index);
        } else {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            self.retrying.push_back((Instant::now() + RETRY, index));
        }
    }
}
