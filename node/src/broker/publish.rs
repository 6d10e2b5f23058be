//! The two paths of a publish. What must survive goes through the log and is delivered by
//! `apply` on every node; everything else goes straight to the subscribers here and over the
//! forward streams to the nodes that own the others. A publish takes exactly one of them.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::Broker;
use crate::mqtt::{Message, Publication, QoS, ReasonCode, Version, topic};
use crate::peer::forward::{Frame, PeerGone, SendError, Share};
use crate::raft::{Abandoned, Applied};
use crate::session::{AckTicket, Conn, Durability, Ended, Held, Metric, Path, PublishOrder};
use crate::state::{Command, NodeId, Outcome, PublishMatch, SharedMatch};

/// Where a publish goes.
struct Plan {
    path: Path,
    nodes: SmallVec<[NodeId; 8]>,
    /// Shared subscriptions of clean members only: the filter and the node picked.
    shared: SmallVec<[(Arc<str>, NodeId); 1]>,
}

impl Broker {
    /// Takes over a publish of a client: routes it now, or after the publisher's earlier ones.
    /// Returns how many deliveries were made here and now.
    pub(super) fn publish_from(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        publication: &Publication<'_>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize {
        if topic::is_servers(publication.topic) {
            answer(conn, ticket, ReasonCode::NotAuthorized);
            return 0;
        }
        let plan = self.plan(conn, publication);
        let lapsed = ticket.is_some() && !self.may_acknowledge_as(conn, &plan);
        let mut order = conn.publish_order().lock();
        if order.as_deref().is_some_and(PublishOrder::is_over)
            || self.refused(conn, &mut order, ticket, lapsed)
        {
            return 0;
        }
        self.fence(conn, &mut order, plan.path);
        let held = order.as_deref().is_some_and(|o| !o.admits(plan.path));
        if lapsed && !self.drain_when_leased(conn, publication.payload.len()) {
            refuse(conn, &mut order, ticket);
            return 0;
        }
        if held || lapsed {
            let message = publication.to_message();
            let order = order.get_or_insert_default();
            if !order.hold(Held { message, ticket, packet_id, epoch: self.epoch() }) {
                conn.context().counters.increment(Metric::DroppedOutboxFull);
            }
            return 0;
        }
        self.send(conn, &mut order, &plan, publication, ticket, packet_id)
    }

    /// Routes what waited for the publisher's earlier messages, as far as it may go.
    pub(super) fn drain_held(self: &Arc<Self>, conn: &Arc<Conn>) {
        let mut order = conn.publish_order().lock();
        while let Some(held) = order.as_mut().and_then(|o| o.next_held()) {
            // Of a life that is over: what went before it is void, and its client was told so.
            if held.epoch != self.epoch() {
                continue;
            }
            let publication = held.message.borrow();
            let plan = self.plan(conn, &publication);
            let lapsed = held.ticket.is_some() && !self.may_acknowledge_as(conn, &plan);
            if self.refused(conn, &mut order, held.ticket, lapsed) {
                continue;
            }
            if lapsed {
                // Nobody may have known of the lapse when this was read: only the end of it will call
                // for it again.
                if self.drain_when_leased(conn, 0) {
                    order.get_or_insert_default().put_back(held);
                    return;
                }
                refuse(conn, &mut order, held.ticket);
                continue;
            }
            self.fence(conn, &mut order, plan.path);
            if !order.as_deref().is_none_or(|o| o.admits_held(plan.path)) {
                order.get_or_insert_default().put_back(held);
                return;
            }
            self.send(conn, &mut order, &plan, &publication, held.ticket, held.packet_id);
        }
        if order.as_deref().is_none_or(PublishOrder::is_settled) {
            conn.publishes_settled();
        }
    }

    /// Refuses an acknowledged publish for want of a lease: for its own, `lapsed`, or for that of one
    /// before it of which the publisher may not have heard yet.
    fn refused(
        &self,
        conn: &Arc<Conn>,
        order: &mut Option<Box<PublishOrder>>,
        ticket: Option<AckTicket>,
        lapsed: bool,
    ) -> bool {
        let follows = || {
            ticket.is_some()
                && order.as_deref().is_some_and(PublishOrder::has_refused)
                && conn.follows_refused()
        };
        if lapsed {
            let is_refused = !self.is_patient() || follows();
            if is_refused {
                refuse(conn, order, ticket);
            }
            return is_refused;
        }
        // What a node without a lease serves all the same has nothing to do with what it does not.
        let is_refused = follows() && self.may_acknowledge();
        if is_refused {
            answer(conn, ticket, ReasonCode::UnspecifiedError);
        }
        is_refused
    }

