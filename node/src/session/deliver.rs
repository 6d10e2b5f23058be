//! Messages towards a client: the window of QoS 1 and 2, what waits for room in it, and the
//! encoding per receiver.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use super::aliases::Aliases;
use super::outbound::{Flags, Outbound};
use super::window::{Awaits, Unacknowledged, Window, packet_id_of};
use super::{Conn, Limits, Metric};
use crate::mqtt::{Message, Publication, PublishOut, QoS, ReasonCode, Version, encode};
use crate::state::{DeliveryStep, QueueSeq, Stored};

/// One message for one client.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub publication: &'a Publication<'a>,
    /// The lower of the published and the granted QoS [MQTT-3.8.4-8].
    pub qos: QoS,
    pub retain: bool,
    pub subscription_ids: &'a [u32],
    /// The delivery is to a member of a shared subscription, and its message is kept for another
    /// member until this one acknowledges it.
    pub share: Option<Share>,
}

/// What a delivery to a member of a shared subscription carries for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which shared subscription: the caller's number.
    pub group: u32,
    /// How often the message was passed on because somebody refused it or could not take it.
    pub moves: u8,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// In the outbox.
    Sent,
    /// Waits for room in the client's window.
    Queued,
    /// Not delivered, and counted with its reason.
    Dropped,
    /// Not delivered: a retained message of the topic is still to come and goes first, see
    /// [`Conn::deliver_after_retained`].
    TooEarly,
}

/// A delivery of a clean session that waits for room.
#[derive(Debug)]
struct Waiting {
    message: Arc<Message>,
    subscription_ids: Box<[u32]>,
    share: Option<Share>,
    qos: QoS,
    retain: bool,
}

impl Waiting {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.message.size_bytes()
    }
}

/// What is kept of deliveries to one client.
#[derive(Debug)]
pub(super) struct Sending {
    window: Window,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    aliases: Option<Box<Aliases>>,
    /// Stored deliveries that are over without having been sent; not yet reported.
    passed_over: Vec<QueueSeq>,
    /// The window's positions are those of the replicated queue.
    stored: bool,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            window: Window::starting_at(0),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            aliases: None,
            passed_over: Vec::new(),
            stored: false,
        }
    }
}

impl Sending {
    pub fn stored_from(head: QueueSeq) -> Self {
        Self { window: Window::starting_at(head), stored: true, ..Self::default() }
    }

    pub fn has_room(&self, maximum: u16) -> bool {
        self.window.has_room(maximum)
    }

    /// Whether a delivery could be sent without waiting for others.
    pub fn has_room_at_once(&self, maximum: u16) -> bool {
        self.waiting.is_empty() && self.has_room(maximum)
    }

    pub fn is_idle(&self) -> bool {
        !self.stored && self.window.is_empty() && self.waiting.is_empty() && self.aliases.is_none()
    }
}

/// An acknowledgement by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAck {
    Ack,
    Rec,
    Comp,
}

/// How a message is to be written.
struct Form<'a> {
    publication: &'a Publication<'a>,
    subscription_ids: &'a [u32],
    qos: QoS,
    retain: bool,
    dup: bool,
    packet_id: u16,
}

fn is_expired(expires_at_ms: u64, now_ms: u64) -> bool {
    expires_at_ms != 0 && expires_at_ms <= now_ms
}

/// What is left of a message's life [MQTT-3.3.2-6], rounded to the nearest second: up, it could
/// exceed what the publisher said, where the clock of its node is ahead of ours. What is still
/// alive is not sent as dead.
fn left_s(left_ms: u64) -> u32 {
    let nearest = left_ms.saturating_add(500) / 1000;
    u32::try_from(nearest).unwrap_or(u32::MAX).max(u32::from(left_ms > 0))
}

