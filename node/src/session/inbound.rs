//! What a client sends, turned into calls of the broker.

mod authentication;

use std::sync::Arc;

use smallvec::SmallVec;

use self::authentication::{Authentication, TOO_EARLY};
use super::acks::Receive;
use super::deliver::ClientAck;
use super::{Conn, ConnectRequest, Ended, Metric, SubscribeItem, WillRequest, admission, pool};
use crate::mqtt::{
    self, Ack, Connect, DecodeError, Disconnect, Packet, Publication, Publish, QoS, ReasonCode, Subscribe,
    Unsubscribe, Version, encode, topic,
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
    /// Not read because of its backlog, since `since_ms`.
    stalled: bool,
    /// CONNECT asked for a session that ends with the connection.
    expires_at_once: bool,
    /// `Service::connect` was called and `Service::ended` was not.
    known: bool,
    /// A persistent session's SUBSCRIBE or UNSUBSCRIBE may be unanswered.
    subscribing: bool,
}

/// What few connections have, or only at their end.
#[derive(Debug, Default)]
struct Rare {
    /// Topics by alias less one; empty: not defined.
    aliases: Vec<Box<str>>,
    /// The client's own DISCONNECT.
    farewell: Option<Ended>,
    authentication: Option<Authentication>,
}

/// What one batch of bytes amounts to.
struct Batch {
    now_ms: u64,
    steps: Vec<(QueueSeq, DeliveryStep)>,
    packets: u64,
    publishes: u64,
    fault: Option<DecodeError>,
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
            expires_at_once: true,
            known: false,
            subscribing: false,
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
        if self.stalled && !conn.must_stall() {
            self.stalled = false;
            if self.phase == Phase::Open {
                // The keep-alive was suspended.
                self.since_ms = now_ms;
            }
        }
        if self.phase == Phase::Open && conn.is_persistent() {
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

    /// Enforces the time-outs; says when to call again. `None`: the connection is over.
    pub fn check(&mut self, conn: &Arc<Conn>, now_ms: u64) -> Option<u64> {
        self.follow(conn, now_ms);
        let limits = &conn.context().limits;
        let deadline_ms = match self.phase {
            Phase::Over => return None,
            Phase::Waiting => Some(self.since_ms + u64::from(limits.answer_timeout_ms)),
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
        let idle_ms = now_ms + IDLE_CHECK_MS;
        if deadline_ms.is_none_or(|deadline_ms| now_ms < deadline_ms) {
            conn.shrink();
            let next_ms = [deadline_ms, renewal_ms].into_iter().flatten().min();
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
            if self.subscribing && mqtt::is_publish(rest[0]) {
                // The subscription takes effect when the log says so, for those of its client too;
                // a client that subscribes and publishes in one breath expects its own message.
                self.subscribing = conn.is_subscribing();
                self.stalled = self.subscribing;
                if self.stalled {
                    break;
                }
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
    fn settle(&mut self, conn: &Arc<Conn>, batch: Batch) -> Flow {
        let context = conn.context();
        if batch.packets > 0 {
            context.counters.add(Metric::PacketsReceived, batch.packets);
        }
        if batch.publishes > 0 {
            context.counters.add(Metric::PublishReceived, batch.publishes);
        }
        if !batch.steps.is_empty() {
            context.service.progress(conn, &batch.steps);
            if batch.steps.iter().any(|(_, step)| *step == DeliveryStep::Done) {
                conn.take_hungry();
                context.service.wants_more(conn);
            }
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
        self.stalled = conn.must_stall();
    }

    fn fail(&mut self, conn: &Arc<Conn>, fault: DecodeError, batch: &mut Batch) {
        conn.context().counters.protocol_error(fault.reason);
        match fault.connack {
            Some(version) if self.phase == Phase::Fresh => conn.refuse_unread(version, fault.reason),
            _ => {
                // Where CONNECT has not been answered, that says it all.
                conn.refuse(fault.reason);
                conn.close(Ended::Lost, fault.reason);
            }
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
            Packet::Publish(publish) => self.publish(conn, &publish, batch),
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

    fn connect(
        &mut self,
        conn: &Arc<Conn>,
        connect: &Connect<'_>,
        bytes: &[u8],
        now_ms: u64,
    ) -> Result<(), DecodeError> {
        let limits = conn.limits();
        let refusal =
            |reason, what| DecodeError { connack: Some(connect.version), ..DecodeError::new(reason, what) };
        let may_be_empty = match connect.version {
            Version::V5 => true,
            // [MQTT-3.1.3-8] of 3.1.1
            Version::V311 => connect.clean_start,
            Version::V31 => false,
        };
        if connect.client_id.is_empty() && !may_be_empty {
            return Err(refusal(ReasonCode::ClientIdentifierNotValid, "an empty client id"));
        }
        if connect.will.is_some_and(|will| topic::is_servers(will.topic)) {
            return Err(refusal(ReasonCode::NotAuthorized, "a will for a topic of the server's own"));
        }
        let is_v5 = connect.version == Version::V5;
        let keep_alive_max_s = limits.keep_alive_max_s;
        let capped = is_v5
            && keep_alive_max_s != u16::MAX
            && (connect.keep_alive_s == 0 || connect.keep_alive_s > keep_alive_max_s);
        self.keep_alive_s = if capped { keep_alive_max_s } else { connect.keep_alive_s };
        self.expires_at_once = connect.session_expiry_s == 0;
        conn.greet(connect, capped.then_some(keep_alive_max_s));
        match connect.auth_method {
            None => self.claim(conn, connect, None, now_ms),
            Some(method) => {
                let data = connect.auth_data.unwrap_or_default();
                self.begin_authentication(conn, method, data, bytes, now_ms);
            }
        }
        Ok(())
    }

    /// Passes CONNECT on to the broker. `identity`: who the client has proved to be, if it did.
    fn claim(&mut self, conn: &Arc<Conn>, connect: &Connect<'_>, identity: Option<&str>, now_ms: u64) {
        let limits = conn.limits();
        let expiry_s = match (connect.version == Version::V5, connect.clean_start) {
            (true, _) => connect.session_expiry_s.min(limits.session_expiry_max_s),
            (false, true) => 0,
            (false, false) => limits.session_expiry_max_s,
        };
        let will_properties = connect.will.map(|will| will.forward_properties());
        let request = ConnectRequest {
            version: connect.version,
            client_id: connect.client_id,
            clean_start: connect.clean_start,
            expiry_s,
            keep_alive_s: self.keep_alive_s,
            receive_maximum: connect.receive_maximum.min(limits.inflight_max).max(1),
            identity,
            username: connect.username,
            password: connect.password,
            will: connect.will.map(|will| WillRequest {
                topic: will.topic,
                payload: will.payload,
                properties: will_properties.as_deref().unwrap_or_default(),
                qos: will.qos,
                retain: will.retain,
                expiry_s: will.expiry_s,
                delay_s: will.delay_s,
            }),
        };
        self.phase = Phase::Waiting;
        self.since_ms = now_ms;
        self.known = true;
        conn.context().service.connect(conn, &request);
        self.follow(conn, now_ms);
    }

    fn publish(
        &mut self,
        conn: &Arc<Conn>,
        publish: &Publish<'_>,
        batch: &mut Batch,
    ) -> Result<(), DecodeError> {
        batch.publishes += 1;
        let limits = conn.limits();
        if publish.topic_alias != 0 && !publish.topic.is_empty() {
            self.define_alias(publish.topic_alias, publish.topic, limits.topic_alias_max)?;
        }
        let topic = match publish.topic_alias {
            0 => publish.topic,
            alias => match self.rare.as_ref().and_then(|rare| rare.aliases.get(usize::from(alias) - 1)) {
                Some(topic) if !topic.is_empty() => topic,
                _ if alias > limits.topic_alias_max => return Err(bad_alias()),
                _ => return Err(DecodeError::protocol("a topic alias that was not defined")),
            },
        };
        admission::check_topic(topic, limits)?;
        let ticket = match publish.qos {
            QoS::AtMostOnce => None,
            qos => match conn.receive(publish.packet_id, qos == QoS::ExactlyOnce) {
                Receive::New { ticket, check_stall } => {
                    batch.check_stall |= check_stall;
                    Some(ticket)
                }
                Receive::Duplicate | Receive::Closed => return Ok(()),
                Receive::Exceeded => {
                    let reason = ReasonCode::ReceiveMaximumExceeded;
                    return Err(DecodeError::new(reason, "more unacknowledged publishes than announced"));
                }
            },
        };
        let properties = publish.forward_properties();
        let publication = Publication {
            topic,
            payload: publish.payload,
            properties: &properties,
            qos: publish.qos,
            retain: publish.retain,
            expires_at_ms: 0,
            publisher: conn.client(),
        };
        let service = &conn.context().service;
        let made = service.publish(conn, &publication, publish.expiry_s, ticket, publish.packet_id);
        self.spend(made);
        Ok(())
    }

    fn define_alias(&mut self, alias: u16, topic: &str, maximum: u16) -> Result<(), DecodeError> {
        if alias > maximum {
            return Err(bad_alias());
        }
        let index = usize::from(alias) - 1;
        let aliases = &mut self.rare.get_or_insert_default().aliases;
        if aliases.len() <= index {
            aliases.resize_with(index + 1, Box::default);
        }
        if *aliases[index] != *topic {
            aliases[index] = topic.into();
        }
        Ok(())
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
        Self { now_ms, steps: Vec::new(), packets: 0, publishes: 0, fault: None, check_stall: false }
    }
}

fn bad_alias() -> DecodeError {
    // [MQTT-3.3.2-9]
    DecodeError::new(ReasonCode::TopicAliasInvalid, "a topic alias above the announced maximum")
}

fn client_ack(
    conn: &Arc<Conn>,
    kind: ClientAck,
    ack: &Ack<'_>,
    batch: &mut Batch,
) -> Result<(), DecodeError> {
    conn.client_ack(kind, ack.packet_id, ack.reason, &mut batch.steps)
        .map_err(|reason| DecodeError::new(reason, "an acknowledgement that the delivery does not await"))
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
