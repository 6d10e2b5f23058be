//! What a client sends, turned into calls of the broker.

mod authentication;
mod connecting;
mod pace;
mod publishing;

use std::sync::Arc;

use smallvec::SmallVec;

use self::authentication::{Authentication, TOO_EARLY};
use self::pace::Pace;
use super::deliver::ClientAck;
use super::{Conn, Ended, Metric, SubscribeItem, admission, pool};
use crate::mqtt::{
    self, Ack, DecodeError, Disconnect, Packet, ReasonCode, Subscribe, Unsubscribe, Version, encode,
};
use crate::state::{DeliveryStep, QueueSeq};

/// A connection is looked at this often even if nothing is due, to free what it does not need.
const IDLE_CHECK_MS: u64 = 60_000;
/// So many bytes of a packet that is not whole yet show that the client is alive: it can send
/// nothing else while it sends a large one.
const SIGN_OF_LIFE_BYTES: usize = 1_000;

/// What one connection may have done in one turn of its front end, in deliveries, so that a flood
/// delays the others by no more: some 10 ms. Fewer would be written one message at a time to each
/// subscriber of a wide fan-out, which costs a system call each.
const TURN_BUDGET: u16 = 8_192;
/// Of a packet, and of each filter in it, beside the deliveries that it brings about.
const PACKET_COST: usize = 16;

/// What the front end does next with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Reads on.
    Open,
    /// Lets others have their turn; then calls [`Inbound::feed`] with nothing before it reads on.
    Yield,
    /// Does not read until [`Inbound::attend`] says otherwise.
    Held,
    /// Reads no more: calls [`Inbound::end`] and lets the client take what is left.
    Over,
    /// As `Over`, because of what the client sent.
    Broken(DecodeError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// CONNECT is to come.
    Fresh,
    /// The broker is to answer a step of the enhanced authentication that CONNECT began.
    Verifying,
    /// The client is. All three have the time of a connection's first packet.
    Challenged,
    /// CONNECT was passed on; the broker has not answered.
    Waiting,
    Open,
    Over,
}

/// The reading side of a connection, owned by its front end.
#[derive(Debug)]
pub struct Inbound {
    /// Bytes from the beginning of a packet that is not whole or may not be processed yet.
    partial: Vec<u8>,
    rare: Option<Box<Rare>>,
    /// When the last packet of an open connection came, or the phase began, whichever is later;
    /// before CONNECT was passed on, when the connection began.
    since_ms: u64,
    keep_alive_s: u16,
    /// What is left of this turn's.
    budget: u16,
    phase: Phase,
    /// Not read because of its backlog, since `since_ms`, or because it is slowed.
    stalled: bool,
    /// It has published faster than it may.
    slowed: bool,
    /// CONNECT asked for a session that ends with the connection.
    expires_at_once: bool,
    /// `Service::connect` was called and `Service::ended` was not.
    known: bool,
    /// A persistent session's SUBSCRIBE or UNSUBSCRIBE may be unanswered.
    subscribing: bool,
    /// A time-out began that [`Inbound::check`] has not seen.
    unchecked: bool,
}

/// What few connections have, or only at their end.
#[derive(Debug, Default)]
struct Rare {
    /// Topics by alias less one; empty: not defined.
    aliases: Vec<Box<str>>,
    /// The client's own DISCONNECT.
    farewell: Option<Ended>,
    authentication: Option<Authentication>,
    /// When the client's right to be connected ends.
    expires_ms: Option<u64>,
    pace: Pace,
}

/// What one batch of bytes amounts to.
struct Batch {
    now_ms: u64,
    steps: Vec<(QueueSeq, DeliveryStep)>,
    packets: u64,
    publishes: u64,
    fault: Option<DecodeError>,
    /// There is room for more deliveries than the connection has.
    wants_more: bool,
    /// Something may have grown beyond its bound.
    check_stall: bool,
}

impl Inbound {
    /// `now_ms`, here and below: a monotonic clock of the front end's choice.
    pub fn new(now_ms: u64) -> Self {
        Self {
            partial: Vec::new(),
            rare: None,
            since_ms: now_ms,
            keep_alive_s: 0,
            budget: TURN_BUDGET,
            phase: Phase::Fresh,
            stalled: false,
            slowed: false,
            expires_at_once: true,
            known: false,
            subscribing: false,
            unchecked: false,
        }
    }

