//! One client's connection, as everybody but its owner sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use once_cell::race::OnceBox;
use parking_lot::{Mutex, MutexGuard};

use super::deliver::Sending;
use super::outbound::{Flags, Greeting, Outbound};
use super::{Context, Durability, Ended, Grant, Limits, Link, Metric, PublishOrder, pool, turn};
use crate::auth::{Certificate, Principal};
use crate::mqtt::{ConnAck, Connect, Disconnect, ReasonCode, UserProperties, Version, encode};
use crate::state::Incarnation;

/// Packets appended between two looks at the count of an outbox.
const COUNT_PACKETS_AT: u16 = 1024;

mod state {
    /// CONNACK with success was appended.
    pub const ACCEPTED: u8 = 1;
    pub const PERSISTENT: u8 = 2;
}

/// Of `ended`: the client said DISCONNECT and has not been dismissed.
const RETIRED: u8 = 4;
/// As `RETIRED`, and it has said its last word in the WebSocket protocol too.
const RETIRED_HEARD: u8 = 5;

/// A connection, shared by its front end (which owns it), the broker's indexes and whoever is
/// delivering to it. All methods may be called from any thread and none blocks. What they append
/// is written at the end of the thread's [`turn`](super::turn()), or at once outside of one.
pub struct Conn {
    id: u64,
    link: Arc<dyn Link>,
    client: OnceLock<Arc<str>>,
    /// Who the client has proved to be; unset: nobody in particular.
    pub(super) principal: OnceBox<Principal>,
    incarnation: AtomicU64,
    pub(super) out: Mutex<Outbound>,
    order: Mutex<Option<Box<PublishOrder>>>,
    version: AtomicU8,
    state: AtomicU8,
    ended: AtomicU8,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.id)
            .field("client", &self.client.get())
            .finish_non_exhaustive()
    }
}

