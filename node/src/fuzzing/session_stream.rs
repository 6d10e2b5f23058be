//! A whole connection: what its client sends, what the broker answers when, what is delivered to
//! it, and what its socket takes, in any order.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::client::{CLIENT, Wire};
use super::parley::Parley;
use super::source::Source;
use crate::auth::{Exchange, Failure, Outcome, Principal};
use crate::mqtt::{
    Auth, Connect, Disconnect, Packet, Publication, PublishOut, QoS, ReasonCode, SubOptions, SubscribeFilter,
    Version, decode_from_server, encode, frame_len,
};
use crate::session::{
    AckTicket, AuthStep, Conn, ConnectRequest, Context, Delivery, Ended, Flow, Grant, Inbound, Limits,
    Service, Share, SubscribeItem, Unacknowledged, turn,
};
use crate::state::{DeliveryStep, QueueSeq, Stored};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// What a broker may say to a PUBLISH.
const VERDICTS: [ReasonCode; 5] = [
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::NotAuthorized,
    ReasonCode::QuotaExceeded,
    ReasonCode::UnspecifiedError,
];

/// Input: the limits and the CONNECT, then one step after the other.
pub fn session_stream(input: &[u8]) {
    let mut source = Source::new(input);
    let mut run = Run::new(&mut source);
    while !source.is_empty() {
        run.step(&mut source);
    }
    run.finish();
}

/// A request that waits for the broker's answer.
enum Request {
    Subscribe(u16, Vec<ReasonCode>),
    Unsubscribe(u16, usize),
    Release(u16),
    /// The client's DISCONNECT.
    Dismiss,
}

/// What the broker knows.
#[derive(Default)]
struct Known {
    connects: usize,
    ended: usize,
    /// The exchange whose step is to be answered.
    verifying: Option<Box<dyn Exchange>>,
    owed: Vec<AckTicket>,
    requests: Vec<Request>,
    /// Packet ids of the QoS 1 publishes, in their order.
    at_least_once: Vec<u16>,
    /// The session's stored deliveries that are not over.
    stored: BTreeMap<QueueSeq, Stored>,
    /// Those of them that were handed over with their PUBREC recorded.
    resumed: BTreeSet<QueueSeq>,
    /// PUBRECs to be recorded.
    unrecorded: Vec<QueueSeq>,
    clock_ms: u64,
}

/// A broker that answers when it is told to.
#[derive(Default)]
struct Slow {
    known: Mutex<Known>,
}

impl Slow {
    /// Every call is one of a connection that is going on and that is not locked.
    fn called(&self, conn: &Arc<Conn>, change: impl FnOnce(&mut Known)) {
        let _: bool = conn.is_closing();
        let mut known = self.known.lock();
        assert_eq!((known.connects, known.ended), (1, 0), "called after the end, or before CONNECT");
        change(&mut known);
    }
}

impl Service for Slow {
    fn authenticate(&self, conn: &Arc<Conn>, step: AuthStep<'_>) {
        let _: bool = conn.is_closing();
        let exchange = match step {
            AuthStep::Begin { method, .. } => {
                assert_eq!(method, Parley::METHOD);
                Box::new(Parley)
            }
            AuthStep::Continue { exchange, .. } => exchange,
        };
        let mut known = self.known.lock();
        assert_eq!(known.ended, 0, "called after the end");
        assert!(known.verifying.replace(exchange).is_none(), "called before the answer");
    }

    fn connect(&self, conn: &Arc<Conn>, _: &ConnectRequest<'_>) {
        self.known.lock().connects += 1;
        self.called(conn, |_| {});
    }