    /// Whether this node may acknowledge a publish with this plan: it has its lease, or nobody but
    /// clean sessions of its own has to do with it and the operator wants that.
    fn may_acknowledge_as(&self, conn: &Conn, plan: &Plan) -> bool {
        self.may_acknowledge() || (self.serves_its_own() && !conn.is_persistent() && self.is_only_here(plan))
    }

    fn is_only_here(&self, plan: &Plan) -> bool {
        let me = self.wiring().map_or(0, |w| w.me);
        plan.path == Path::Direct && plan.nodes.is_empty() && plan.shared.iter().all(|(_, node)| *node == me)
    }

    /// Decides a publish's path and its targets beyond this node.
    fn plan(&self, conn: &Conn, publication: &Publication<'_>) -> Plan {
        let me = self.wiring().map_or(0, |w| w.me);
        let mut found = PublishMatch::default();
        self.state().match_publish(publication.topic, publication.publisher, publication.qos, &mut found);
        found.nodes.retain(|node| *node != me);
        let at_least_once = publication.qos != QoS::AtMostOnce;
        let exactly_once = publication.qos == QoS::ExactlyOnce && conn.is_persistent();
        let mut shared = SmallVec::new();
        for SharedMatch { filter, nodes } in found.shared {
            if let Some(node) = self.choose_node(&filter, &nodes, publication) {
                shared.push((filter, node));
            }
        }
        // A live owner that cannot be reached gets the publish through the log.
        let unreachable = at_least_once
            && self.wiring().is_some_and(|w| {
                let mut targets =
                    found.nodes.iter().chain(shared.iter().map(|(_, node)| node).filter(|n| **n != me));
                targets.any(|node| !w.forwarder.is_up(*node))
            });
        let logged = publication.retain || found.must_log || exactly_once || unreachable;
        Plan { path: if logged { Path::Log } else { Path::Direct }, nodes: found.nodes, shared }
    }

    fn send(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        order: &mut Option<Box<PublishOrder>>,
        plan: &Plan,
        publication: &Publication<'_>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) -> usize {
        match plan.path {
            Path::Log => {
                self.send_logged(conn, order, publication, ticket, packet_id);
                0
            }
            Path::Direct => self.send_direct(conn, order, plan, publication, ticket),
        }
    }

    fn send_logged(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        order: &mut Option<Box<PublishOrder>>,
        publication: &Publication<'_>,
        ticket: Option<AckTicket>,
        packet_id: u16,
    ) {
        if self.refuses_writes() || self.wiring().is_none_or(|w| w.proposer.is_congested()) {
            return answer(conn, ticket, ReasonCode::QuotaExceeded);
        }
        order.get_or_insert_default().log_started();
        let exactly_once = (publication.qos == QoS::ExactlyOnce && conn.is_persistent())
            .then(|| (conn.incarnation(), packet_id));
        let message = publication.to_message();
        // 3.x has no way to say no but to close, and QoS 0 none at all; and who is answered before
        // the cluster has decided is told yes.
        let durability = conn.durability();
        let or_refuse = ticket.is_some() && conn.version() == Version::V5 && durability == Durability::Quorum;
        let command = Command::Publish { message: message.clone(), exactly_once, or_refuse };
        let (broker, publisher) = (self.clone(), conn.clone());
        let done = Box::new(move |result: Result<Applied, Abandoned>| {
            // This life of the node is over, and with it the connection. The caller of
            // `propose` may hold the publisher's order.
            let Ok(applied) = result else { return };
            if let Some(order) = publisher.publish_order().lock().as_mut() {
                order.log_ended(applied.at.index);
            }
            broker.logged(&publisher, &applied, ticket, &message);
            broker.drain_held(&publisher);
        });
        match durability {
            Durability::Quorum => self.propose(command, done),
            // `done` answers again, which is one answer too late to count.
            Durability::Leader => {
                let (broker, conn) = (self.clone(), conn.clone());
                let stored = move || broker.acknowledge(&conn, ticket, ReasonCode::Success);
                self.propose_stored(command, Box::new(stored), done);
            }
            Durability::Memory => {
                self.propose(command, done);
                self.acknowledge(conn, ticket, ReasonCode::Success);
            }
        }
    }