/// Appends a PUBLISH. False: it is larger than the client takes, or than MQTT can say; nothing
/// was appended [MQTT-3.1.2-24].
fn append_publish(out: &mut Outbound, version: Version, form: &Form<'_>, now_ms: u64) -> bool {
    let publication = form.publication;
    let mut publish = PublishOut {
        version,
        message: publication,
        qos: form.qos,
        dup: form.dup,
        retain: form.retain,
        packet_id: form.packet_id,
        subscription_ids: form.subscription_ids,
        topic_alias: None,
        expiry_s: (publication.expires_at_ms != 0)
            .then(|| left_s(publication.expires_at_ms.saturating_sub(now_ms))),
    };
    if out.alias_maximum > 0 {
        let maximum = out.alias_maximum;
        let aliases = out.sending().aliases.get_or_insert_default();
        publish.topic_alias = aliases.choose(publication.topic, maximum);
    }
    let maximum = out.maximum_packet;
    let fits =
        |publish: &PublishOut<'_>| maximum == u32::MAX || encode::publish_len(publish) <= maximum as usize;
    if !fits(&publish) {
        // A new alias saves bytes next time and costs some now.
        let is_new = publish.topic_alias.is_some_and(|(_, is_new)| is_new);
        publish.topic_alias = publish.topic_alias.filter(|_| !is_new);
        if !is_new || !fits(&publish) {
            return false;
        }
    }
    if encode::publish(out.publish_buffer(form.retain), &publish).is_err() {
        return false;
    }
    out.packets = out.packets.saturating_add(1);
    if let Some((alias, true)) = publish.topic_alias
        && let Some(aliases) = &mut out.sending().aliases
    {
        aliases.assign(publication.topic, alias);
    }
    true
}

impl Conn {
    /// Delivers to a clean session, or at QoS 0 to any. `shared` holds, or is given on demand, the
    /// owned form of the message, so that all queues it waits in share one copy. `now_ms` is the
    /// cluster's clock. Dropped: expired; QoS 0 while the outbox is above its bound; QoS 1 and 2
    /// while the queue is full; larger than the client takes; not accepted yet, or closing; QoS 1
    /// and 2 to a persistent session, whose deliveries come by [`Conn::deliver_stored`].
    pub fn deliver(
        self: &Arc<Self>,
        delivery: &Delivery<'_>,
        shared: &OnceCell<Arc<Message>>,
        now_ms: u64,
    ) -> Delivered {
        let delivered = self.attempt(delivery, shared, now_ms);
        self.count(delivered)
    }

    /// As [`Conn::deliver`], for a message that somebody else may get instead.
    ///
    /// # Errors
    /// It was not delivered, and not counted: as what it would be.
    pub fn offer(
        self: &Arc<Self>,
        delivery: &Delivery<'_>,
        shared: &OnceCell<Arc<Message>>,
        now_ms: u64,
    ) -> Result<Delivered, Metric> {
        let delivered = self.attempt(delivery, shared, now_ms)?;
        Ok(self.count(Ok(delivered)))
    }

    fn attempt(
        self: &Arc<Self>,
        delivery: &Delivery<'_>,
        shared: &OnceCell<Arc<Message>>,
        now_ms: u64,
    ) -> Result<Delivered, Metric> {
        if is_expired(delivery.publication.expires_at_ms, now_ms) {
            return Err(Metric::DroppedExpired);
        }
        let stored = self.is_persistent() && delivery.qos != QoS::AtMostOnce;
        if stored || !self.is_accepted() {
            return Err(Metric::DroppedClosed);
        }
        self.with_out(|out| {
            // A publish with RETAIN has replaced what was to come.
            let is_newer = !delivery.publication.retain;
            if is_newer && out.replays().is_some_and(|replays| replays.is_ahead(delivery.publication.topic)) {
                return Ok(Delivered::TooEarly);
            }
            self.append(out, delivery, shared, now_ms)
        })
    }

    /// How many deliveries at QoS 1 and 2 could be sent to a clean session at once, and of QoS 0
    /// whether one could; 0 while anything waits for room.
    pub fn room(&self, qos: QoS) -> u32 {
        if !self.is_accepted() {
            return 0;
        }
        let outbox_max = self.limits().outbox_max_bytes as usize;
        let out = self.out.lock();
        if out.flags.has(Flags::CLOSING) || out.backlog_bytes() >= outbox_max {
            return 0;
        }
        let sending = out.cold.as_ref().and_then(|cold| cold.sending.as_ref());
        match sending {
            _ if qos == QoS::AtMostOnce => 1,
            None => u32::from(out.receive_maximum),
            Some(sending) if !sending.waiting.is_empty() => 0,
            Some(sending) => u32::from(out.receive_maximum).saturating_sub(sending.window.open()),
        }
    }

