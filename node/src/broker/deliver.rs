//! Delivery on this node: to clean subscribers, and at QoS 0 to the persistent sessions that are
//! online here.

use std::cell::OnceCell;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Broker;
use super::local::{Matches, Subscriber};
use crate::mqtt::{Message, Publication, QoS};
use crate::session::{Conn, Delivered, Delivery, Metric, Share};
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
pub(super) struct Fanout<'a> {
    broker: &'a Broker,
    publication: &'a Publication<'a>,
    owned: OnceCell<Arc<Message>>,
    now_ms: u64,
}

impl<'a> Fanout<'a> {
    pub(super) fn new(broker: &'a Broker, publication: &'a Publication<'a>) -> Self {
        Self { broker, publication, owned: OnceCell::new(), now_ms: broker.clock.now_ms() }
    }

    fn of(broker: &'a Broker, message: &Arc<Message>, publication: &'a Publication<'a>) -> Self {
        Self { owned: OnceCell::from(message.clone()), ..Self::new(broker, publication) }
    }

    fn deliver(&self, conn: &Arc<Conn>, qos: QoS, retain_as_published: bool, ids: &[u32]) -> Delivered {
        let delivery = self.delivery(qos, retain_as_published, ids, None);
        match conn.deliver(&delivery, &self.owned, self.now_ms) {
            Delivered::TooEarly => self.after_retained(conn, &delivery),
            delivered => delivered,
        }
    }

    fn after_retained(&self, conn: &Arc<Conn>, delivery: &Delivery<'_>) -> Delivered {
        self.broker.deliver_after_retained(conn, delivery, &self.owned, self.now_ms)
    }

    fn delivery<'b>(
        &'b self,
        qos: QoS,
        retain_as_published: bool,
        ids: &'b [u32],
        share: Option<Share>,
    ) -> Delivery<'b> {
        Delivery {
            publication: self.publication,
            qos: qos.min(self.publication.qos),
            retain: retain_as_published && self.publication.retain,
            subscription_ids: ids,
            share,
        }
    }

    /// To a member of a shared subscription, or not.
    pub(super) fn offer(&self, member: &Subscriber, share: Option<Share>) -> Result<Delivered, Metric> {
        let options = member.options;
        let delivery = self.delivery(options.qos, options.retain_as_published, ids(&member.id), share);
        match member.conn.offer(&delivery, &self.owned, self.now_ms)? {
            Delivered::TooEarly => Ok(self.after_retained(&member.conn, &delivery)),
            delivered => Ok(delivered),
        }
    }

    fn deliver_to(&self, subscriber: &Subscriber) -> bool {
        let publisher = self.publication.publisher;
        if subscriber.options.no_local && subscriber.conn.client() == publisher {
            return false;
        }
        let options = subscriber.options;
        self.deliver(&subscriber.conn, options.qos, options.retain_as_published, ids(&subscriber.id));
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
            self.deliver(m.conn, m.qos, m.retain_as_published, &m.ids);
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
                fanout.deliver(&conn, QoS::AtMostOnce, *retain_as_published, ids);
            }
        }
        found.len()
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
                fanout.deliver(&conn, QoS::AtMostOnce, retain_as_published, ids);
            }
        }
    }
}