    /// A logged publish has been applied here.
    fn logged(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        applied: &Applied,
        ticket: Option<AckTicket>,
        message: &Message,
    ) {
        let Some(ticket) = ticket else { return };
        let reason = match applied.outcome {
            Outcome::Stale => return conn.close(Ended::TakenOver, ReasonCode::SessionTakenOver),
            Outcome::Refused => return conn.acknowledge(ticket, ReasonCode::QuotaExceeded),
            // A retained message is kept for those to come.
            Outcome::Published { matched: 0, duplicate: false }
                if !message.retain && !self.has_unqueued_subscribers(message) =>
            {
                ReasonCode::NoMatchingSubscribers
            }
            _ => ReasonCode::Success,
        };
        if !message.retain {
            return conn.acknowledge(ticket, reason);
        }
        // Any SUBSCRIBE sent after this acknowledgement, to any node, must see the retained message.
        let conn = conn.clone();
        self.when_applied_everywhere(applied.at.index, move |life_goes_on| {
            if life_goes_on {
                conn.acknowledge(ticket, reason);
            }
        });
    }

    /// Whether anybody gets a logged message without having it queued in a session.
    pub(super) fn has_unqueued_subscribers(&self, message: &Message) -> bool {
        let mut found = PublishMatch::default();
        self.state().match_publish(&message.topic, &message.publisher, message.qos, &mut found);
        found.must_log || !found.nodes.is_empty() || !found.shared.is_empty()
    }