    /// Sends, or queues, or says why not. Called with the outbox locked.
    pub(super) fn append(
        &self,
        out: &mut Outbound,
        delivery: &Delivery<'_>,
        shared: &OnceCell<Arc<Message>>,
        now_ms: u64,
    ) -> Result<Delivered, Metric> {
        let (version, limits) = (self.version(), self.limits());
        if out.flags.has(Flags::CLOSING) {
            return Err(Metric::DroppedClosed);
        }
        if delivery.qos != QoS::AtMostOnce {
            return send_or_queue(out, version, limits, delivery, shared, now_ms);
        }
        if out.backlog_bytes() >= limits.outbox_max_bytes as usize {
            return Err(Metric::DroppedOutboxFull);
        }
        let fits = append_publish(out, version, &delivery.form(0), now_ms);
        fits.then_some(Delivered::Sent).ok_or(Metric::DroppedTooLarge)
    }

    pub(super) fn count(&self, delivered: Result<Delivered, Metric>) -> Delivered {
        let metric = match delivered {
            Ok(Delivered::Sent) => Metric::PublishSent,
            Ok(other) => return other,
            Err(metric) => metric,
        };
        self.context().counters.increment(metric);
        delivered.unwrap_or(Delivered::Dropped)
    }

    /// Sends what a persistent session's queue holds, in order, as far as the client's window and
    /// the outbox allow; returns how many of `items` were taken. Positions below
    /// [`Conn::next_seq`] have been taken before and are passed over, so two threads may pump at
    /// once. When not all were taken, [`Service::wants_more`](super::Service::wants_more) follows.
    /// `items` must begin at or below `next_seq` and leave none out that is not over.
    pub fn deliver_stored(self: &Arc<Self>, items: &[Stored], now_ms: u64) -> usize {
        if !self.is_accepted() {
            return 0;
        }
        let (version, limits) = (self.version(), self.limits());
        let mut passed_over = false;
        let (mut sent, mut expired, mut too_large) = (0, 0, 0);
        let taken = self.with_out(|out| {
            for (index, item) in items.iter().enumerate() {
                if out.flags.has(Flags::CLOSING) {
                    return index;
                }
                let maximum = out.receive_maximum;
                let room = out.backlog_bytes() < limits.outbox_max_bytes as usize;
                let window = &mut out.sending().window;
                if item.seq < window.next() {
                    continue;
                }
                // PUBREL takes no part in flow control [MQTT-4.9.0-3].
                if !room || !(item.received || window.has_room(maximum)) {
                    out.flags.set(Flags::HUNGRY);
                    return index;
                }
                let packet_id = packet_id_of(item.seq);
                if item.received {
                    window.push(item.seq, Awaits::Comp, None);
                    out.append(|buf| encode::pubrel(buf, version, packet_id, ReasonCode::Success));
                    continue;
                }
                let fits = if !item.dup && is_expired(item.message.expires_at_ms, now_ms) {
                    expired += 1;
                    false
                } else {
                    let publication = item.message.borrow();
                    let form = Form {
                        publication: &publication,
                        subscription_ids: &item.subscription_ids,
                        qos: item.qos,
                        retain: item.retain,
                        dup: item.dup,
                        packet_id,
                    };
                    let fits = append_publish(out, version, &form, now_ms);
                    too_large += u64::from(!fits);
                    fits
                };
                let sending = out.sending();
                if fits {
                    sending.window.push(item.seq, awaits_first(item.qos), None);
                    sent += 1;
                } else {
                    // Counts as delivered [MQTT-3.1.2-25].
                    sending.window.skip(item.seq);
                    sending.passed_over.push(item.seq);
                    passed_over = true;
                }
            }
            items.len()
        });
        let counters = &self.context().counters;
        for (metric, n) in [
            (Metric::PublishSent, sent),
            (Metric::DroppedExpired, expired),
            (Metric::DroppedTooLarge, too_large),
        ] {
            if n > 0 {
                counters.add(metric, n);
            }
        }
        if passed_over {
            self.wake();
        }
        taken
    }

    /// The first position of a persistent session's queue that was not handed over.
    pub fn next_seq(&self) -> QueueSeq {
        self.out
            .lock()
            .cold
            .as_ref()
            .and_then(|cold| cold.sending.as_ref())
            .map_or(0, |sending| sending.window.next())
    }

    /// What to tell the cluster when giving the session up: the first position that may not have
    /// been sent. Equal to [`Conn::next_seq`].
    pub fn sent_upto(&self) -> QueueSeq {
        self.next_seq()
    }