    fn publish(
        &self,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        _: Option<u32>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize {
        assert_eq!(publication.qos == QoS::AtMostOnce, ticket.is_none());
        assert!(!publication.topic.is_empty());
        self.called(conn, |known| {
            known.owed.extend(ticket);
            if publication.qos == QoS::AtLeastOnce {
                known.at_least_once.push(packet_id);
            }
        });
        0
    }

    fn release(&self, conn: &Arc<Conn>, packet_id: u16) {
        self.called(conn, |known| known.requests.push(Request::Release(packet_id)));
    }

    fn subscribe(&self, conn: &Arc<Conn>, packet_id: u16, _: u32, items: &[SubscribeItem<'_>]) {
        let codes = items.iter().map(|item| ReasonCode::granted(item.options.qos)).collect();
        self.called(conn, |known| known.requests.push(Request::Subscribe(packet_id, codes)));
    }

    fn unsubscribe(&self, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]) {
        self.called(conn, |known| known.requests.push(Request::Unsubscribe(packet_id, filters.len())));
    }

    fn progress(&self, conn: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]) {
        assert!(conn.is_persistent());
        self.called(conn, |known| {
            for (seq, step) in steps {
                match step {
                    DeliveryStep::Done | DeliveryStep::Refused => {
                        assert!(known.stored.remove(seq).is_some(), "{seq} is over, once more");
                        known.resumed.remove(seq);
                    }
                    DeliveryStep::Received => {
                        assert_eq!(known.stored.get(seq).map(|s| s.qos), Some(QoS::ExactlyOnce));
                        known.unrecorded.push(*seq);
                    }
                }
            }
        });
    }

    fn refused(&self, conn: &Arc<Conn>, delivery: Unacknowledged) {
        assert!(!conn.is_persistent() && delivery.sent);
        self.called(conn, |_| {});
    }

    fn wants_more(&self, conn: &Arc<Conn>) {
        assert!(conn.is_persistent());
        self.called(conn, |_| {});
    }

    fn ended(&self, conn: &Arc<Conn>, why: Ended) {
        self.called(conn, |known| {
            known.ended += 1;
            if matches!(why, Ended::Disconnect { .. }) {
                known.requests.push(Request::Dismiss);
            }
        });
        drop(conn.take_unacknowledged());
    }

    /// May be called with the connection locked.
    fn clock_ms(&self) -> u64 {
        self.known.lock().clock_ms
    }

    fn monotonic_ms(&self) -> u64 {
        self.clock_ms()
    }
}

struct Run {
    broker: Arc<Slow>,
    wire: Arc<Wire>,
    conn: Arc<Conn>,
    inbound: Inbound,
    version: Version,
    persistent: bool,
    /// Deliveries that may be in flight.
    in_flight_max: u16,
    packet_max: u32,
    now_ms: u64,
    next_seq: QueueSeq,
    over: bool,
}

impl Run {
    /// A connection whose CONNECT has been sent.
    fn new(source: &mut Source<'_>) -> Self {
        let shape = source.u8();
        let version = VERSIONS[usize::from(shape) % 3];
        let small = |byte: u8| u16::from(byte % 4) + 1;
        let limits = Limits {
            packet_max_bytes: 512,
            receive_maximum: small(source.u8()),
            requests_max: small(source.u8()),
            inflight_max: small(source.u8()),
            topic_alias_max: 2,
            outbound_alias_max: 2,
            queue_max: u32::from(source.u8() % 4),
            outbox_max_bytes: u32::from(source.u8()) + 16,
            ..Limits::default()
        };
        let v5 = version == Version::V5;
        let packet_max = if v5 && shape & 0x10 != 0 { u32::from(source.u8()) + 4 } else { u32::MAX };
        let connect = Connect {
            client_id: CLIENT,
            clean_start: shape & 0x20 == 0,
            keep_alive_s: u16::from(shape & 0x40),
            session_expiry_s: if v5 { u32::from(shape & 0x80) } else { 0 },
            receive_maximum: if v5 { small(source.u8()) } else { u16::MAX },
            maximum_packet_size: (packet_max != u32::MAX).then_some(packet_max),
            topic_alias_maximum: if v5 { u16::from(source.u8() % 4) } else { 0 },
            auth_method: (v5 && shape & 0x08 != 0).then_some(Parley::METHOD),
            ..Connect::new(version)
        };
        let broker = Arc::new(Slow::default());
        let in_flight_max = connect.receive_maximum.min(limits.inflight_max);
        let wire = Wire::new(Context::new(limits, broker.clone()));
        let conn = Conn::new(wire.clone());
        let inbound = Inbound::new(0);
        let persistent = shape & 0x20 != 0;
        let (now_ms, next_seq) = (0, u64::from(source.u16()));
        let mut run = Self {
            broker,
            wire,
            conn,
            inbound,
            version,
            persistent,
            in_flight_max,
            packet_max,
            now_ms,
            next_seq,
            over: false,
        };
        run.send(|out| encode::connect(out, &connect).expect("fits"));
        run
    }

    fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        write(&mut out);
        self.feed(&out);
    }

    fn feed(&mut self, bytes: &[u8]) {
        if !self.over {
            self.inbound.begin_turn();
            let mut flow = turn(|| self.inbound.feed(&self.conn, bytes, self.now_ms));
            while flow == Flow::Yield {
                self.inbound.begin_turn();
                flow = turn(|| self.inbound.feed(&self.conn, &[], self.now_ms));
            }
            self.settle(flow);
        }
    }

    fn settle(&mut self, flow: Flow) {
        if matches!(flow, Flow::Over | Flow::Broken(_)) && !self.over {
            self.over = true;
            turn(|| self.inbound.end(&self.conn));
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let (version, step) = (self.version, source.u8());
        let argument = step >> 5;
        let id = u16::from(argument) + 1;
        match step & 0x1F {
            0..=3 => self.feed(source.slice()),
            4 | 5 => self.client_publishes(source, argument),
            6 => self.send(|out| {
                let options = SubOptions { qos: QoS::ExactlyOnce, ..SubOptions::default() };
                let filters = [SubscribeFilter { filter: "a/+", options }; 2];
                encode::subscribe(out, version, id, 1, &filters).expect("fits");
            }),
            7 => self.send(|out| encode::unsubscribe(out, version, id, &["a/+", "b"]).expect("fits")),
            8 => self.send(|out| encode::pubrel(out, version, id, ReasonCode::Success)),
            9 => self.send(|out| encode::puback(out, version, id, ReasonCode::Success)),
            10 => self.send(|out| encode::pubrec(out, version, id, ReasonCode::Success)),
            11 => self.send(|out| encode::pubrec(out, version, id, ReasonCode::UnspecifiedError)),
            12 => self.send(|out| encode::pubcomp(out, version, id, ReasonCode::Success)),
            13 if argument > 3 && version == Version::V5 => self.send(|out| {
                let reason = match argument {
                    4 | 5 => ReasonCode::ContinueAuthentication,
                    _ => ReasonCode::ReAuthenticate,
                };
                let auth = Auth { reason, method: Some(Parley::METHOD), ..Auth::default() };
                assert!(encode::auth(out, &auth, u32::MAX));
            }),
            13 => self.send(encode::pingreq),
            14 if version != Version::V5 => self.send(encode::disconnect_v3),
            14 => self.send(|out| {
                let expiry = (argument > 3).then_some(u32::from(argument));
                let disconnect = Disconnect { session_expiry_s: expiry, ..Disconnect::default() };
                assert!(encode::disconnect(out, &disconnect, u32::MAX));
            }),
            15 | 16 if !self.answer_authentication(argument) => self.answer_connect(argument),
            15 | 16 => {}
            17 | 18 => self.acknowledge(usize::from(argument), source.u8()),
            19 | 20 => self.answer_request(usize::from(argument)),
            21 | 22 => self.deliver(source, argument),
            23 | 24 => self.deliver_stored(source, argument),
            25 => {
                let recorded = std::mem::take(&mut self.broker.known.lock().unrecorded);
                for seq in &recorded {
                    if let Some(stored) = self.broker.known.lock().stored.get_mut(seq) {
                        stored.received = true;
                    }
                }
                self.conn.received(&recorded);
            }
            26 => self.pass_time(u64::from(source.u16()) << argument),
            27 => {
                if !self.over {
                    let flow = turn(|| self.inbound.attend(&self.conn, self.now_ms));
                    self.settle(flow);
                }
            }
            28 => self.wire.room.store(usize::from(source.u8()), Ordering::Relaxed),
            29 | 30 => {
                self.wire.room.store(usize::MAX, Ordering::Relaxed);
                self.conn.writable();
            }
            _ => {
                let why = if argument > 3 { Ended::TakenOver } else { Ended::Server };
                self.conn.close(why, ReasonCode::SessionTakenOver);
            }
        }
        // PUBREL is out of flow control [MQTT-4.9.0-3].
        let resumed = self.broker.known.lock().resumed.len();
        assert!(self.conn.backlog().in_flight as usize <= usize::from(self.in_flight_max) + resumed);
    }

    fn client_publishes(&mut self, source: &mut Source<'_>, argument: u8) {
        let qos = QoS::from_u8(argument % 3).unwrap_or_default();
        let message = Publication {
            topic: "a/b",
            payload: source.slice(),
            properties: &[],
            qos,
            retain: false,
            expires_at_ms: 0,
            publisher: "",
        };
        let (version, alias) = (self.version, source.u8());
        let publish = PublishOut {
            dup: argument > 3,
            packet_id: u16::from(alias >> 4) + 1,
            topic_alias: (alias & 1 != 0).then_some((u16::from(alias >> 1 & 3) + 1, alias & 8 == 0)),
            ..PublishOut::new(version, &message)
        };
        let publish =
            PublishOut { topic_alias: publish.topic_alias.filter(|_| version == Version::V5), ..publish };
        self.send(|out| {
            encode::publish(out, &publish).expect("fits");
        });
    }

    /// Says whether there was a step to answer.
    fn answer_authentication(&mut self, argument: u8) -> bool {
        let Some(exchange) = self.broker.known.lock().verifying.take() else { return false };
        let data = vec![argument; usize::from(argument)];
        self.conn.authenticated(match argument {
            0..=3 => Outcome::success(data, Principal::new("ann", "fake")),
            4 | 5 => Outcome::Continue { data, exchange },
            6 => Outcome::success(data, Principal::new("bob", "fake")),
            _ => Outcome::Failure(Failure::new(ReasonCode::NotAuthorized, "as it was told")),
        });
        true
    }

    fn answer_connect(&mut self, argument: u8) {
        if self.broker.known.lock().connects == 0 {
            return;
        }
        if argument > 6 {
            self.conn.refuse(ReasonCode::NotAuthorized);
            return;
        }
        self.conn.accept(Grant {
            client_id: CLIENT.into(),
            assigned: false,
            incarnation: 1,
            session_present: self.persistent && argument > 3,
            persistent: self.persistent,
            expiry_s: u32::from(argument),
            queue_head: self.next_seq,
        });
    }

    fn acknowledge(&mut self, at: usize, verdict: u8) {
        let ticket = {
            let owed = &mut self.broker.known.lock().owed;
            if owed.is_empty() {
                return;
            }
            let at = at % owed.len();
            owed.remove(at)
        };
        self.conn.acknowledge(ticket, VERDICTS[usize::from(verdict) % VERDICTS.len()]);
    }

    fn answer_request(&mut self, at: usize) {
        let request = {
            let requests = &mut self.broker.known.lock().requests;
            if requests.is_empty() {
                return;
            }
            let at = at % requests.len();
            requests.remove(at)
        };
        match request {
            Request::Subscribe(id, codes) => self.conn.subscribed(id, &codes),
            Request::Unsubscribe(id, n) => self.conn.unsubscribed(id, &vec![ReasonCode::Success; n]),
            Request::Release(id) => self.conn.released(id, ReasonCode::Success),
            Request::Dismiss => {
                self.conn.dismiss();
                if self.wire.room.load(Ordering::Relaxed) == usize::MAX {
                    self.conn.flush();
                    assert!(self.wire.finished.load(Ordering::Relaxed), "dismissed, and held");
                }
            }
        }
    }

    fn deliver(&mut self, source: &mut Source<'_>, argument: u8) {
        let qos = QoS::from_u8(argument % 3).unwrap_or_default();
        let publication = publication(source, qos);
        let ids = [1, 200];
        let delivery = Delivery {
            publication: &publication,
            qos,
            retain: argument > 3,
            subscription_ids: &ids[..usize::from(argument) % 3],
            share: (argument > 5).then_some(Share { group: 1, moves: 0 }),
        };
        let now_ms = self.broker.clock_ms();
        self.conn.deliver(&delivery, &OnceCell::new(), now_ms);
    }

    fn deliver_stored(&mut self, source: &mut Source<'_>, argument: u8) {
        let qos = if argument & 1 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let message = publication(source, qos).to_message();
        let now_ms = self.broker.clock_ms();
        if !self.persistent || !self.conn.is_accepted() {
            return;
        }
        let seq = self.next_seq;
        // Some positions are over before anybody sees them.
        self.next_seq += 1 + u64::from(argument == 7);
        let stored = Stored {
            seq,
            message,
            qos,
            retain: false,
            subscription_ids: Vec::new(),
            dup: argument & 2 != 0,
            received: argument & 4 != 0 && qos == QoS::ExactlyOnce,
        };
        let page: Vec<Stored> = {
            let known = &mut *self.broker.known.lock();
            if stored.received {
                known.resumed.insert(seq);
            }
            known.stored.insert(seq, stored);
            known.stored.range(self.conn.next_seq()..).map(|(_, stored)| stored.clone()).collect()
        };
        let taken = self.conn.deliver_stored(&page, now_ms);
        assert!(taken <= page.len());
    }

    fn pass_time(&mut self, ms: u64) {
        self.now_ms += ms;
        self.broker.known.lock().clock_ms += ms;
        if !self.over {
            match turn(|| self.inbound.check(&self.conn, self.now_ms)) {
                None => self.settle(Flow::Over),
                Some(at_ms) => assert!(at_ms > self.now_ms, "to be called again at once"),
            }
        }
    }

    /// The client goes, if it has not yet.
    fn finish(mut self) {
        self.settle(Flow::Over);
        self.conn.flush();
        self.wire.room.store(usize::MAX, Ordering::Relaxed);
        self.conn.writable();
        while !self.broker.known.lock().requests.is_empty() {
            self.answer_request(0);
        }
        self.conn.cut();
        let known = self.broker.known.lock();
        assert_eq!(known.ended, known.connects);
        assert!(known.connects <= 1);
        let sent = self.wire.sent.lock();
        judge(&sent, self.version, self.packet_max, &known.at_least_once);
    }
}

