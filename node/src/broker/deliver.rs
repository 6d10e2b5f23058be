//! Delivery on this node: to clean subscribers, to shared subscriptions' members here, and at
//! QoS 0 to the persistent sessions that are online here.

use std::cell::OnceCell;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Broker;
use super::local::{Matches, Subscriber};
use crate::env;
use crate::mqtt::{Message, Publication, QoS};
use crate::peer::forward::{Frame, Waiting};
use crate::session::{Conn, Delivered, Delivery};
use crate::state::AtQos0;

/// A publish's deliveries to one connection, its overlapping subscriptions merged: the highest
/// QoS, and the identifiers of all of them [MQTT-3.3.4-2].
struct Merged<'a> {
    conn: &'a Arc<Conn>,
    qos: QoS,
    retain_as_published: bool,
    ids: SmallVec<[u32; 2]>,
}

/// The subscription identifiers of one subscription.
pub(super) fn ids(id: &u32) -> &[u32] {
    if *id == 0 { &[] } else { std::slice::from_ref(id) }
}

/// One message on its way to many: what has to wait somewhere shares one owned copy.
struct Fanout<'a> {
    broker: &'a Broker,
    publication: &'a Publication<'a>,
    owned: OnceCell<Arc<Message>>,
    now_ms: u64,
}

impl<'a> Fanout<'a> {
    fn new(broker: &'a Broker, publication: &'a Publication<'a>) -> Self {
        Self { broker, publication, owned: OnceCell::new(), now_ms: broker.clock.now_ms() }
    }

    fn of(broker: &'a Broker, message: &Arc<Message>, publication: &'a Publication<'a>) -> Self {
        Self { owned: OnceCell::from(message.clone()), ..Self::new(broker, publication) }
    }

    fn deliver(
        &self,
        conn: &Arc<Conn>,
        qos: QoS,
        retain_as_published: bool,
        ids: &[u32],
        group: u32,
    ) -> Delivered {
        let delivery = Delivery {
            publication: self.publication,
            qos: qos.min(self.publication.qos),
            retain: retain_as_published && self.publication.retain,
            subscription_ids: ids,
            group,
        };
        match conn.deliver(&delivery, &self.owned, self.now_ms) {
            Delivered::TooEarly => {
                self.broker.deliver_after_retained(conn, &delivery, &self.owned, self.now_ms)
            }
            delivered => delivered,
        }
    }

    fn deliver_to(&self, subscriber: &Subscriber) -> bool {
        let publisher = self.publication.publisher;
        if subscriber.options.no_local && subscriber.conn.client() == publisher {
            return false;
        }
        let options = subscriber.options;
        self.deliver(&subscriber.conn, options.qos, options.retain_as_published, ids(&subscriber.id), 0);
        true
    }

    /// Delivers to everyone found in the index; how many subscriptions there were.
    fn deliver_to_all(&self, matches: &Matches) -> usize {
        if let [only] = matches.as_slice() {
            return only.as_slice().iter().filter(|s| self.deliver_to(s)).count();
        }
        let mut all: SmallVec<[&Subscriber; 16]> = matches.iter().flat_map(|m| m.as_slice()).collect();
        all.sort_by_key(|s| s.conn.id());
        let mut merged: Option<Merged<'_>> = None;
        let mut taken = 0;
        for s in all {
            let own = s.conn.client() == self.publication.publisher;
            if s.options.no_local && own {
                continue;
            }
            taken += 1;
            match &mut merged {
                Some(m) if m.conn.id() == s.conn.id() => {
                    m.qos = m.qos.max(s.options.qos);
                    m.retain_as_published |= s.options.retain_as_published;
                    m.ids.extend((s.id != 0).then_some(s.id));
                }
                _ => {
                    self.deliver_merged(merged.take());
                    merged = Some(Merged {
                        conn: &s.conn,
                        qos: s.options.qos,
                        retain_as_published: s.options.retain_as_published,
                        ids: (s.id != 0).then_some(s.id).into_iter().collect(),
                    });
                }
            }
        }
        self.deliver_merged(merged);
        taken
    }

    fn deliver_merged(&self, merged: Option<Merged<'_>>) {
        if let Some(m) = merged {
            self.deliver(m.conn, m.qos, m.retain_as_published, &m.ids, 0);
        }
    }
}

impl Broker {
    /// Delivers a publish that does not go through the log to its subscribers on this node; how
    /// many subscriptions there were. Persistent sessions get it at QoS 0 or not at all: what they are to
    /// get at QoS 1 or 2 takes the log.
    pub(super) fn deliver_here(&self, publication: &Publication<'_>) -> usize {
        let fanout = Fanout::new(self, publication);
        let matches = self.local.read().matches(publication.topic);
        let clean = fanout.deliver_to_all(&matches);
        clean + self.deliver_online_qos0(publication)
    }

