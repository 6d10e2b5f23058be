//! A broker that does as it is told, and a connection without a socket, for tests.

use std::cell::OnceCell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::auth::{Exchange, Failure, Outcome, Principal, Reply};
use crate::mqtt::{self, Connect, Message, Publication, PublishOut, QoS, ReasonCode, Version, encode};
use crate::state::{DeliveryStep, QueueSeq, Stored};

/// A call of the broker, in words.
pub(crate) type Call = String;

/// Answers at once unless told to hold something back.
#[derive(Default)]
pub(crate) struct FakeService {
    pub calls: Mutex<Vec<Call>>,
    pub conns: Mutex<Vec<Arc<Conn>>>,
    pub tickets: Mutex<Vec<(Arc<Conn>, AckTicket)>>,
    pub subscribers: Mutex<Vec<(Arc<Conn>, QoS)>>,
    pub hold_connect: AtomicBool,
    pub hold_acks: AtomicBool,
    pub hold_answers: AtomicBool,
    pub persistent: AtomicBool,
    pub refuse: Mutex<Option<ReasonCode>>,
    /// From where nobody is admitted.
    pub banned: Mutex<Option<IpAddr>>,
    /// Its node lets its clients go.
    pub draining: AtomicBool,
    /// Steps of authentications that the test answers.
    pub verifying: Mutex<Vec<Arc<Conn>>>,
    pub published: AtomicUsize,
    pub clock_ms: AtomicU64,
    /// Do not keep the calls.
    pub quiet: AtomicBool,
}

impl FakeService {
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock())
    }

    pub fn conn(&self) -> Arc<Conn> {
        self.conns.lock().last().expect("nobody has connected").clone()
    }

    pub fn grant(&self, client: &str) -> Grant {
        Grant {
            client_id: client.into(),
            assigned: client == "assigned",
            incarnation: 7,
            session_present: false,
            persistent: self.persistent.load(Ordering::Relaxed),
            expiry_s: 0,
            queue_head: 0,
        }
    }

    fn note(&self, call: impl FnOnce() -> Call) {
        if !self.quiet.load(Ordering::Relaxed) {
            self.calls.lock().push(call());
        }
    }
}

/// An exchange that does what the client says: `more` is answered with a challenge, `late` only by
/// the test, `fat` with much, `i am …` is believed.
pub(crate) struct FakeExchange;

impl FakeExchange {
    pub const METHOD: &'static str = "fake";
    pub const REFUSED: Failure = Failure::new(ReasonCode::NotAuthorized, "not convinced");

    pub fn success(identity: &str) -> Outcome {
        Outcome::success(b"welcome".to_vec(), Principal::new(identity, Self::METHOD))
    }
}

impl Exchange for FakeExchange {
    fn step(self: Box<Self>, data: &[u8], reply: Reply) {
        let text = String::from_utf8_lossy(data);
        reply(match (&*text, text.strip_prefix("i am ")) {
            (_, Some(identity)) => Self::success(identity),
            ("late", _) => return,
            ("more", _) => Outcome::Continue { data: b"prove it".to_vec(), exchange: self },
            ("fat", _) => Outcome::Continue { data: vec![b'x'; 1000], exchange: self },
            _ => Outcome::Failure(Self::REFUSED),
        });
    }
}