    /// The PUBRECs for these positions are recorded: sends PUBREL.
    pub fn received(self: &Arc<Self>, seqs: &[QueueSeq]) {
        let version = self.version();
        self.with_out(|out| {
            for seq in seqs {
                let Some(sending) = out.cold.as_mut().and_then(|cold| cold.sending.as_mut()) else { return };
                if sending.window.awaits(*seq) == Some(Awaits::Record) {
                    sending.window.advance(*seq, Awaits::Comp);
                    let packet_id = packet_id_of(*seq);
                    out.append(|buf| encode::pubrel(buf, version, packet_id, ReasonCode::Success));
                }
            }
        });
    }

    /// Handles PUBACK, PUBREC or PUBCOMP. What the cluster must hear of it is added to `steps`.
    /// Says whether more could be sent than waits here.
    ///
    /// # Errors
    /// The packet is not the one that the delivery awaits.
    pub(super) fn client_ack(
        self: &Arc<Self>,
        ack: ClientAck,
        packet_id: u16,
        code: ReasonCode,
        steps: &mut Vec<(QueueSeq, DeliveryStep)>,
    ) -> Result<bool, ReasonCode> {
        let version = self.version();
        let mut refused = None;
        let (known, hungry) = self.with_out(|out| {
            let sending = out.cold.as_mut().and_then(|cold| cold.sending.as_mut());
            let Some(sending) = sending else { return Ok((false, false)) };
            let Some((seq, awaits)) = sending.window.find(packet_id) else { return Ok((false, false)) };
            let stored = sending.stored;
            let (next, step) = match (ack, awaits) {
                // An error acknowledgement ends the delivery [MQTT-4.4.0-2].
                (ClientAck::Ack, Awaits::Ack) | (ClientAck::Rec, Awaits::Rec) if code.is_error() => {
                    refused = sending.window.take_kept_of(seq);
                    (Awaits::Nothing, Some(DeliveryStep::Refused))
                }
                (ClientAck::Ack, Awaits::Ack) | (ClientAck::Comp, Awaits::Comp) => {
                    (Awaits::Nothing, Some(DeliveryStep::Done))
                }
                (ClientAck::Rec, Awaits::Rec) if stored => (Awaits::Record, Some(DeliveryStep::Received)),
                (ClientAck::Rec, Awaits::Rec | Awaits::Comp) => (Awaits::Comp, None),
                (ClientAck::Rec, Awaits::Record) => return Ok((true, false)),
                _ => return Err(ReasonCode::ProtocolError),
            };
            sending.window.advance(seq, next);
            match step {
                Some(step) if stored => steps.push((seq, step)),
                None => out.append(|buf| encode::pubrel(buf, version, packet_id, ReasonCode::Success)),
                Some(_) => {}
            }
            if next == Awaits::Nothing {
                self.send_waiting(out);
            }
            Ok((true, next == Awaits::Nothing && out.flags.has(Flags::HUNGRY)))
        })?;
        if let Some(refused) = refused {
            self.context().service.refused(self, *refused);
        }
        if !known {
            self.context().counters.increment(Metric::UnknownPacketIds);
            if ack == ClientAck::Rec && !code.is_error() {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.with_out(|out| out.append(|buf| encode::pubrel(buf, version, packet_id, reason)));
            }
        }
        Ok(hungry)
    }

    /// Moves what waits into the window as far as there is room. Called with the outbox locked.
    pub(super) fn send_waiting(&self, out: &mut Outbound) {
        let has_waiting = |out: &Outbound| {
            let sending = out.cold.as_ref().and_then(|cold| cold.sending.as_ref());
            sending.is_some_and(|sending| !sending.waiting.is_empty())
        };
        if !has_waiting(out) || out.flags.has(Flags::CLOSING) {
            return;
        }
        let (version, context) = (self.version(), self.context());
        let now_ms = context.service.clock_ms();
        while out.backlog_bytes() < context.limits.outbox_max_bytes as usize {
            let maximum = out.receive_maximum;
            let sending = out.sending();
            if !sending.window.has_room(maximum) {
                return;
            }
            let seq = sending.window.next_free();
            let Some(waiting) = sending.waiting.pop_front() else { return };
            sending.waiting_bytes -= waiting.size_bytes();
            if is_expired(waiting.message.expires_at_ms, now_ms) {
                context.counters.increment(Metric::DroppedExpired);
                continue;
            }
            let publication = waiting.message.borrow();
            let form = Form {
                publication: &publication,
                subscription_ids: &waiting.subscription_ids,
                qos: waiting.qos,
                retain: waiting.retain,
                dup: false,
                packet_id: packet_id_of(seq),
            };
            if append_publish(out, version, &form, now_ms) {
                let kept = keep(waiting.share, waiting.qos, || waiting.message.clone());
                out.sending().window.push(seq, awaits_first(waiting.qos), kept);
                context.counters.increment(Metric::PublishSent);
            } else {
                context.counters.increment(Metric::DroppedTooLarge);
            }
        }
    }