    /// CONNECT has not been answered with success.
    pub fn is_handshake(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Verifying | Phase::Challenged | Phase::Waiting)
    }

    /// The client is to send its CONNECT, or its next step of the authentication that began with it.
    pub fn awaits_client(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Challenged)
    }

    /// The front end's turn for this connection begins.
    pub fn begin_turn(&mut self) {
        self.budget = TURN_BUDGET;
    }

    /// Whether bytes are kept: unprocessed ones, or the beginning of a packet.
    pub fn keeps_bytes(&self) -> bool {
        !self.partial.is_empty()
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Takes what was read. While held, or when the turn's budget is spent, bytes are kept
    /// unprocessed; the front end hands over only what it had already read, which bounds them.
    pub fn feed(&mut self, conn: &Arc<Conn>, bytes: &[u8], now_ms: u64) -> Flow {
        if !bytes.is_empty() {
            conn.context().counters.add(Metric::BytesReceived, bytes.len() as u64);
        }
        let mut batch = Batch::new(now_ms);
        let mut rest = bytes;
        while !self.partial.is_empty() && self.goes_on() {
            if !self.complete_first(conn, &mut rest, &mut batch) {
                self.note_life(bytes, now_ms);
                return self.settle(conn, batch);
            }
            let mut partial = std::mem::take(&mut self.partial);
            let used = self.run(conn, &partial, &mut batch);
            if used == partial.len() {
                pool::give(partial);
            } else {
                partial.drain(..used);
                self.partial = partial;
            }
        }
        if self.partial.is_empty() {
            let used = self.run(conn, rest, &mut batch);
            rest = &rest[used..];
        }
        if !rest.is_empty() && self.phase != Phase::Over {
            self.keep(rest);
        }
        if self.holds_what_is_too_early() {
            self.fail(conn, TOO_EARLY, &mut batch);
        }
        self.note_life(bytes, now_ms);
        self.settle(conn, batch)
    }

    fn note_life(&mut self, bytes: &[u8], now_ms: u64) {
        if self.phase == Phase::Open && !self.stalled && bytes.len() >= SIGN_OF_LIFE_BYTES {
            self.since_ms = now_ms;
        }
    }

    /// Called after a wake-up: goes on with what was held up.
    pub fn attend(&mut self, conn: &Arc<Conn>, now_ms: u64) -> Flow {
        self.begin_turn();
        self.follow(conn, now_ms);
        self.end_slowness(conn, now_ms);
        if self.stalled && !self.slowed && !conn.must_stall() {
            self.stalled = false;
            self.unchecked = true;
            if self.phase == Phase::Open {
                // The keep-alive was suspended.
                self.since_ms = now_ms;
            }
        }
        if self.phase == Phase::Open {
            let service = &conn.context().service;
            let passed_over = conn.take_passed_over();
            if !passed_over.is_empty() {
                let steps: Vec<_> = passed_over.into_iter().map(|seq| (seq, DeliveryStep::Done)).collect();
                service.progress(conn, &steps);
            }
            if conn.take_hungry() {
                service.wants_more(conn);
            }
        }
        self.feed(conn, &[], now_ms)
    }

    /// Called after the front end has answered by itself, below MQTT: whoever does not take such
    /// answers is not read either. They do not count for the keep-alive.
    pub fn answered(&mut self, conn: &Arc<Conn>, now_ms: u64) -> Flow {
        if self.listens() {
            self.stall_if_overloaded(conn);
            if self.stalled && self.phase == Phase::Open {
                self.since_ms = now_ms;
            }
        }
        self.settle(conn, Batch::new(now_ms))
    }

    /// [`check`](Self::check) must be called although it is not yet time.
    pub fn must_check(&self) -> bool {
        self.unchecked
    }

    /// Enforces the time-outs; says when to call again. `None`: the connection is over.
    pub fn check(&mut self, conn: &Arc<Conn>, now_ms: u64) -> Option<u64> {
        self.follow(conn, now_ms);
        self.unchecked = false;
        let limits = &conn.context().limits;
        let deadline_ms = match self.phase {
            Phase::Over => return None,
            Phase::Waiting => Some(self.since_ms + u64::from(limits.answer_timeout_ms)),
            // It is not read for no fault of its reading; that has its own end.
            Phase::Open if self.slowed => None,
            Phase::Open if self.stalled => Some(self.since_ms + u64::from(limits.stall_timeout_ms)),
            // One and a half times the Keep Alive [MQTT-3.1.2-22].
            Phase::Open if self.keep_alive_s > 0 => Some(self.since_ms + u64::from(self.keep_alive_s) * 1500),
            Phase::Open => None,
            _ => Some(self.since_ms + u64::from(limits.connect_timeout_ms)),
        };
        let counters = &conn.context().counters;
        let renewal_ms = self.reauthentication_deadline_ms(limits);
        if renewal_ms.is_some_and(|renewal_ms| now_ms >= renewal_ms) {
            self.turn_away(conn, authentication::STALLED);
            return None;
        }
        let expires_ms = self.rare.as_ref().and_then(|rare| rare.expires_ms);
        if expires_ms.is_some_and(|expires_ms| now_ms >= expires_ms) {
            self.expire(conn);
            return None;
        }
        let idle_ms = now_ms + IDLE_CHECK_MS;
        if deadline_ms.is_none_or(|deadline_ms| now_ms < deadline_ms) {
            conn.shrink();
            let slowed_ms = self.slowed_until_ms(conn, now_ms);
            let next_ms = [deadline_ms, renewal_ms, slowed_ms, expires_ms].into_iter().flatten().min();
            return Some(next_ms.map_or(idle_ms, |next_ms| next_ms.min(idle_ms)));
        }
        match self.phase {
            Phase::Fresh | Phase::Challenged => {
                counters.increment(Metric::ConnectTimeouts);
                // Heard only by a client that has sent its CONNECT.
                conn.refuse(ReasonCode::NotAuthorized);
                conn.close(Ended::Lost, ReasonCode::KeepAliveTimeout);
            }
            Phase::Verifying | Phase::Waiting => conn.refuse(ReasonCode::ServerUnavailable),
            _ if self.stalled => {
                counters.increment(Metric::StallTimeouts);
                conn.close(Ended::Lost, ReasonCode::QuotaExceeded);
            }
            _ => {
                counters.increment(Metric::KeepAliveTimeouts);
                conn.close(Ended::Lost, ReasonCode::KeepAliveTimeout);
            }
        }
        self.phase = Phase::Over;
        None
    }

    /// The connection is over, for whatever reason: tells the broker, once.
    pub fn end(&mut self, conn: &Arc<Conn>) {
        self.phase = Phase::Over;
        pool::give(std::mem::take(&mut self.partial));
        let farewell = self.rare.take().and_then(|rare| rare.farewell);
        let accepted = conn.forbid();
        if !std::mem::take(&mut self.known) {
            return;
        }
        if accepted {
            conn.context().counters.decrement(Metric::Connections);
        }
        let why = farewell.or_else(|| conn.closed_by_us()).unwrap_or(Ended::Lost);
        conn.context().service.ended(conn, why);
    }

    fn goes_on(&self) -> bool {
        self.listens() && self.budget > 0
    }

    /// Whether the client may have its packets processed.
    fn listens(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Challenged | Phase::Open) && !self.stalled
    }

    fn spend(&mut self, cost: usize) {
        self.budget = self.budget.saturating_sub(u16::try_from(cost).unwrap_or(u16::MAX));
    }

    /// Takes over what other threads did to the connection.
    fn follow(&mut self, conn: &Arc<Conn>, now_ms: u64) {
        if self.phase != Phase::Over && conn.is_closing() {
            self.phase = Phase::Over;
        } else if self.phase == Phase::Waiting && conn.is_accepted() {
            self.phase = Phase::Open;
            self.since_ms = now_ms;
            self.unchecked = true;
        } else {
            self.follow_authentication(conn, now_ms);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.partial.capacity() == 0 {
            self.partial = pool::take();
        }
        self.partial.extend_from_slice(bytes);
    }

    /// Adds to the kept bytes until their first packet is whole. False: it is not.
    fn complete_first(&mut self, conn: &Arc<Conn>, rest: &mut &[u8], batch: &mut Batch) -> bool {
        loop {
            let missing = match mqtt::frame_len(&self.partial, conn.limits().packet_max_bytes) {
                Ok(Some(len)) if self.partial.len() >= len => return true,
                Ok(Some(len)) => len - self.partial.len(),
                // The length is not known: one byte more at a time, at most four times.
                Ok(None) => 1,
                Err(fault) => {
                    self.fail(conn, fault, batch);
                    return false;
                }
            };
            if rest.is_empty() {
                return false;
            }
            let (more, after) = rest.split_at(missing.min(rest.len()));
            self.partial.extend_from_slice(more);
            *rest = after;
        }
    }

    /// Processes whole packets as long as it may; says how many bytes they were.
    fn run(&mut self, conn: &Arc<Conn>, bytes: &[u8], batch: &mut Batch) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.goes_on() {
            let rest = &bytes[used..];
            if self.phase == Phase::Fresh && !mqtt::is_connect(rest[0]) {
                // Of another protocol the rest may never come.
                self.fail(conn, mqtt::NO_CONNECT, batch);
                break;
            }
            if self.subscribing && mqtt::is_publish(rest[0]) {
                // The subscription takes effect when the log says so, for those of its client too;
                // a client that subscribes and publishes in one breath expects its own message.
                self.subscribing = conn.is_subscribing();
                self.stalled = self.subscribing;
                if self.stalled {
                    break;
                }
            }
            if mqtt::is_subscription(rest[0]) && self.phase == Phase::Open && conn.is_publishing() {
                // What was published before is not for the subscription, but as a retained message.
                self.stalled = true;
                break;
            }
            match mqtt::frame_len(rest, conn.limits().packet_max_bytes) {
                Ok(Some(len)) if len <= rest.len() => {
                    used += len;
                    batch.packets += 1;
                    self.packet(conn, &rest[..len], batch);
                }
                Ok(_) => break,
                Err(fault) => self.fail(conn, fault, batch),
            }
        }
        used
    }

    /// After the packets of a batch: what is told once per batch.
    fn settle(&mut self, conn: &Arc<Conn>, mut batch: Batch) -> Flow {
        let context = conn.context();
        if batch.packets > 0 {
            context.counters.add(Metric::PacketsReceived, batch.packets);
        }
        if batch.publishes > 0 {
            context.counters.add(Metric::PublishReceived, batch.publishes);
        }
        if !batch.steps.is_empty() {
            context.service.progress(conn, &batch.steps);
            batch.wants_more |= batch.steps.iter().any(|(_, step)| *step != DeliveryStep::Received);
        }
        if batch.wants_more {
            conn.take_hungry();
            context.service.wants_more(conn);
        }
        self.follow(conn, batch.now_ms);
        match self.phase {
            Phase::Over => batch.fault.or(self.authentication_fault()).map_or(Flow::Over, Flow::Broken),
            Phase::Verifying | Phase::Waiting => Flow::Held,
            _ => {
                if !self.stalled && batch.packets > 0 {
                    self.stall_if_overloaded(conn);
                }
                if self.stalled {
                    Flow::Held
                } else if self.budget == 0 && self.keeps_bytes() {
                    Flow::Yield
                } else {
                    Flow::Open
                }
            }
        }
    }

    fn stall_if_overloaded(&mut self, conn: &Arc<Conn>) {
        // `since_ms` is, or is made, the time of what brought it about.
        self.stalled |= conn.must_stall();
    }

    fn fail(&mut self, conn: &Arc<Conn>, fault: DecodeError, batch: &mut Batch) {
        conn.context().counters.protocol_error(fault.reason);
        match fault.connack {
            Some(version) if self.phase == Phase::Fresh => {
                conn.refuse_unread(version, fault.reason, fault.what);
            }
            _ => conn.reject(fault.reason, fault.what),
        }
        self.phase = Phase::Over;
        batch.fault = Some(fault);
    }

    fn packet(&mut self, conn: &Arc<Conn>, bytes: &[u8], batch: &mut Batch) {
        if self.phase == Phase::Open {
            self.since_ms = batch.now_ms;
        }
        self.spend(PACKET_COST);
        let version = (self.phase != Phase::Fresh).then(|| conn.version());
        let result = if self.phase == Phase::Challenged && !mqtt::may_precede_connack(bytes[0]) {
            Err(TOO_EARLY)
        } else {
            mqtt::decode(bytes, version).and_then(|packet| {
                admission::check(&packet, conn.limits())?;
                self.dispatch(conn, packet, bytes, batch)
            })
        };
        if let Err(fault) = result {
            self.fail(conn, fault, batch);
        } else if batch.check_stall {
            batch.check_stall = false;
            self.stall_if_overloaded(conn);
        }
    }

    fn dispatch(
        &mut self,
        conn: &Arc<Conn>,
        packet: Packet<'_>,
        bytes: &[u8],
        batch: &mut Batch,
    ) -> Result<(), DecodeError> {
        match packet {
            Packet::Publish(publish) => {
                self.keep_pace(conn, bytes.len(), batch.now_ms);
                self.publish(conn, &publish, batch)
            }
            Packet::PubAck(ack) => client_ack(conn, ClientAck::Ack, &ack, batch),
            Packet::PubRec(ack) => client_ack(conn, ClientAck::Rec, &ack, batch),
            Packet::PubComp(ack) => client_ack(conn, ClientAck::Comp, &ack, batch),
            Packet::PubRel(ack) => {
                if conn.is_persistent() {
                    batch.check_stall |= conn.expect_answer_of(0);
                    conn.context().service.release(conn, ack.packet_id);
                } else {
                    conn.release(ack.packet_id);
                }
                Ok(())
            }
            Packet::PingReq => {
                conn.with_out(|out| out.append(encode::pingresp));
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                self.spend(PACKET_COST * subscribe.filters.len());
                self.subscribing |= conn.is_persistent();
                subscribe_to(conn, &subscribe, batch);
                Ok(())
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.spend(PACKET_COST * unsubscribe.filters.len());
                self.subscribing |= conn.is_persistent();
                unsubscribe_from(conn, &unsubscribe, batch)
            }
            Packet::Disconnect(disconnect) => self.disconnect(conn, &disconnect),
            Packet::Connect(connect) if self.phase == Phase::Fresh => {
                self.connect(conn, &connect, bytes, batch.now_ms)
            }
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => Err(DecodeError::protocol("a second CONNECT")),
            Packet::Auth(auth) => self.auth(conn, &auth, batch.now_ms),
            _ => Err(DecodeError::protocol("a packet that only servers send")),
        }
    }

    fn disconnect(&mut self, conn: &Arc<Conn>, disconnect: &Disconnect<'_>) -> Result<(), DecodeError> {
        if self.expires_at_once && disconnect.session_expiry_s.is_some_and(|s| s != 0) {
            // [MQTT-3.14.2.2.2]
            return Err(DecodeError::protocol("a session expiry in DISCONNECT after none in CONNECT"));
        }
        let expiry_max_s = conn.limits().session_expiry_max_s;
        if conn.retire() {
            self.rare.get_or_insert_default().farewell = Some(Ended::Disconnect {
                // [MQTT-3.14.4-3]
                with_will: disconnect.reason != ReasonCode::Success,
                expiry_s: disconnect.session_expiry_s.map(|s| s.min(expiry_max_s)),
            });
        }
        self.phase = Phase::Over;
        Ok(())
    }
}

