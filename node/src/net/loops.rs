//! The event loop: one thread that owns its connections, reads them, and writes what its turn
//! has produced.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::faults::Faults;
use super::half_open::HalfOpen;
use super::listener::{Accepted, Kind, Listener, ListenerOptions};
use super::mailbox::{Mailbox, ToLoop};
use super::proxy::{Proxied, ProxiedLink};
use super::refused::Refused;
use super::share::Door;
use super::slot::{Buffers, Layers, Progress, Slot};
use super::tcp::TcpLink;
use super::tls::{Acceptor, Step, Stepped, TlsLink};
use super::websocket::WebSocket;
use super::wheel::Wheel;
use crate::env::{self, Instant};
use crate::mqtt::ReasonCode;
use crate::overload::Level;
use crate::session::{Conn, Context, Ended, Flow, Inbound, Link, Metric, Turn, flush};
use crate::workers::Workers;

/// Bytes of one read; shared by all connections of the loop.
const READ_BYTES: usize = 64 << 10;
/// Connections read between two flushes.
const READS_PER_FLUSH: usize = 64;
/// Clients accepted per listener and turn.
const ACCEPTS_PER_TURN: usize = 16;
const EVENTS_PER_TURN: usize = 1024;
/// Between two attempts to accept without a descriptor, or to see whether a pause is over.
const RETRY_MS: u64 = 100;

const WAKER: Token = Token(0);
/// Tokens below this are listeners; above, the upper half is a slot's generation, never 0.
const SLOTS: usize = 1 << 32;

pub(super) struct Loop {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    listeners: Vec<Listener>,
    /// The listener that is asked first in this turn, so that none is always the last.
    first_listener: usize,
    door: Arc<Door>,
    slots: Slab<Slot>,
    next_generation: u32,
    wheel: Wheel,
    /// Connections with more to read than their share of a turn.
    unread: Vec<Token>,
    /// Sockets in the order they came, of which some still await their CONNECT.
    half_open: HalfOpen,
    /// Take the steps of TLS handshakes; shared by all loops.
    shakers: Arc<Workers<Step>>,
    buffers: Buffers,
    reads: usize,
    began: Instant,
    now_ms: u64,
    accepting: bool,
    drain_until_ms: Option<u64>,
    faults: Faults,
}

fn token_of(key: usize, generation: u32) -> Token {
    Token((generation as usize) << 32 | key)
}

fn awaits_client(slots: &Slab<Slot>, token: Token) -> bool {
    let slot = slots.get(token.0 & (SLOTS - 1));
    slot.is_some_and(|s| s.generation == (token.0 >> 32) as u32 && s.inbound.awaits_client())
}