impl Conn {
    /// A connection whose client has not said anything yet.
    pub fn new(link: Arc<dyn Link>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            link,
            client: OnceLock::new(),
            principal: OnceBox::new(),
            incarnation: AtomicU64::new(0),
            out: Mutex::new(Outbound::default()),
            order: Mutex::new(None),
            version: AtomicU8::new(0),
            state: AtomicU8::new(0),
            ended: AtomicU8::new(0),
        })
    }

    /// Unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The client id; empty until accepted.
    pub fn client(&self) -> &str {
        self.client.get().map_or("", |client| client)
    }

    /// The client id as the grant shared it; `None` until accepted.
    pub fn client_arc(&self) -> Option<&Arc<str>> {
        self.client.get()
    }

    /// Of the grant; 0 until accepted.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// What the CONNECT named; 5.0 before it came.
    pub fn version(&self) -> Version {
        match self.version.load(Ordering::Relaxed) {
            3 => Version::V31,
            4 => Version::V311,
            _ => Version::V5,
        }
    }

    /// The session is replicated, as [`Grant::persistent`] says.
    pub fn is_persistent(&self) -> bool {
        self.state.load(Ordering::Acquire) & state::PERSISTENT != 0
    }

    pub fn is_accepted(&self) -> bool {
        self.state.load(Ordering::Acquire) & state::ACCEPTED != 0
    }

    /// Nothing is sent on it any more.
    pub fn is_closing(&self) -> bool {
        self.out.lock().flags.has(Flags::CLOSING)
    }

    /// Where the client is; behind a proxy that says so, not the proxy. `None`: nowhere, or its
    /// socket has failed.
    pub fn address(&self) -> Option<SocketAddr> {
        self.link.address()
    }

    /// The names in the client's certificate, which was verified; `None`: it has shown none.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.link.certificate()
    }

    /// The client's address, for logs and display.
    pub fn peer(&self) -> String {
        self.link.peer()
    }

    pub fn context(&self) -> &Context {
        self.link.context()
    }

    /// What its publishes are acknowledged for.
    pub fn durability(&self) -> Durability {
        self.link.durability()
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.link.context().limits
    }

    pub(super) fn wake(&self) {
        self.link.wake();
    }

    /// What this client's publishes have under way; nothing for most.
    pub fn publish_order(&self) -> &Mutex<Option<Box<PublishOrder>>> {
        &self.order
    }

    /// Notes what CONNECT said, so that it can be answered from anywhere.
    pub(super) fn greet(&self, connect: &Connect<'_>, server_keep_alive_s: Option<u16>) {
        let limits = self.limits();
        self.version.store(connect.version as u8, Ordering::Relaxed);
        let mut out = self.out.lock();
        out.maximum_packet = connect.maximum_packet_size.unwrap_or(u32::MAX);
        out.receive_maximum = connect.receive_maximum.min(limits.inflight_max).max(1);
        out.alias_maximum = connect.topic_alias_maximum.min(limits.outbound_alias_max);
        let greeting =
            Greeting { expiry_asked_s: connect.session_expiry_s, server_keep_alive_s, proof: None };
        out.cold().greeting = Some(Box::new(greeting));
    }

    /// Answers CONNECT: the client is in. False: the connection was over before; it must be given
    /// up, and [`Service::ended`](super::Service::ended) has been or will be called.
    pub fn accept(self: &Arc<Self>, grant: Grant) -> bool {
        let limits = self.limits();
        let version = self.version();
        let accepted = self.with_out(|out| {
            if out.flags.has(Flags::CLOSING) {
                return false;
            }
            let Some(greeting) = out.cold.as_mut().and_then(|cold| cold.greeting.take()) else {
                return false;
            };
            let mut stated = Vec::new();
            // Two short texts are never too long.
            let _ = encode::user_property(&mut stated, "durability", self.durability().name());
            let ack = ConnAck {
                session_present: grant.session_present,
                session_expiry_s: (grant.expiry_s != greeting.expiry_asked_s).then_some(grant.expiry_s),
                receive_maximum: self.context().pressure.window(limits.receive_maximum),
                maximum_packet_size: Some(limits.packet_max_bytes),
                assigned_client_id: grant.assigned.then_some(&*grant.client_id),
                topic_alias_maximum: limits.topic_alias_max,
                server_keep_alive_s: greeting.server_keep_alive_s,
                auth_method: greeting.proof.as_ref().map(|proof| &*proof.method),
                auth_data: greeting.proof.as_ref().and_then(|proof| proof.data.as_deref()),
                user_properties: UserProperties::from_wire(&stated).unwrap_or(UserProperties::NONE),
                ..ConnAck::new(ReasonCode::Success)
            };
            let maximum = out.maximum_packet;
            if !encode::connack(out.buffer(), version, &ack, maximum) {
                // Not even CONNACK fits what the client takes.
                out.flags.set(Flags::CLOSING);
                return false;
            }
            out.packets += 1;
            if grant.persistent {
                out.cold().sending = Some(Box::new(Sending::stored_from(grant.queue_head)));
            }
            let _ = self.client.set(grant.client_id);
            self.incarnation.store(grant.incarnation, Ordering::Relaxed);
            let persistent = if grant.persistent { state::PERSISTENT } else { 0 };
            self.state.store(state::ACCEPTED | persistent, Ordering::Release);
            out.shrink();
            true
        });
        if accepted {
            let counters = &self.context().counters;
            counters.increment(Metric::ConnectAccepted);
            counters.increment(Metric::Connections);
        } else {
            self.finish_if_closing();
        }
        self.link.wake();
        accepted
    }

    /// Answers CONNECT: the client is not let in [MQTT-3.1.4-2]. A 3.x client is told the nearest
    /// return code that its version has, or none.
    pub fn refuse(self: &Arc<Self>, reason: ReasonCode) {
        self.refuse_with(reason, None, None);
    }

    /// As [`refuse`](Self::refuse), with words for a 5.0 client.
    pub fn refuse_saying(self: &Arc<Self>, reason: ReasonCode, what: &str) {
        self.refuse_with(reason, Some(what), None);
    }

    /// Answers CONNECT: there is no room here. A 5.0 client is told where there is, if anywhere
    /// [MQTT 5.0, 4.11].
    pub(super) fn send_away(self: &Arc<Self>, what: &str) {
        let elsewhere = self.context().pressure.elsewhere().filter(|_| self.version() == Version::V5);
        let (reason, metric) = match elsewhere {
            Some(_) => (ReasonCode::UseAnotherServer, Metric::ConnectRedirected),
            None => (ReasonCode::QuotaExceeded, Metric::ConnectNoRoom),
        };
        self.context().counters.increment(metric);
        self.refuse_with(reason, Some(what), elsewhere.as_deref());
    }

    /// Whether there is room for one more client.
    pub(super) fn has_room(&self) -> bool {
        let Context { counters, limits, .. } = self.context();
        counters.get(Metric::Connections) < u64::from(limits.connections_max) && !self.link.is_full()
    }

    fn refuse_with(self: &Arc<Self>, reason: ReasonCode, what: Option<&str>, server_reference: Option<&str>) {
        let version = self.version();
        let refused = self.with_out(|out| {
            let greeting = out.cold.as_mut().and_then(|cold| cold.greeting.take());
            if greeting.is_none() || out.flags.has(Flags::CLOSING) {
                return false;
            }
            let maximum = out.maximum_packet;
            let ack = ConnAck { reason_string: what, server_reference, ..ConnAck::new(reason) };
            if encode::connack(out.buffer(), version, &ack, maximum) {
                out.packets += 1;
            }
            out.close_frame(reason);
            self.forbid_locked(out, Ended::Server);
            true
        });
        if refused {
            self.context().counters.increment(Metric::ConnectRefused);
            self.finish_if_closing();
        }
    }

    /// Refuses what cannot even be read as a CONNECT, in the form of `version`; says `what` is
    /// wrong with it in 5.0.
    pub(super) fn refuse_unread(self: &Arc<Self>, version: Version, reason: ReasonCode, what: &str) {
        self.version.store(version as u8, Ordering::Relaxed);
        self.out.lock().cold().greeting =
            Some(Box::new(Greeting { expiry_asked_s: 0, server_keep_alive_s: None, proof: None }));
        self.refuse_with(reason, Some(what), None);
    }

    /// Ends the connection for what the client did: refuses a CONNECT that waits for its answer,
    /// closes any other. `what` it was goes to a 5.0 client as the reason string.
    pub(super) fn reject(self: &Arc<Self>, reason: ReasonCode, what: &str) {
        self.refuse_with(reason, Some(what), None);
        self.close_with(
            Ended::Lost,
            Disconnect { reason, reason_string: Some(what), ..Disconnect::default() },
        );
    }

    /// Closes the connection. An accepted 5.0 client is told `reason` by DISCONNECT, a 3.x client
    /// and one that waits for CONNACK see the close alone [MQTT-3.14.0-1]. `why` is what `ended`
    /// is told; the first close counts. The client has a moment to take what was sent before.
    pub fn close(self: &Arc<Self>, why: Ended, reason: ReasonCode) {
        self.close_with(why, Disconnect { reason, ..Disconnect::default() });
    }

    /// As [`close`](Self::close), with words for a 5.0 client.
    pub fn close_saying(self: &Arc<Self>, why: Ended, reason: ReasonCode, what: &str) {
        self.close_with(why, Disconnect { reason, reason_string: Some(what), ..Disconnect::default() });
    }

    /// As [`close`](Self::close), for a client that shall go on elsewhere: a 5.0 client is told where,
    /// if that is known [MQTT 5.0, 4.11].
    pub fn let_go(self: &Arc<Self>, reason: ReasonCode, server_reference: Option<&str>) {
        self.close_with(Ended::Server, Disconnect { reason, server_reference, ..Disconnect::default() });
    }

    /// Closes it to further packets after the client's own DISCONNECT; the end of the stream is
    /// for [`dismiss`](Self::dismiss). False: it was closed before.
    pub(super) fn retire(&self) -> bool {
        let mut out = self.out.lock();
        if out.flags.has(Flags::CLOSING) {
            return false;
        }
        out.flags.set(Flags::CLOSING);
        self.ended.store(RETIRED, Ordering::Release);
        true
    }

    /// Lets the client of [`Ended::Disconnect`] see the end of the stream.
    pub fn dismiss(self: &Arc<Self>) {
        self.with_out(|out| {
            let retired = self.ended.load(Ordering::Acquire);
            if !matches!(retired, RETIRED | RETIRED_HEARD) || out.flags.has(Flags::FINISHED) {
                return;
            }
            self.forbid_locked(out, Ended::Lost);
            out.close_frame(ReasonCode::Success);
            if retired == RETIRED_HEARD {
                out.flags.clear(Flags::FRAMED);
            }
        });
        self.finish_if_closing();
    }

    fn close_with(self: &Arc<Self>, why: Ended, disconnect: Disconnect<'_>) {
        let says_why = self.is_accepted() && self.version() == Version::V5;
        let closed = self.with_out(|out| {
            if out.flags.has(Flags::CLOSING) {
                return false;
            }
            if says_why {
                let maximum = out.maximum_packet;
                if encode::disconnect(out.buffer(), &disconnect, maximum) {
                    out.packets += 1;
                }
            }
            out.close_frame(disconnect.reason);
            self.forbid_locked(out, why);
            true
        });
        if closed {
            self.finish_if_closing();
        }
    }

    /// Appends what the WebSocket protocol itself has to say; nothing after a Close frame.
    pub fn append_raw(self: &Arc<Self>, bytes: &[u8]) {
        self.with_out(|out| {
            if !out.flags.has(Flags::CLOSING) {
                out.append_raw(bytes);
            }
        });
    }

    /// Closes it with last bytes of the WebSocket protocol, which then says no more.
    pub fn close_raw(self: &Arc<Self>, bytes: &[u8]) {
        let closed = self.with_out(|out| {
            if out.flags.has(Flags::CLOSING) {
                return false;
            }
            out.append_raw(bytes);
            out.flags.clear(Flags::FRAMED);
            self.forbid_locked(out, Ended::Lost);
            true
        });
        if closed {
            self.finish_if_closing();
        }
    }

    /// The client has said its last word in the WebSocket protocol. Only for a connection that is
    /// closing: the stream ends after what is still to be written.
    pub fn end_stream(&self) {
        let mut out = self.out.lock();
        if self.ended.load(Ordering::Acquire) == RETIRED {
            // It is still to be answered.
            self.ended.store(RETIRED_HEARD, Ordering::Release);
            return;
        }
        let was_left_open = out.flags.clear(Flags::FRAMED) && out.flags.has(Flags::FINISHED);
        drop(out);
        if was_left_open {
            self.link.finish();
        }
    }

    /// From now on packets travel in WebSocket frames.
    pub fn set_framed(&self) {
        self.out.lock().flags.set(Flags::FRAMED);
    }

    /// Closes it to further packets, for this reason. With the lock held, because the owner may
    /// ask for the reason as soon as it is released.
    fn forbid_locked(&self, out: &mut Outbound, why: Ended) {
        let code = match why {
            Ended::TakenOver => 1,
            Ended::Server => 2,
            Ended::Lost | Ended::Disconnect { .. } => 3,
        };
        out.flags.set(Flags::CLOSING);
        self.ended.store(code, Ordering::Release);
    }

    /// Why this side closed it, if it did.
    pub(super) fn closed_by_us(&self) -> Option<Ended> {
        match self.ended.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Ended::TakenOver),
            2 => Some(Ended::Server),
            _ => Some(Ended::Lost),
        }
    }

    /// Nothing is appended any more. Says whether the client had been accepted.
    pub(super) fn forbid(&self) -> bool {
        self.out.lock().flags.set(Flags::CLOSING);
        self.is_accepted()
    }

    /// The front end lets go of the connection: nothing is written any more, and whoever still
    /// holds it holds nothing but its names.
    pub fn cut(&self) {
        let cold = {
            let mut out = self.out.lock();
            out.flags.set(Flags::CLOSING | Flags::FINISHED);
            out.discard();
            self.count_packets(&mut out);
            out.cold.take()
        };
        drop(cold);
    }

    /// Whether stored deliveries or retained messages are waiting that could go now; once.
    pub(super) fn take_hungry(&self) -> bool {
        self.out.lock().flags.clear(Flags::HUNGRY)
    }

    /// Frees what an idle connection does not need.
    pub(super) fn shrink(&self) {
        self.out.lock().shrink();
    }

    /// Runs `f` on the outbox and sees to it that what it appended is written.
    pub(super) fn with_out<R>(self: &Arc<Self>, f: impl FnOnce(&mut Outbound) -> R) -> R {
        let mut out = self.out.lock();
        let result = f(&mut out);
        if out.packets >= COUNT_PACKETS_AT {
            self.count_packets(&mut out);
        }
        let unnoticed = !out.is_empty()
            && !out.flags.has(Flags::DIRTY | Flags::WRITING | Flags::BLOCKED | Flags::FINISHED);
        if unnoticed {
            out.flags.set(Flags::DIRTY);
        }
        drop(out);
        if unnoticed {
            turn::note(self);
        }
        result
    }

    fn count_packets(&self, out: &mut Outbound) {
        self.context().counters.add(Metric::PacketsSent, u64::from(std::mem::take(&mut out.packets)));
    }

    /// Whether bytes wait to be written, or are being written.
    pub fn has_output(&self) -> bool {
        let out = self.out.lock();
        !out.flags.has(Flags::FINISHED) && (out.flags.has(Flags::WRITING) || !out.is_empty())
    }

    /// Ends the writing side of a closing connection at once if nothing waits. Otherwise the client
    /// has as long to take it as the owner lets it linger.
    fn finish_if_closing(self: &Arc<Self>) {
        let out = self.out.lock();
        if !out.flags.has(Flags::CLOSING) || out.flags.has(Flags::FINISHED | Flags::WRITING) {
            return;
        }
        if out.is_empty() {
            self.finish(out);
        } else if out.flags.has(Flags::BLOCKED) {
            drop(out);
            self.link.wake();
        }
    }

    fn finish(&self, mut out: MutexGuard<'_, Outbound>) {
        if matches!(self.ended.load(Ordering::Acquire), RETIRED | RETIRED_HEARD) {
            return;
        }
        out.flags.set(Flags::FINISHED | Flags::CLOSING);
        out.discard();
        self.count_packets(&mut out);
        // The client of a WebSocket answers the Close frame first: `end_stream`.
        let ends_stream = !out.flags.has(Flags::FRAMED);
        drop(out);
        if ends_stream {
            self.link.finish();
        }
        self.link.wake();
    }

    /// The owner says that the socket takes bytes again.
    pub fn writable(&self) {
        let mut out = self.out.lock();
        if out.flags.clear(Flags::BLOCKED) && !out.flags.has(Flags::WRITING) {
            self.write_out(out);
        }
    }

    /// Writes what waits, unless another thread is at it.
    pub fn flush(&self) {
        if self.link.leave_to_owner() {
            // Still marked as dirty: who appends until then need not ask the owner again.
            return;
        }
        let mut out = self.out.lock();
        out.flags.clear(Flags::DIRTY);
        if !out.flags.has(Flags::WRITING | Flags::BLOCKED | Flags::FINISHED) {
            self.write_out(out);
        }
    }

    /// Takes the buffer, writes it without the lock, and looks again: who appends meanwhile
    /// leaves the writing to us.
    fn write_out(&self, mut out: MutexGuard<'_, Outbound>) {
        loop {
            if out.is_empty() {
                out.recycle();
                if out.flags.has(Flags::CLOSING) {
                    self.finish(out);
                    return;
                }
                self.send_waiting(&mut out);
                if out.is_empty() {
                    self.count_packets(&mut out);
                    // Whoever was held up by the backlog goes on.
                    let relieved = out.flags.has(Flags::STALLED) && !self.is_overloaded(&out);
                    if relieved {
                        out.flags.clear(Flags::STALLED);
                    }
                    let held_up = relieved || out.may_go_on();
                    drop(out);
                    if held_up {
                        self.link.wake();
                    }
                    return;
                }
            }
            let (bytes, mut head) = out.take();
            out.flags.set(Flags::WRITING);
            let result = MutexGuard::unlocked(&mut out, || self.write_all(&bytes, &mut head));
            out.flags.clear(Flags::WRITING);
            if out.flags.has(Flags::FINISHED) {
                pool::give(bytes);
                return;
            }
            match result {
                Ok(true) => pool::give(bytes),
                Ok(false) => {
                    // The socket may have become writable before anybody could see that we are
                    // blocked: that edge would be lost. Once more, under the lock.
                    out.put_back(bytes, head);
                    match self.write_some(out.front()) {
                        Ok(Some(written)) => out.consume(written),
                        Ok(None) => {
                            out.flags.set(Flags::BLOCKED);
                            let closing = out.flags.has(Flags::CLOSING);
                            drop(out);
                            if closing {
                                self.link.wake();
                            }
                            return;
                        }
                        Err(()) => {
                            self.finish(out);
                            return;
                        }
                    }
                }
                Err(()) => {
                    self.finish(out);
                    return;
                }
            }
        }
    }

    /// Whether everything was written; `Err`: the connection is broken.
    fn write_all(&self, bytes: &[u8], head: &mut usize) -> Result<bool, ()> {
        while *head < bytes.len() {
            match self.write_some(&bytes[*head..])? {
                Some(written) => *head += written,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One write; `None`: it would block.
    fn write_some(&self, bytes: &[u8]) -> Result<Option<usize>, ()> {
        loop {
            match self.link.write(bytes) {
                Ok(0) => return Err(()),
                Ok(written) => {
                    self.context().counters.add(Metric::BytesSent, written as u64);
                    return Ok(Some(written));
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(_) => return Err(()),
            }
        }
    }
}