impl Service for FakeService {
    fn admits_address(&self, address: IpAddr) -> bool {
        *self.banned.lock() != Some(address)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn authenticate(&self, conn: &Arc<Conn>, step: AuthStep<'_>) {
        self.note(|| match &step {
            AuthStep::Begin { method, data } => format!("begin {method} {}", data.escape_ascii()),
            AuthStep::Continue { data, .. } => format!("continue {}", data.escape_ascii()),
        });
        let (AuthStep::Begin { data, .. } | AuthStep::Continue { data, .. }) = &step;
        if *data == b"late" {
            self.verifying.lock().push(conn.clone());
        }
        let (exchange, data): (Box<dyn Exchange>, _) = match step {
            AuthStep::Continue { exchange, data } => (exchange, data),
            AuthStep::Begin { method: FakeExchange::METHOD, data } => (Box::new(FakeExchange), data),
            AuthStep::Begin { .. } => {
                let failure = Failure::new(ReasonCode::BadAuthenticationMethod, "another method");
                return conn.authenticated(Outcome::Failure(failure));
            }
        };
        let conn = conn.clone();
        exchange.step(data, Box::new(move |outcome| conn.authenticated(outcome)));
    }

    fn connect(&self, conn: &Arc<Conn>, request: &ConnectRequest<'_>) {
        self.note(|| {
            let who = conn.principal().map_or(String::new(), |who| format!(" as {}", who.name));
            format!("connect {} v{:?} expiry {}{who}", request.client_id, request.version, request.expiry_s)
        });
        self.conns.lock().push(conn.clone());
        if let Some(reason) = *self.refuse.lock() {
            conn.refuse(reason);
        } else if !self.hold_connect.load(Ordering::Relaxed) {
            let id = if request.client_id.is_empty() { "assigned" } else { request.client_id };
            conn.accept(Grant { expiry_s: request.expiry_s, ..self.grant(id) });
        }
    }

    fn publish(
        &self,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        expiry_s: Option<u32>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize {
        self.published.fetch_add(1, Ordering::Relaxed);
        self.note(|| {
            format!(
                "publish {} {} q{} id {packet_id} expiry {expiry_s:?}",
                publication.topic,
                publication.payload.escape_ascii(),
                publication.qos as u8
            )
        });
        let shared = OnceCell::new();
        for (subscriber, granted) in &*self.subscribers.lock() {
            let qos = publication.qos.min(*granted);
            let delivery = Delivery { publication, qos, retain: false, subscription_ids: &[], share: None };
            subscriber.deliver(&delivery, &shared, self.clock_ms());
        }
        if let Some(ticket) = ticket {
            if self.hold_acks.load(Ordering::Relaxed) {
                self.tickets.lock().push((conn.clone(), ticket));
            } else {
                conn.acknowledge(ticket, ReasonCode::Success);
            }
        }
        self.subscribers.lock().len()
    }

    fn release(&self, conn: &Arc<Conn>, packet_id: u16) {
        self.note(|| format!("release {packet_id}"));
        if !self.hold_answers.load(Ordering::Relaxed) {
            conn.released(packet_id, ReasonCode::Success);
        }
    }

    fn subscribe(&self, conn: &Arc<Conn>, packet_id: u16, subscription_id: u32, items: &[SubscribeItem<'_>]) {
        self.note(|| {
            let filters: Vec<_> = items.iter().map(|item| item.filter).collect();
            format!("subscribe {packet_id} {subscription_id} {filters:?}")
        });
        if !self.hold_answers.load(Ordering::Relaxed) {
            let codes: Vec<_> = items.iter().map(|item| ReasonCode::granted(item.options.qos)).collect();
            self.subscribers.lock().push((conn.clone(), items[0].options.qos));
            conn.subscribed(packet_id, &codes);
        }
    }

    fn unsubscribe(&self, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]) {
        self.note(|| format!("unsubscribe {packet_id} {filters:?}"));
        conn.unsubscribed(packet_id, &vec![ReasonCode::Success; filters.len()]);
    }

    fn progress(&self, _: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]) {
        self.note(|| format!("progress {steps:?}"));
    }

    fn refused(&self, _: &Arc<Conn>, delivery: Unacknowledged) {
        self.note(|| format!("refused {}", delivery.message.payload.escape_ascii()));
    }

    fn wants_more(&self, _: &Arc<Conn>) {
        self.note(|| "wants more".into());
    }

    fn ended(&self, conn: &Arc<Conn>, why: Ended) {
        self.note(|| format!("ended {why:?}"));
        self.subscribers.lock().retain(|(subscriber, _)| !Arc::ptr_eq(subscriber, conn));
        self.conns.lock().retain(|other| !Arc::ptr_eq(other, conn));
        if matches!(why, Ended::Disconnect { .. }) && !self.hold_answers.load(Ordering::Relaxed) {
            conn.dismiss();
        }
    }

    fn clock_ms(&self) -> u64 {
        self.clock_ms.load(Ordering::Relaxed)
    }

    fn monotonic_ms(&self) -> u64 {
        self.clock_ms()
    }
}

/// A socket with a bounded buffer that nobody empties unless asked.
pub(crate) struct MemoryLink {
    context: Arc<Context>,
    pub bytes: Mutex<Vec<u8>>,
    pub room: AtomicUsize,
    pub wakes: AtomicUsize,
    pub finished: AtomicBool,
}

impl MemoryLink {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            bytes: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
            wakes: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
        })
    }
}

impl Link for MemoryLink {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = self.bytes.lock();
        let n = bytes.len().min(self.room.load(Ordering::Relaxed).saturating_sub(sent.len()));
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        sent.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    fn context(&self) -> &Context {
        &self.context
    }

    fn peer(&self) -> String {
        "memory".into()
    }
}

/// A connection, its client being the test.
pub(crate) struct Harness {
    pub service: Arc<FakeService>,
    pub context: Arc<Context>,
    pub link: Arc<MemoryLink>,
    pub conn: Arc<Conn>,
    pub inbound: Inbound,
    pub now_ms: u64,
    pub version: Version,
}

impl Harness {
    pub fn new(limits: Limits) -> Self {
        let service = Arc::new(FakeService::default());
        let context = Context::new(limits, service.clone());
        let link = MemoryLink::new(context.clone());
        let conn = Conn::new(link.clone());
        Self { service, context, link, conn, inbound: Inbound::new(0), now_ms: 0, version: Version::V5 }
    }

