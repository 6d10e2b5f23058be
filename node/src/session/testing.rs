//! A broker that does as it is told, and a connection without a socket, for tests.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;
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

impl Service for FakeService {
    fn connect(&self, conn: &Arc<Conn>, request: &ConnectRequest<'_>) {
        self.note(|| {
            format!("connect {} v{:?} expiry {}", request.client_id, request.version, request.expiry_s)
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
    ) {
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
            let delivery = Delivery { publication, qos, retain: false, subscription_ids: &[], group: 0 };
            subscriber.deliver(&delivery, &shared, self.clock_ms());
        }
        if let Some(ticket) = ticket {
            if self.hold_acks.load(Ordering::Relaxed) {
                self.tickets.lock().push((conn.clone(), ticket));
            } else {
                conn.acknowledge(ticket, ReasonCode::Success);
            }
        }
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
}

/// A socket with a bounded buffer that nobody empties unless asked.
pub(crate) struct MemoryLink {
    context: Arc<Context>,
    pub bytes: Mutex<Vec<u8>>,
    pub room: AtomicUsize,
    pub wakes: AtomicUsize,
    pub finished: AtomicBool,
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
        let link = Arc::new(MemoryLink {
            context: context.clone(),
            bytes: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
            wakes: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
        });
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
        turn(|| self.inbound.feed(&self.conn, bytes, self.now_ms))
    }

    /// What the client has received since, in words.
    pub fn take(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.link.bytes.lock());
        packets(&bytes, self.version)
    }

    pub fn deliver(&self, topic: &str, payload: &[u8], qos: QoS, expires_at_ms: u64) -> Delivered {
        let publication = publication(topic, payload, qos, expires_at_ms);
        let delivery =
            Delivery { publication: &publication, qos, retain: false, subscription_ids: &[], group: 0 };
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
            Packet::ConnAck(a) => format!("CONNACK {:02x}", a.reason.as_u8()),
            Packet::Disconnect(d) => format!("DISCONNECT {:02x}", d.reason.as_u8()),
            Packet::SubAck(a) | Packet::UnsubAck(a) => format!("{name} {}", a.packet_id),
            _ => name.into(),
        });
        bytes = &bytes[len..];
    }
    all
}