impl Batch {
    fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            steps: Vec::new(),
            packets: 0,
            publishes: 0,
            fault: None,
            wants_more: false,
            check_stall: false,
        }
    }
}

fn client_ack(
    conn: &Arc<Conn>,
    kind: ClientAck,
    ack: &Ack<'_>,
    batch: &mut Batch,
) -> Result<(), DecodeError> {
    let hungry = conn
        .client_ack(kind, ack.packet_id, ack.reason, &mut batch.steps)
        .map_err(|reason| DecodeError::new(reason, "an acknowledgement that the delivery does not await"))?;
    batch.wants_more |= hungry;
    Ok(())
}

fn subscribe_to(conn: &Arc<Conn>, subscribe: &Subscribe<'_>, batch: &mut Batch) {
    let items: SmallVec<[SubscribeItem<'_>; 4]> = subscribe
        .filters
        .iter()
        .map(|item| SubscribeItem { filter: item.filter, options: item.options })
        .collect();
    batch.check_stall |= conn.expect_subscription(items.len());
    if items.len() > usize::from(conn.limits().filters_max) {
        return conn.subscribed(subscribe.packet_id, &vec![ReasonCode::QuotaExceeded; items.len()]);
    }
    conn.context().service.subscribe(conn, subscribe.packet_id, subscribe.subscription_id, &items);
}

fn unsubscribe_from(
    conn: &Arc<Conn>,
    unsubscribe: &Unsubscribe<'_>,
    batch: &mut Batch,
) -> Result<(), DecodeError> {
    let filters: SmallVec<[&str; 4]> = unsubscribe.filters.iter().collect();
    let too_many = filters.len() > usize::from(conn.limits().filters_max);
    if too_many && conn.version() != Version::V5 {
        // UNSUBACK of 3.x cannot say no.
        return Err(DecodeError::new(ReasonCode::QuotaExceeded, "more filters than allowed"));
    }
    batch.check_stall |= conn.expect_subscription(filters.len());
    if too_many {
        // UNSUBACK has no code for a quota.
        let codes = vec![ReasonCode::ImplementationSpecificError; filters.len()];
        conn.unsubscribed(unsubscribe.packet_id, &codes);
    } else {
        conn.context().service.unsubscribe(conn, unsubscribe.packet_id, &filters);
    }
    Ok(())
}