    fn send_direct(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        order: &mut Option<Box<PublishOrder>>,
        plan: &Plan,
        publication: &Publication<'_>,
        ticket: Option<AckTicket>,
    ) -> usize {
        let Some(wiring) = self.wiring() else { return 0 };
        let made = self.deliver_here(publication);
        let mut taken = made > 0;
        let pending = Arc::new(PendingForward {
            remaining: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
            conn: conn.clone(),
            ticket,
        });
        let lane = lane_of(conn);
        let barrier = order.as_deref().map_or(0, PublishOrder::barrier);
        let targets = plan.nodes.iter().map(|node| (*node, None));
        // The copy that outlives this call, shared by all the groups.
        let copy = OnceCell::new();
        let shared = plan.shared.iter().map(|(filter, node)| (*node, Some(Share::new(filter))));
        for (node, share) in targets.chain(shared) {
            if node == wiring.me {
                taken |= share.is_some_and(|share| self.deliver_shared(share, publication));
                continue;
            }
            let frame = Frame { publication: *publication, barrier, share };
            if ticket.is_none() {
                // QoS 0 is counted by the forwarder when it has to be dropped.
                if wiring.forwarder.send(node, lane, frame, None).is_ok() {
                    order.get_or_insert_default().forwarded_unconfirmed(node);
                }
                taken = true;
                continue;
            }
            pending.remaining.fetch_add(1, Ordering::Relaxed);
            let (broker, waiting) = (self.clone(), pending.clone());
            // At QoS 2 a member may have it [MQTT-4.8.2-5].
            let again = share.filter(|_| publication.qos == QoS::AtLeastOnce).map(|share| {
                let filter: Box<str> = share.filter.into();
                (filter, Arc::clone(copy.get_or_init(|| publication.to_message())))
            });
            let done = Box::new(move |result: Result<(), PeerGone>| {
                // Taken over, or the owner's life is over and its clean subscribers with it: another
                // member gets what was for one of them.
                if let (Err(PeerGone), Some((filter, message))) = (result, again) {
                    broker.reassign(&filter, &message);
                }
                broker.forward_ended(&waiting);
            });
            match wiring.forwarder.send(node, lane, frame, Some(done)) {
                Ok(()) => taken = true,
                // Its life is over, and its clean subscribers with it.
                Err(SendError::PeerGone) => {
                    pending.remaining.fetch_sub(1, Ordering::Relaxed);
                    taken |= share.is_some_and(|share| self.pass_on(share, publication, None));
                }
                Err(SendError::Congested | SendError::TooLarge) => {
                    pending.remaining.fetch_sub(1, Ordering::Relaxed);
                    pending.failed.store(true, Ordering::Relaxed);
                }
            }
        }
        if ticket.is_none() {
            return made;
        }
        if pending.remaining.load(Ordering::Acquire) == 1 {
            let refused = pending.failed.load(Ordering::Relaxed) && !taken;
            let reason = match (taken, refused) {
                (true, _) => ReasonCode::Success,
                (false, true) => ReasonCode::QuotaExceeded,
                (false, false) => ReasonCode::NoMatchingSubscribers,
            };
            if taken && self.may_acknowledge_as(conn, plan) {
                answer(conn, ticket, reason);
            } else {
                self.acknowledge(conn, ticket, reason);
            }
            return made;
        }
        order.get_or_insert_default().forward_started();
        // Completion runs on another thread and takes this publisher's order, which the caller
        // of this function holds: it cannot overtake `forward_started`.
        if pending.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            order.get_or_insert_default().forward_ended();
            self.acknowledge(conn, ticket, ReasonCode::Success);
        }
        made
    }

    /// Before something is logged: asks the nodes that got forwards at QoS 0 to say when they
    /// have delivered them, since the log would overtake them [MQTT-4.6.0-6]. Where that cannot
    /// be asked, so that they may have been dropped too, nothing is waited for.
    fn fence(self: &Arc<Self>, conn: &Arc<Conn>, order: &mut Option<Box<PublishOrder>>, path: Path) {
        let (Path::Log, Some(order), Some(wiring)) = (path, order, self.wiring()) else { return };
        for node in order.take_unconfirmed() {
            let (broker, waiting) = (self.clone(), conn.clone());
            let done = Box::new(move |_: Result<(), PeerGone>| {
                if let Some(order) = waiting.publish_order().lock().as_mut() {
                    order.forward_ended();
                }
                broker.drain_held(&waiting);
            });
            if wiring.forwarder.send(node, lane_of(conn), Frame::FENCE, Some(done)).is_ok() {
                order.forward_started();
            }
        }
    }

    /// One of a publish's forwards is over; the last one acknowledges.
    fn forward_ended(self: &Arc<Self>, pending: &PendingForward) {
        if pending.remaining.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if let Some(order) = pending.conn.publish_order().lock().as_mut() {
            order.forward_ended();
        }
        self.acknowledge(&pending.conn, pending.ticket, ReasonCode::Success);
        self.drain_held(&pending.conn);
    }

    /// Acknowledges what did not go through the log, as soon as this node may speak for the cluster;
    /// says no if that takes too long.
    fn acknowledge(self: &Arc<Self>, conn: &Arc<Conn>, ticket: Option<AckTicket>, reason: ReasonCode) {
        if self.may_acknowledge() {
            answer(conn, ticket, reason);
        } else if ticket.is_some() && self.is_patient() {
            let conn = conn.clone();
            self.when_leased(0, move |broker, _| {
                let certain = broker.may_acknowledge();
                answer(&conn, ticket, if certain { reason } else { ReasonCode::UnspecifiedError });
            });
        } else {
            answer(conn, ticket, ReasonCode::UnspecifiedError);
        }
    }
}

/// Publishers spread over the lanes; each keeps to its own.
fn lane_of(conn: &Conn) -> u16 {
    conn.id() as u16
}

/// Answers a publish at QoS 1 or 2. A 3.x acknowledgement cannot say no: the connection then ends.
fn answer(conn: &Arc<Conn>, ticket: Option<AckTicket>, reason: ReasonCode) {
    if let Some(ticket) = ticket {
        conn.acknowledge(ticket, reason);
    }
}

/// Refuses a publish for want of a lease.
fn refuse(conn: &Arc<Conn>, order: &mut Option<Box<PublishOrder>>, ticket: Option<AckTicket>) {
    if let Some(ticket) = ticket {
        order.get_or_insert_default().note_refused();
        conn.refuse_publish(ticket, ReasonCode::UnspecifiedError);
    }
}

/// A direct publish at QoS 1 or 2 whose remote owners have not all taken it over.
struct PendingForward {
    /// Forwards under way, and one for the sender while it is still sending.
    remaining: AtomicUsize,
    /// A forward could not be queued.
    failed: AtomicBool,
    conn: Arc<Conn>,
    ticket: Option<AckTicket>,
}
