//! A connection without a socket, and a broker that answers at once.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::parley::Parley;

use crate::auth::Exchange;
use crate::mqtt::{Connect, DecodeError, Publication, QoS, ReasonCode, Version, encode};
use crate::session::{
    AckTicket, AuthStep, Conn, ConnectRequest, Context, Delivery, Ended, Flow, Grant, Inbound, Limits, Link,
    Service, SubscribeItem, Unacknowledged, turn,
};
use crate::state::{DeliveryStep, QueueSeq};

pub(super) const CLIENT: &str = "c";

/// The simplest CONNECT.
pub(super) fn connect_bytes(version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    let connect = Connect { client_id: CLIENT, ..Connect::new(version) };
    encode::connect(&mut out, &connect).expect("fits");
    out
}

/// Where the other end of the connection would be.
pub(super) struct Wire {
    context: Arc<Context>,
    pub sent: Mutex<Vec<u8>>,
    /// Bytes that may still be written before the socket would block.
    pub room: AtomicUsize,
    woken: AtomicBool,
    pub finished: AtomicBool,
}

impl Wire {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            sent: Mutex::default(),
            room: AtomicUsize::new(usize::MAX),
            woken: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        })
    }

    pub fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::Relaxed)
    }
}

impl Link for Wire {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.finished.load(Ordering::Relaxed), "written to after its end");
        let room = self.room.load(Ordering::Relaxed);
        let taken = bytes.len().min(room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room.store(room - taken, Ordering::Relaxed);
        self.sent.lock().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Relaxed);
    }

    fn context(&self) -> &Context {
        &self.context
    }

    fn peer(&self) -> String {
        String::new()
    }
}

/// Answers at once, and sends what is published back to whoever has subscribed.
#[derive(Default)]
struct Echo {
    seen: Mutex<Seen>,
}

/// What a broker was told, batches aside.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    calls: Vec<String>,
    steps: Vec<(QueueSeq, DeliveryStep)>,
    granted: Option<QoS>,
}

impl Echo {
    fn note(&self, call: String) {
        self.seen.lock().calls.push(call);
    }
}

impl Service for Echo {
    fn authenticate(&self, conn: &Arc<Conn>, step: AuthStep<'_>) {
        let (exchange, data): (Box<dyn Exchange>, _) = match step {
            AuthStep::Begin { method, data } => {
                self.note(format!("{method:?} {data:?}"));
                (Box::new(Parley), data)
            }
            AuthStep::Continue { exchange, data } => {
                self.note(format!("{data:?}"));
                (exchange, data)
            }
        };
        let conn = conn.clone();
        exchange.step(data, Box::new(move |outcome| conn.authenticated(outcome)));
    }

    fn connect(&self, conn: &Arc<Conn>, request: &ConnectRequest<'_>) {
        self.note(format!("{request:?}"));
        let assigned = request.client_id.is_empty();
        let client_id = if assigned { "assigned".into() } else { request.client_id.into() };
        // Never persistent: acknowledgements of those are recorded per batch.
        conn.accept(Grant {
            client_id,
            assigned,
            incarnation: 1,
            session_present: false,
            persistent: false,
            expiry_s: request.expiry_s,
            queue_head: 0,
        });
    }