    /// Takes the messages of shared subscriptions that this client has not acknowledged, oldest
    /// first, so that other members can have them. For `ended`.
    pub fn take_unacknowledged(&self) -> Vec<Unacknowledged> {
        let mut out = self.out.lock();
        let Some(sending) = out.cold.as_mut().and_then(|cold| cold.sending.as_mut()) else {
            return Vec::new();
        };
        let mut all: Vec<_> = sending.window.take_kept().collect();
        all.extend(sending.waiting.drain(..).filter_map(|waiting| {
            let Waiting { message, qos, .. } = waiting;
            Some(Unacknowledged { share: waiting.share?, qos, message, sent: false })
        }));
        sending.waiting_bytes = 0;
        all
    }

    /// Deliveries in flight and waiting, for display.
    pub fn backlog(&self) -> Backlog {
        let out = self.out.lock();
        let sending = out.cold.as_ref().and_then(|cold| cold.sending.as_ref());
        Backlog {
            outbox_bytes: out.backlog_bytes(),
            in_flight: sending.map_or(0, |sending| sending.window.open()),
            waiting: sending.map_or(0, |sending| sending.waiting.len()),
        }
    }

    /// Stored deliveries that ended without being sent since the last call.
    pub(super) fn take_passed_over(&self) -> Vec<QueueSeq> {
        let mut out = self.out.lock();
        let sending = out.cold.as_mut().and_then(|cold| cold.sending.as_mut());
        sending.map(|sending| std::mem::take(&mut sending.passed_over)).unwrap_or_default()
    }
}

/// How much a client has yet to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub outbox_bytes: usize,
    pub in_flight: u32,
    pub waiting: usize,
}

impl<'a> Delivery<'a> {
    fn form(&self, packet_id: u16) -> Form<'a> {
        Form {
            publication: self.publication,
            subscription_ids: self.subscription_ids,
            qos: self.qos,
            retain: self.retain,
            dup: false,
            packet_id,
        }
    }
}

fn awaits_first(qos: QoS) -> Awaits {
    if qos == QoS::ExactlyOnce { Awaits::Rec } else { Awaits::Ack }
}

fn keep(
    share: Option<Share>,
    qos: QoS,
    message: impl FnOnce() -> Arc<Message>,
) -> Option<Box<Unacknowledged>> {
    share.map(|share| Box::new(Unacknowledged { share, qos, message: message(), sent: true }))
}

fn send_or_queue(
    out: &mut Outbound,
    version: Version,
    limits: &Limits,
    delivery: &Delivery<'_>,
    shared: &OnceCell<Arc<Message>>,
    now_ms: u64,
) -> Result<Delivered, Metric> {
    let message = || shared.get_or_init(|| delivery.publication.to_message()).clone();
    let maximum = out.receive_maximum;
    let backlogged = out.backlog_bytes() >= limits.outbox_max_bytes as usize;
    let sending = out.sending();
    if backlogged || !sending.waiting.is_empty() || !sending.window.has_room(maximum) {
        if sending.waiting.len() >= limits.queue_max as usize {
            return Err(Metric::DroppedQueueFull);
        }
        let waiting = Waiting {
            message: message(),
            subscription_ids: delivery.subscription_ids.into(),
            share: delivery.share,
            qos: delivery.qos,
            retain: delivery.retain,
        };
        let bytes = sending.waiting_bytes + waiting.size_bytes();
        if bytes > limits.queue_max_bytes as usize && !sending.waiting.is_empty() {
            return Err(Metric::DroppedQueueFull);
        }
        sending.waiting_bytes = bytes;
        sending.waiting.push_back(waiting);
        return Ok(Delivered::Queued);
    }
    let seq = sending.window.next_free();
    if !append_publish(out, version, &delivery.form(packet_id_of(seq)), now_ms) {
        return Err(Metric::DroppedTooLarge);
    }
    let kept = keep(delivery.share, delivery.qos, message);
    out.sending().window.push(seq, awaits_first(delivery.qos), kept);
    Ok(Delivered::Sent)
}