impl Loop {
    /// # Errors
    /// The system has no descriptors left.
    pub fn new(context: Arc<Context>, door: Arc<Door>, shakers: Arc<Workers<Step>>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        Ok(Self {
            poll,
            mailbox: Mailbox::new(waker, context),
            listeners: Vec::new(),
            first_listener: 0,
            door,
            slots: Slab::new(),
            next_generation: 1,
            wheel: Wheel::new(),
            unread: Vec::new(),
            half_open: HalfOpen::default(),
            shakers,
            buffers: Buffers { raw: vec![0; READ_BYTES].into_boxed_slice(), plain: Vec::new() },
            reads: 0,
            began: env::now(),
            now_ms: 0,
            accepting: true,
            drain_until_ms: None,
            faults: Faults::default(),
        })
    }

    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Runs until it is drained.
    pub fn run(mut self) {
        self.mailbox.belongs_here();
        let _turn = Turn::begin();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut due = Vec::new();
        while !self.is_drained() {
            let timeout = self.timeout();
            if let Err(e) = self.poll.poll(&mut events, timeout)
                && e.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(error = %e, "an event loop cannot wait for events and ends");
                break;
            }
            self.mailbox.drift.turn_begins();
            self.now_ms = self.clock_ms();
            for listener in &mut self.listeners {
                listener.ready |= std::mem::take(&mut listener.starved);
            }
            self.wheel.advance(self.now_ms, &mut due);
            for event in &events {
                self.event(event);
            }
            self.read_unread();
            self.accept();
            for letter in self.mailbox.take() {
                self.letter(letter);
            }
            for (at_ms, token) in due.drain(..) {
                if self.slot(token).is_some_and(|slot| slot.check_ms == at_ms) {
                    self.check(token);
                }
            }
            self.flush();
            self.mailbox.drift.turn_ends();
        }
        self.abandon();
    }

    fn clock_ms(&self) -> u64 {
        u64::try_from(env::now().duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn timeout(&self) -> Option<Duration> {
        let busy = !self.unread.is_empty()
            || !self.mailbox.is_empty()
            || self.accepts_at_ms().is_some_and(|at_ms| at_ms <= self.now_ms);
        if busy {
            return Some(Duration::ZERO);
        }
        let mut until_ms = self.drain_until_ms;
        if let Some(next_ms) = self.accepts_at_ms() {
            until_ms = Some(until_ms.map_or(next_ms, |ms| ms.min(next_ms)));
        }
        if !self.slots.is_empty() {
            let next_ms = self.wheel.next_ms();
            until_ms = Some(until_ms.map_or(next_ms, |ms| ms.min(next_ms)));
        }
        // Up to the next whole millisecond, or it would be asked for too early.
        until_ms.map(|ms| Duration::from_millis(ms.saturating_sub(self.clock_ms()).max(1)))
    }

    /// When to look for clients of which no event will tell again.
    fn accepts_at_ms(&self) -> Option<u64> {
        let listeners = self.listeners.iter().filter(|_| self.accepting);
        let retry_ms = self.now_ms + RETRY_MS;
        let look = |listener: &Listener| match (listener.ready, listener.starved) {
            (true, _) if self.pauses() => Some(retry_ms),
            (true, _) => Some(listener.admits_at_ms),
            (false, starved) => starved.then_some(retry_ms),
        };
        listeners.filter_map(look).min()
    }

    /// Whether nobody is accepted for being overloaded.
    fn pauses(&self) -> bool {
        self.mailbox.context.pressure.level() == Level::Pause
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let generation = (token.0 >> 32) as u32;
        self.slots.get_mut(token.0 & (SLOTS - 1)).filter(|slot| slot.generation == generation)
    }

    fn event(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        if token.0 < SLOTS {
            if let Some(listener) = self.listeners.get_mut(token.0 - 1) {
                listener.ready = true;
            }
            return;
        }
        let Some(slot) = self.slot(token) else { return };
        if event.is_error() || event.is_write_closed() {
            // Reset, or closed on both sides: what was sent may still be read.
            slot.hung_up = true;
            if slot.held {
                self.remove(token);
                return;
            }
        } else if event.is_writable() {
            slot.writable();
        }
        let Some(slot) = self.slot(token) else { return };
        slot.hung_up |= event.is_read_closed();
        if slot.hung_up && slot.has_given_up() {
            self.remove(token);
            return;
        }
        if event.is_readable() || slot.hung_up {
            self.read(token);
        }
    }

    fn read(&mut self, token: Token) {
        let now_ms = self.now_ms;
        // Not by the method: the buffer is borrowed too.
        let slot = self.slots.get_mut(token.0 & (SLOTS - 1));
        let Some(slot) = slot.filter(|slot| slot.generation == (token.0 >> 32) as u32) else { return };
        if slot.held {
            return;
        }
        let progress = slot.read(&mut self.buffers, now_ms);
        self.reads += 1;
        self.progressed(token, progress);
        if self.reads >= READS_PER_FLUSH {
            self.flush();
        }
    }

    /// A step of a TLS handshake was taken.
    fn stepped(&mut self, token: Token, result: Result<Stepped, rustls::Error>) {
        let now_ms = self.now_ms;
        let Some(slot) = self.slot(token) else { return };
        let progress = slot.stepped(result, now_ms);
        self.progressed(token, progress);
    }

    /// Does what reading a connection has come to.
    fn progressed(&mut self, token: Token, progress: Progress) {
        match progress {
            Progress::Drained => self.settle(token, Flow::Open),
            Progress::More => {
                self.settle(token, Flow::Open);
                self.unread.push(token);
            }
            Progress::Flow(flow) => self.settle(token, flow),
            Progress::Step(step) => {
                if self.shakers.give(step).is_err() {
                    self.mailbox.context.counters.increment(Metric::SocketsRefused);
                    self.remove(token);
                }
            }
            Progress::BrokenTls(error) => self.broken_tls(token, &error),
            Progress::Refused(refused) => self.refused(token, &refused),
            Progress::Ended => self.ended(token),
            Progress::Gone => self.remove(token),
        }
    }

    /// Does what MQTT has made of what was read, or of what had waited.
    fn settle(&mut self, token: Token, flow: Flow) {
        let Some(slot) = self.slot(token) else { return };
        if slot.lingers {
            return;
        }
        if slot.is_handshake && !slot.inbound.is_handshake() {
            slot.is_handshake = false;
            if slot.conn.is_accepted() {
                slot.link.joins();
            }
            slot.conn.context().counters.decrement(Metric::Handshakes);
        }
        if slot.inbound.must_check() && matches!(flow, Flow::Open | Flow::Yield) {
            self.check(token);
        }
        match flow {
            Flow::Open => {}
            Flow::Yield => self.unread.push(token),
            Flow::Held => {
                if let Some(slot) = self.slot(token) {
                    slot.held = true;
                }
                self.check(token);
            }
            Flow::Over => self.linger(token),
            Flow::Broken(fault) => {
                if let Some(slot) = self.slot(token) {
                    let conn = slot.conn.clone();
                    self.faults.log(&conn, &fault, self.now_ms);
                }
                self.linger(token);
            }
        }
    }

    /// Lets go of a client that has closed its side, when it has what is owed to it.
    fn ended(&mut self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        slot.hung_up = true;
        if slot.conn.has_output() {
            self.linger(token);
        } else {
            self.remove(token);
        }
    }

    /// The alert that says so is written; nothing can follow it.
    fn broken_tls(&mut self, token: Token, error: &rustls::Error) {
        let Some(slot) = self.slot(token) else { return };
        let conn = slot.conn.clone();
        match Refused::by_tls(error) {
            Some(refused) => self.count_refusal(&conn.peer(), &refused),
            None => {
                conn.context().counters.increment(Metric::TlsFailures);
                self.faults.log_tls(&conn, error, self.now_ms);
            }
        }
        conn.cut();
        if let Some(slot) = self.slot(token) {
            slot.finish();
        }
        self.linger(token);
    }

    /// Closes a connection that has not come as far as MQTT.
    fn refused(&mut self, token: Token, refused: &Refused) {
        let Some(slot) = self.slot(token) else { return };
        let address = slot.conn.peer();
        self.count_refusal(&address, refused);
        if matches!(refused, Refused::Origin(_)) {
            // A browser is told why.
            self.linger(token);
            return;
        }
        // Nothing is to be said in TLS to somebody who did not come as far.
        if let Some(slot) = self.slot(token) {
            slot.link.shut();
        }
        self.remove(token);
    }

    fn count_refusal(&mut self, address: &str, refused: &Refused) {
        self.mailbox.context.counters.increment(refused.metric());
        self.faults.log_refusal(address, refused, self.now_ms);
    }

    fn read_unread(&mut self) {
        let mut unread = std::mem::take(&mut self.unread);
        // Noted more than once, it would have more than its share.
        unread.sort_unstable();
        unread.dedup();
        for token in unread {
            self.read(token);
        }
    }

    fn attend(&mut self, token: Token) {
        let now_ms = self.now_ms;
        let Some(slot) = self.slot(token) else { return };
        slot.attend_link();
        if slot.lingers {
            if slot.hung_up && !slot.conn.has_output() {
                self.remove(token);
            }
            return;
        }
        let flow = slot.attend(now_ms);
        let goes_on = matches!(flow, Flow::Open | Flow::Yield);
        let was_held = goes_on && std::mem::take(&mut slot.held);
        if was_held && flow == Flow::Open {
            // Its events were passed over meanwhile.
            self.unread.push(token);
        }
        self.settle(token, flow);
    }

    /// Enforces time-outs and sets the next.
    fn check(&mut self, token: Token) {
        let now_ms = self.now_ms;
        let Some(slot) = self.slot(token) else { return };
        if slot.lingers {
            self.remove(token);
            return;
        }
        match slot.inbound.check(&slot.conn, now_ms) {
            None => self.settle(token, Flow::Over),
            Some(next_ms) => self.schedule(token, next_ms),
        }
    }

    fn schedule(&mut self, token: Token, at_ms: u64) {
        let now_ms = self.now_ms;
        let at_ms = at_ms.clamp(now_ms + 1, now_ms + Wheel::MAX_MS);
        let Some(slot) = self.slot(token) else { return };
        // When an earlier look is due, it finds out again.
        if at_ms < slot.check_ms || slot.check_ms <= now_ms {
            slot.check_ms = at_ms;
            self.wheel.schedule(at_ms, token);
        }
    }

    /// The connection is over; gives the client a moment to take the last packets and close, or a
    /// reset could overtake them.
    fn linger(&mut self, token: Token) {
        let Some(slot) = self.slot(token) else { return };
        if std::mem::replace(&mut slot.lingers, true) {
            return;
        }
        slot.inbound.end(&slot.conn);
        slot.link.leaves();
        // The look that was due next would cut the moment short.
        slot.check_ms = 0;
        if std::mem::take(&mut slot.is_handshake) {
            slot.conn.context().counters.decrement(Metric::Handshakes);
        }
        if std::mem::take(&mut slot.held) || slot.hung_up {
            self.unread.push(token);
        }
        let linger_ms = u64::from(self.mailbox.context.limits.linger_ms);
        self.schedule(token, self.now_ms + linger_ms);
    }

    fn remove(&mut self, token: Token) {
        if self.slot(token).is_none() {
            return;
        }
        let mut slot = self.slots.remove(token.0 & (SLOTS - 1));
        // A client that closed only its side may still read.
        slot.conn.flush();
        if !slot.lingers {
            slot.inbound.end(&slot.conn);
        }
        slot.conn.cut();
        slot.shut();
        slot.link.leaves();
        let counters = &self.mailbox.context.counters;
        counters.decrement(Metric::Sockets);
        if slot.is_handshake {
            counters.decrement(Metric::Handshakes);
        }
    }

    fn accept(&mut self) {
        if !self.accepting || self.pauses() {
            return;
        }
        self.first_listener += 1;
        let (first, count) = (self.first_listener, self.listeners.len());
        for index in (0..count).map(|index| (first + index) % count) {
            for _ in 0..ACCEPTS_PER_TURN {
                let listener = &mut self.listeners[index];
                if !listener.ready || self.now_ms < listener.admits_at_ms {
                    break;
                }
                if let Err(wait_ms) = self.door.admit(&listener.options.share) {
                    listener.admits_at_ms = self.now_ms + wait_ms;
                    break;
                }
                let options = listener.options.clone();
                match listener.accept() {
                    Accepted::Client(stream, address) => match self.turned_away(&options, address.ip()) {
                        None => self.adopt(stream, &options),
                        Some(refused) => self.count_refusal(&address.to_string(), &refused),
                    },
                    Accepted::TurnedAway => {
                        self.mailbox.context.counters.increment(Metric::SocketsRefused);
                    }
                    Accepted::Nobody => {
                        self.door.give_back(&options.share);
                        break;
                    }
                }
            }
        }
    }

    /// Why a socket from `address` is closed before anything is read from it. Who is behind a proxy
    /// is known when its header has been read.
    fn turned_away(&self, options: &ListenerOptions, address: IpAddr) -> Option<Refused> {
        let admitted = match &options.proxies {
            Some(proxies) => return (!proxies.trusts(address)).then_some(Refused::ProxySource),
            None => self.mailbox.context.service.admits_address(address),
        };
        (!admitted).then_some(Refused::Address)
    }

    /// Whether there is no room for one more socket.
    fn is_full(&self) -> bool {
        let Context { counters, limits, .. } = &*self.mailbox.context;
        counters.get(Metric::Handshakes) >= u64::from(limits.handshakes_max)
            || counters.get(Metric::Sockets)
                >= u64::from(limits.connections_max) + u64::from(limits.surplus_max)
    }

    /// Closes the socket that has awaited its CONNECT for longest, so that many that never send
    /// one keep nobody out who does.
    fn evict_half_open(&mut self) {
        let oldest = self.half_open.oldest(|token| awaits_client(&self.slots, token));
        if let Some(token) = oldest {
            self.mailbox.context.counters.increment(Metric::SocketsRefused);
            self.remove(token);
        }
    }

    fn adopt(&mut self, mut stream: TcpStream, options: &ListenerOptions) {
        self.half_open.sweep(|token| awaits_client(&self.slots, token));
        if self.is_full() {
            self.evict_half_open();
        }
        let full = self.is_full();
        let context = &self.mailbox.context;
        let (counters, limits) = (&context.counters, &context.limits);
        let entry = self.slots.vacant_entry();
        let generation = self.next_generation;
        let token = token_of(entry.key(), generation);
        let interests = Interest::READABLE | Interest::WRITABLE;
        // One turn is one write: nothing is gained by the system waiting for more.
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| self.poll.registry().register(&mut stream, token, interests));
        if full || self.drain_until_ms.is_some() || ready.is_err() {
            counters.increment(Metric::SocketsRefused);
            return;
        }
        let Ok(session) = options.acceptor.as_deref().map(Acceptor::session).transpose() else {
            // No randomness.
            counters.increment(Metric::SocketsRefused);
            return;
        };
        counters.increment(Metric::SocketsAccepted);
        counters.increment(Metric::Sockets);
        counters.increment(Metric::Handshakes);
        self.next_generation = self.next_generation.checked_add(1).unwrap_or(1);
        self.half_open.push(token);
        let link =
            TcpLink::new(stream, self.mailbox.clone(), token, options.share.clone(), options.durability);
        let tls = session.map(|session| TlsLink::new(link.clone(), session));
        let websocket = match options.kind {
            Kind::Tcp => None,
            Kind::WebSocket => Some(WebSocket::new(limits, options.origins.clone())),
        };
        let mut writes: Arc<dyn Link> = match &tls {
            Some(tls) => tls.clone(),
            None => link.clone(),
        };
        let proxied = options.proxies.as_ref().map(|_| {
            let link = ProxiedLink::new(writes.clone());
            writes = link.clone();
            Proxied::new(link)
        });
        entry.insert(Slot {
            conn: Conn::new(writes),
            link,
            inbound: Inbound::new(self.now_ms),
            layers: Layers::of(proxied, tls, websocket),
            check_ms: 0,
            generation,
            hung_up: false,
            held: false,
            is_handshake: true,
            lingers: false,
        });
        self.check(token);
    }

    fn letter(&mut self, letter: ToLoop) {
        match letter {
            ToLoop::Attend(token) => self.attend(token),
            ToLoop::Flush(token) => {
                if let Some(slot) = self.slot(token) {
                    slot.conn.flush();
                }
            }
            ToLoop::Stepped { token, result } => self.stepped(token, result),
            ToLoop::Adopt { stream, kind } => {
                if stream.set_nonblocking(true).is_ok() {
                    self.adopt(TcpStream::from_std(stream), &ListenerOptions::new(kind));
                }
            }
            ToLoop::Listen(mut listener) => {
                let token = Token(self.listeners.len() + 1);
                match self.poll.registry().register(&mut listener.socket, token, Interest::READABLE) {
                    Ok(()) => self.listeners.push(listener),
                    Err(e) => tracing::error!(error = %e, "a listener cannot be watched"),
                }
            }
            ToLoop::Accepting(accepting) => {
                self.accepting = accepting;
                for listener in &mut self.listeners {
                    listener.ready = true;
                }
            }
            ToLoop::CloseAll(reason) => self.close_all(reason),
            ToLoop::Drain { within_ms } => {
                self.accepting = false;
                self.drain_until_ms = Some(self.now_ms + within_ms);
                self.close_all(ReasonCode::ServerShuttingDown);
            }
        }
    }

    fn close_all(&mut self, reason: ReasonCode) {
        let tokens: Vec<_> = self.slots.iter().map(|(key, slot)| token_of(key, slot.generation)).collect();
        for token in tokens {
            if let Some(slot) = self.slot(token)
                && !slot.lingers
            {
                slot.conn.refuse(ReasonCode::ServerUnavailable);
                slot.conn.close(Ended::Server, reason);
                self.settle(token, Flow::Over);
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.drain_until_ms.is_some_and(|ms| self.slots.is_empty() || self.now_ms >= ms)
    }

    fn flush(&mut self) {
        self.reads = 0;
        flush();
    }

    /// Lets go of what is left.
    fn abandon(&mut self) {
        let tokens: Vec<_> = self.slots.iter().map(|(key, slot)| token_of(key, slot.generation)).collect();
        for token in tokens {
            self.remove(token);
        }
    }
}