    fn publish(
        &self,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        expiry_s: Option<u32>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize {
        self.note(format!("{publication:?} {expiry_s:?} {ticket:?} {packet_id}"));
        let granted = self.seen.lock().granted;
        if let Some(granted) = granted {
            let qos = publication.qos.min(granted);
            let delivery = Delivery {
                publication,
                qos,
                retain: publication.retain,
                subscription_ids: &[1],
                share: None,
            };
            conn.deliver(&delivery, &OnceCell::new(), 0);
        }
        if let Some(ticket) = ticket {
            conn.acknowledge(ticket, ReasonCode::Success);
        }
        usize::from(granted.is_some())
    }

    fn release(&self, _: &Arc<Conn>, packet_id: u16) {
        panic!("PUBREL {packet_id} of a clean session is the connection's business");
    }

    fn subscribe(&self, conn: &Arc<Conn>, packet_id: u16, subscription_id: u32, items: &[SubscribeItem<'_>]) {
        self.note(format!("{packet_id} {subscription_id} {items:?}"));
        self.seen.lock().granted = items.iter().map(|item| item.options.qos).max();
        let codes: Vec<_> = items.iter().map(|item| ReasonCode::granted(item.options.qos)).collect();
        conn.subscribed(packet_id, &codes);
    }

    fn unsubscribe(&self, conn: &Arc<Conn>, packet_id: u16, filters: &[&str]) {
        self.note(format!("{packet_id} {filters:?}"));
        self.seen.lock().granted = None;
        conn.unsubscribed(packet_id, &vec![ReasonCode::Success; filters.len()]);
    }

    fn progress(&self, _: &Arc<Conn>, steps: &[(QueueSeq, DeliveryStep)]) {
        self.seen.lock().steps.extend_from_slice(steps);
    }

    fn refused(&self, _: &Arc<Conn>, _: Unacknowledged) {
        unreachable!("no delivery is one of a shared subscription");
    }

    fn wants_more(&self, _: &Arc<Conn>) {}

    fn ended(&self, conn: &Arc<Conn>, why: Ended) {
        self.note(format!("{why:?}"));
        if matches!(why, Ended::Disconnect { .. }) {
            conn.dismiss();
        }
    }

    fn clock_ms(&self) -> u64 {
        0
    }

    fn monotonic_ms(&self) -> u64 {
        0
    }
}

/// What lies between the bytes of a client and MQTT: nothing, unless it says so.
pub(super) trait Layer {
    fn feed(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound, piece: &mut [u8]) -> Flow {
        inbound.feed(conn, piece, 0)
    }

    fn attend(&mut self, conn: &Arc<Conn>, inbound: &mut Inbound) -> Flow {
        inbound.attend(conn, 0)
    }

    /// As [`Layer::feed`], once the connection is over.
    fn linger(&mut self, _: &Arc<Conn>, _: &mut [u8]) {}
}

struct Plain;

impl Layer for Plain {}

/// A whole connection to a broker that answers at once, after its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fed {
    pub seen: Seen,
    /// What the client was sent.
    pub sent: Vec<u8>,
    pub version: Version,
    pub fault: Option<DecodeError>,
}

impl Fed {
    /// The client sends these pieces and goes.
    pub fn by<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::through(pieces, Plain)
    }

    /// As [`Fed::by`], with something in between that takes the pieces.
    pub fn through<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mut layer: impl Layer) -> Self {
        let echo = Arc::new(Echo::default());
        let context = Context::new(Limits::default(), echo.clone());
        let wire = Wire::new(context);
        let conn = Conn::new(wire.clone());
        let mut inbound = Inbound::new(0);
        let (mut fault, mut lingers) = (None, false);
        for piece in pieces {
            // Of its own and not a byte longer, for a sanitizer to watch.
            let mut piece: Box<[u8]> = piece.into();
            if lingers {
                turn(|| layer.linger(&conn, &mut piece));
                continue;
            }
            inbound.begin_turn();
            let mut flow = turn(|| layer.feed(&conn, &mut inbound, &mut piece));
            while flow == Flow::Yield || (matches!(flow, Flow::Open | Flow::Held) && wire.take_woken()) {
                flow = turn(|| layer.attend(&conn, &mut inbound));
            }
            match flow {
                Flow::Open | Flow::Yield => continue,
                Flow::Held => panic!("held up by a broker that answers at once"),
                Flow::Over => {}
                Flow::Broken(e) => fault = Some(e),
            }
            lingers = true;
            turn(|| inbound.end(&conn));
        }
        let version = conn.version();
        if !lingers {
            turn(|| inbound.end(&conn));
        }
        conn.flush();
        conn.cut();
        let seen = std::mem::take(&mut *echo.seen.lock());
        let sent = std::mem::take(&mut *wire.sent.lock());
        Self { seen, sent, version, fault }
    }
}