fn publication<'a>(source: &mut Source<'a>, qos: QoS) -> Publication<'a> {
    let expires_at_ms = u64::from(source.u8()) * 100;
    let payload = source.slice();
    let topic = if payload.len().is_multiple_of(2) { "a/b" } else { "a/long/topic/name" };
    Publication { topic, payload, properties: &[], qos, retain: false, expires_at_ms, publisher: "p" }
}

/// What a client must find in the bytes it was sent, the last packet perhaps cut short.
fn judge(mut sent: &[u8], version: Version, packet_max: u32, at_least_once: &[u16]) {
    let mut expected = at_least_once.iter();
    let (mut is_in, mut said_goodbye) = (false, false);
    while let Some(len) = frame_len(sent, packet_max).expect("within the client's maximum")
        && len <= sent.len()
    {
        let packet = decode_from_server(&sent[..len], version);
        let packet = packet.unwrap_or_else(|e| panic!("{e} in {:02X?}", &sent[..len]));
        assert!(!said_goodbye, "{packet:?} after DISCONNECT");
        match packet {
            Packet::ConnAck(_) => assert!(!std::mem::replace(&mut is_in, true), "a second CONNACK"),
            Packet::Auth(_) => {}
            // [MQTT-3.2.0-1]
            _ => assert!(is_in, "{packet:?} before CONNACK"),
        }
        match packet {
            // [MQTT-4.6.0-2]
            Packet::PubAck(ack) => assert_eq!(Some(&ack.packet_id), expected.next()),
            Packet::Disconnect(_) => said_goodbye = true,
            _ => {}
        }
        sent = &sent[len..];
    }
}