    /// Delivers to the persistent sessions owned here whose subscription makes this publish QoS 0;
    /// how many there were.
    fn deliver_online_qos0(&self, publication: &Publication<'_>) -> usize {
        let Some(wiring) = self.wiring() else { return 0 };
        let mut found: SmallVec<[_; 4]> = SmallVec::new();
        self.state().online_qos0(
            publication.topic,
            wiring.me,
            publication.publisher,
            publication.qos,
            |client, ids, retain_as_published| {
                found.push((client.clone(), SmallVec::<[u32; 2]>::from_slice(ids), retain_as_published));
            },
        );
        let fanout = Fanout::new(self, publication);
        for (client, ids, retain_as_published) in &found {
            if let Some(conn) = self.clients.get(client) {
                fanout.deliver(&conn, QoS::AtMostOnce, *retain_as_published, ids, 0);
            }
        }
        found.len()
    }

    /// Delivers to one member of a shared subscription on this node, to the next where the first
    /// cannot take it; whether one did. Members are the clean sessions here and, where it comes
    /// to QoS 0, the persistent ones that are online.
    pub(super) fn deliver_to_member(&self, filter: &str, publication: &Publication<'_>) -> bool {
        let Some(wiring) = self.wiring() else { return false };
        let mut online: SmallVec<[(Arc<str>, u32, bool); 4]> = SmallVec::new();
        self.state().online_shared_qos0(filter, wiring.me, publication.qos, |client, id, as_published| {
            online.push((client.clone(), id, as_published));
        });
        let turn = self.local.read().take_turn(filter);
        let (clean, first) = turn.unwrap_or_else(|| (0, env::random_u64() as usize));
        let members = clean + online.len();
        let fanout = Fanout::new(self, publication);
        (0..members).map(|n| first.wrapping_add(n) % members).any(|at| {
            let delivered =
                if let Some((client, id, as_published)) = at.checked_sub(clean).map(|at| &online[at]) {
                    let Some(conn) = self.clients.get(client) else { return false };
                    fanout.deliver(&conn, QoS::AtMostOnce, *as_published, ids(id), 0)
                } else {
                    let Some((m, group)) = self.local.read().member(filter, at) else { return false };
                    fanout.deliver(&m.conn, m.options.qos, m.options.retain_as_published, ids(&m.id), group)
                };
            delivered != Delivered::Dropped
        })
    }

    /// What a lost member of shared subscriptions had not acknowledged, with their filters: at
    /// QoS 1 only, at QoS 2 it might have arrived [MQTT-4.8.2-4, MQTT-4.8.2-5].
    pub(super) fn unacknowledged_shared(&self, conn: &Conn) -> Vec<(Box<str>, Arc<Message>)> {
        let lost = conn.take_unacknowledged().into_iter().filter(|lost| lost.qos == QoS::AtLeastOnce);
        let local = self.local.read();
        lost.filter_map(|lost| Some((local.group_filter(lost.group)?, lost.message))).collect()
    }

    /// Gives it to another member, on this node or the next that has one.
    pub(super) fn reassign(&self, filter: &str, message: &Arc<Message>) {
        let Some(wiring) = self.wiring() else { return };
        let publication = message.borrow();
        if self.deliver_to_member(filter, &publication) {
            return;
        }
        let nodes = self.state().route_nodes(filter);
        for node in nodes.into_iter().filter(|node| *node != wiring.me) {
            let frame = Frame { publication, barrier: 0, share: Some(filter) };
            // With an end to be told of, it is carried as reliably as any QoS 1.
            if wiring.forwarder.send(node, 0, frame, Waiting::Patiently(Box::new(|_| {}))).is_ok() {
                return;
            }
        }
    }

    /// Delivers a message that went through the log to the subscribers found while it was applied:
    /// the clean ones here, and at QoS 0 the persistent sessions that are online here.
    pub(super) fn deliver_logged(&self, message: &Arc<Message>, matches: &Matches, online: &[AtQos0]) {
        let publication = message.borrow();
        let fanout = Fanout::of(self, message, &publication);
        fanout.deliver_to_all(matches);
        for to in online {
            if let Some(conn) = self.clients.get(&to.client).filter(|conn| conn.is_persistent()) {
                let (ids, retain_as_published) = (&to.subscription_ids, to.retain_as_published);
                fanout.deliver(&conn, QoS::AtMostOnce, retain_as_published, ids, 0);
            }
        }
    }
}