    /// Connected, with the calls and packets of it gone.
    pub fn connected(version: Version, limits: Limits, persistent: bool) -> Self {
        let mut harness = Self::new(limits);
        harness.service.persistent.store(persistent, Ordering::Relaxed);
        harness.connect(&Connect { client_id: "c", clean_start: !persistent, ..Connect::new(version) });
        harness.take();
        harness.service.take_calls();
        harness
    }

    pub fn connect(&mut self, connect: &Connect<'_>) -> Flow {
        self.version = connect.version;
        let bytes = encoded(|buf| encode::connect(buf, connect).expect("fits"));
        self.send(&bytes)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Flow {
        self.inbound.begin_turn();
        let mut flow = turn(|| self.inbound.feed(&self.conn, bytes, self.now_ms));
        while flow == Flow::Yield {
            self.inbound.begin_turn();
            flow = turn(|| self.inbound.feed(&self.conn, &[], self.now_ms));
        }
        flow
    }

    /// What the client has received since, in words.
    pub fn take(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.link.bytes.lock());
        packets(&bytes, self.version)
    }

    pub fn deliver(&self, topic: &str, payload: &[u8], qos: QoS, expires_at_ms: u64) -> Delivered {
        let publication = publication(topic, payload, qos, expires_at_ms);
        let delivery =
            Delivery { publication: &publication, qos, retain: false, subscription_ids: &[], share: None };
        self.conn.deliver(&delivery, &OnceCell::new(), self.service.clock_ms())
    }

    pub fn count(&self, metric: Metric) -> u64 {
        self.context.counters.get(metric)
    }
}

pub(crate) fn publication<'a>(
    topic: &'a str,
    payload: &'a [u8],
    qos: QoS,
    expires_at_ms: u64,
) -> Publication<'a> {
    Publication { topic, payload, properties: &[], qos, retain: false, expires_at_ms, publisher: "p" }
}

pub(crate) fn stored(seq: QueueSeq, payload: &[u8], qos: QoS) -> Stored {
    Stored {
        seq,
        message: publication("s", payload, qos, 0).to_message(),
        qos,
        retain: false,
        subscription_ids: Vec::new(),
        dup: false,
        received: false,
    }
}

pub(crate) fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut buf = Vec::new();
    write(&mut buf);
    buf
}

pub(crate) fn auth_bytes(method: &str, reason: ReasonCode, data: &str) -> Vec<u8> {
    let data = Some(data.as_bytes());
    encoded(|buf| {
        let packet = mqtt::Auth { reason, method: Some(method), data, ..mqtt::Auth::default() };
        assert!(encode::auth(buf, &packet, u32::MAX));
    })
}

pub(crate) fn publish_bytes(
    version: Version,
    topic: &str,
    payload: &[u8],
    qos: QoS,
    packet_id: u16,
) -> Vec<u8> {
    let message: Arc<Message> = publication(topic, payload, qos, 0).to_message();
    let publication = message.borrow();
    encoded(|buf| {
        let publish = PublishOut { packet_id, ..PublishOut::new(version, &publication) };
        encode::publish(buf, &publish).expect("fits");
    })
}

fn authentication(method: Option<&str>, data: Option<&[u8]>) -> String {
    let method = method.map_or(String::new(), |method| format!(" {method}"));
    data.map_or(method.clone(), |data| format!("{method} {}", data.escape_ascii()))
}

/// Puts packets into words that tests can compare.
pub(crate) fn packets(mut bytes: &[u8], version: Version) -> Vec<String> {
    use mqtt::Packet;
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let len = mqtt::frame_len(bytes, u32::MAX).expect("a packet").expect("a whole packet");
        let packet = mqtt::decode_from_server(&bytes[..len], version).expect("a valid packet");
        let name = packet.name();
        all.push(match packet {
            Packet::Publish(p) => format!(
                "PUBLISH {} {} q{} id {}{}{}",
                p.topic,
                p.payload.escape_ascii(),
                p.qos as u8,
                p.packet_id,
                if p.dup { " dup" } else { "" },
                p.expiry_s.map_or(String::new(), |s| format!(" expiry {s}"))
            ),
            Packet::PubAck(a) | Packet::PubRec(a) | Packet::PubRel(a) | Packet::PubComp(a) => {
                format!("{name} {} {:02x}", a.packet_id, a.reason.as_u8())
            }
            Packet::ConnAck(a) => {
                format!("CONNACK {:02x}{}", a.reason.as_u8(), authentication(a.auth_method, a.auth_data))
            }
            Packet::Auth(a) => {
                format!("AUTH {:02x}{}", a.reason.as_u8(), authentication(a.method, a.data))
            }
            Packet::Disconnect(d) => format!("DISCONNECT {:02x}", d.reason.as_u8()),
            Packet::SubAck(a) | Packet::UnsubAck(a) => format!("{name} {}", a.packet_id),
            _ => name.into(),
        });
        bytes = &bytes[len..];
    }
    all
}
