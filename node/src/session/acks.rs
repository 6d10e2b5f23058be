//! Answers owed to a client for what it sent: PUBACK and PUBREC in the order of its publishes,
//! SUBACK, UNSUBACK and PUBCOMP as they are ready.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::outbound::{Flags, Outbound};
use super::{AckTicket, Conn, Ended, Metric, PublishOrder};
use crate::mqtt::{ReasonCode, Version, encode};

/// Filters of one SUBSCRIBE or UNSUBSCRIBE beyond which it is alone under way on its connection:
/// the broker may then take its time and keeps the order all the same.
pub const FILTERS_AT_ONCE: usize = 256;
/// Filters that weigh as much as one more request.
const FILTERS_PER_REQUEST: usize = 16;

/// For how long, after the client was told that a publish is refused, its further ones may have been
/// sent before it heard of it.
const REFUSAL_UNHEARD_MS: u64 = 1_000;

/// What a SUBSCRIBE or UNSUBSCRIBE counts for.
fn weight(filters: usize, requests_max: u16) -> u16 {
    if filters > FILTERS_AT_ONCE {
        return requests_max.max(1);
    }
    (1 + (filters / FILTERS_PER_REQUEST) as u16).min(requests_max.max(1))
}

#[derive(Debug)]
struct Owed {
    packet_id: u16,
    exactly_once: bool,
    answer: Option<ReasonCode>,
}

/// A publish that was refused, and that the client will send again.
#[derive(Debug)]
struct Refusal {
    ticket: AckTicket,
    /// When the refusal left, on [`Service::monotonic_ms`](super::Service::monotonic_ms).
    told_ms: Option<u64>,
}

/// What is known of the client's own QoS 1 and 2 publishes and requests.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// Publishes whose PUBACK or PUBREC has not been sent, in the order they came.
    owed: VecDeque<Owed>,
    /// The ticket of the first of them.
    first: u64,
    /// The last one that was refused for want of a lease.
    refusal: Option<Refusal>,
    /// How many of them are QoS 1.
    at_least_once: u16,
    /// QoS 2 packet ids from PUBLISH to PUBREL.
    received: BTreeSet<u16>,
    /// SUBSCRIBE, UNSUBSCRIBE and PUBREL that the broker has not answered, by their weight.
    requests: u16,
    /// SUBSCRIBE and UNSUBSCRIBE among them.
    subscriptions: u16,
    /// PUBLISH packets that leave after the last of their answers: the first is a retained message,
    /// the others follow it.
    behind: Vec<u8>,
    /// A PUBLISH that followed them waits for the last of their answers.
    publish_waits: bool,
    /// A SUBSCRIBE or UNSUBSCRIBE waits until the publishes before it are settled.
    subscription_waits: bool,
}

impl Receiving {
    pub fn is_idle(&self) -> bool {
        self.owed.is_empty() && self.received.is_empty() && self.requests == 0 && !self.subscription_waits
    }

    /// Returns what may follow the answer.
    fn subscription_answered(&mut self) -> Vec<u8> {
        self.subscriptions = self.subscriptions.saturating_sub(1);
        self.publish_waits &= self.subscriptions > 0;
        if self.subscriptions > 0 { Vec::new() } else { std::mem::take(&mut self.behind) }
    }

    /// Whether a PUBLISH has to wait for the answer to a SUBSCRIBE. A server may send retained
    /// messages before SUBACK, but there are clients that do not expect them so early; and what is
    /// newer must not overtake them.
    pub fn holds_back(&self, retained: bool) -> bool {
        !self.behind.is_empty() || (retained && self.subscriptions > 0)
    }

    /// What is held back.
    pub fn behind(&mut self) -> &mut Vec<u8> {
        &mut self.behind
    }

    pub fn behind_bytes(&self) -> usize {
        self.behind.len()
    }

    fn publish_must_wait(&self) -> bool {
        self.publish_waits && self.subscriptions > 0
    }

    fn push(&mut self, packet_id: u16, exactly_once: bool, answer: Option<ReasonCode>) -> AckTicket {
        self.owed.push_back(Owed { packet_id, exactly_once, answer });
        self.at_least_once += u16::from(!exactly_once);
        AckTicket(self.first + self.owed.len() as u64 - 1)
    }

    fn pop_answered(&mut self) -> Option<(u16, bool, ReasonCode)> {
        let answer = self.owed.front()?.answer?;
        let owed = self.owed.pop_front()?;
        self.first += 1;
        self.at_least_once -= u16::from(!owed.exactly_once);
        Some((owed.packet_id, owed.exactly_once, answer))
    }
}

/// What to do with a QoS 1 or 2 PUBLISH that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    New {
        ticket: AckTicket,
        check_stall: bool,
    },
    /// QoS 2, seen before and not released: answered, not passed on [MQTT-4.3.3-10].
    Duplicate,
    /// More than the announced Receive Maximum [MQTT-3.3.4-7].
    Exceeded,
    Closed,
}

impl Conn {
    /// Registers an inbound PUBLISH of QoS 1 or 2.
    pub(super) fn receive(self: &Arc<Self>, packet_id: u16, exactly_once: bool) -> Receive {
        let version = self.version();
        let maximum = usize::from(self.limits().receive_maximum);
        let window = usize::from(self.context().pressure.window(self.limits().receive_maximum));
        let remember = !self.is_persistent();
        self.with_out(|out| {
            if out.flags.has(Flags::CLOSING) {
                return Receive::Closed;
            }
            let receiving = out.receiving();
            let used = usize::from(receiving.at_least_once) + receiving.received.len();
            if exactly_once && receiving.received.contains(&packet_id) {
                if remember {
                    receiving.push(packet_id, true, Some(ReasonCode::Success));
                    send_answered(out, version);
                    return Receive::Duplicate;
                }
            } else if version == Version::V5 && used >= maximum {
                return Receive::Exceeded;
            } else if exactly_once {
                receiving.received.insert(packet_id);
            }
            let ticket = receiving.push(packet_id, exactly_once, None);
            Receive::New { ticket, check_stall: receiving.owed.len() >= window }
        })
    }

    /// Answers a PUBLISH. PUBACK or PUBREC leaves when those of all earlier publishes have
    /// [MQTT-4.6.0-2]. An error code to a 3.x client, whose acknowledgements cannot carry one,
    /// closes the connection without the acknowledgement; except `NotAuthorized`, which is
    /// acknowledged as if accepted ([MQTT-3.3.5-2] of 3.1.1).
    pub fn acknowledge(self: &Arc<Self>, ticket: AckTicket, code: ReasonCode) {
        let version = self.version();
        if code.is_error() && code != ReasonCode::NotAuthorized && version != Version::V5 {
            self.close(Ended::Server, code);
            return;
        }
        let stalled = self.with_out(|out| {
            take_answer(out, ticket, code);
            send_answered(out, version);
            self.note_told(out);
            out.flags.has(Flags::STALLED)
        });
        if stalled {
            self.relieve();
        }
    }

    /// Answers a PUBLISH with an error for want of a lease. Most clients will send it again, and with
    /// it what they had sent after it: see [`follows_refused`](Self::follows_refused).
    pub fn refuse_publish(self: &Arc<Self>, ticket: AckTicket, code: ReasonCode) {
        self.out.lock().receiving().refusal = Some(Refusal { ticket, told_ms: None });
        self.acknowledge(ticket, code);
    }

    /// Whether what comes from the client now may have been sent before it heard that an earlier
    /// publish was refused. Accepted, it would come before that one [MQTT-4.6.0-6].
    pub fn follows_refused(&self) -> bool {
        let mut out = self.out.lock();
        let refusal = &mut out.receiving().refusal;
        let told_ms = refusal.as_ref().map(|refusal| refusal.told_ms);
        let follows = match told_ms {
            None => false,
            Some(None) => true,
            Some(Some(told_ms)) => self.context().service.monotonic_ms() < told_ms + REFUSAL_UNHEARD_MS,
        };
        if !follows {
            *refusal = None;
        }
        follows
    }

    fn note_told(&self, out: &mut Outbound) {
        let Some(receiving) = out.cold.as_mut().and_then(|cold| cold.receiving.as_mut()) else { return };
        let first = receiving.first;
        if let Some(Refusal { ticket, told_ms: told_ms @ None }) = &mut receiving.refusal
            && ticket.0 < first
        {
            *told_ms = Some(self.context().service.monotonic_ms());
        }
    }

    /// Handles PUBREL of a clean session.
    pub(super) fn release(self: &Arc<Self>, packet_id: u16) {
        let version = self.version();
        let known = self.with_out(|out| {
            let receiving = out.cold.as_mut().and_then(|cold| cold.receiving.as_mut());
            let known = receiving.is_some_and(|receiving| receiving.received.remove(&packet_id));
            let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
            out.append(|buf| encode::pubcomp(buf, version, packet_id, code));
            known
        });
        if !known {
            self.context().counters.increment(Metric::UnknownPacketIds);
        }
    }

    /// Answers [`Service::release`](super::Service::release) with PUBCOMP: `Success`, or
    /// `PacketIdentifierNotFound`.
    pub fn released(self: &Arc<Self>, packet_id: u16, code: ReasonCode) {
        let version = self.version();
        self.answer(0, |out| {
            out.receiving().received.remove(&packet_id);
            out.append(|buf| encode::pubcomp(buf, version, packet_id, code));
        });
    }

    /// Answers SUBSCRIBE: one code per filter, in its order [MQTT-3.9.3-1].
    pub fn subscribed(self: &Arc<Self>, packet_id: u16, codes: &[ReasonCode]) {
        let version = self.version();
        self.answer_within(codes.len(), |buf| encode::suback(buf, version, packet_id, codes));
    }

    /// Answers UNSUBSCRIBE: one code per filter, in its order.
    pub fn unsubscribed(self: &Arc<Self>, packet_id: u16, codes: &[ReasonCode]) {
        let version = self.version();
        self.answer_within(codes.len(), |buf| encode::unsuback(buf, version, packet_id, codes));
    }

    /// Notes a request with so many filters that the broker will answer; says whether there are as
    /// many as allowed.
    pub(super) fn expect_answer_of(&self, filters: usize) -> bool {
        let mut out = self.out.lock();
        let requests_max = self.limits().requests_max;
        let requests = &mut out.receiving().requests;
        *requests = requests.saturating_add(weight(filters, requests_max));
        *requests >= requests_max
    }

    /// As [`expect_answer_of`](Self::expect_answer_of), for a SUBSCRIBE or UNSUBSCRIBE.
    pub(super) fn expect_subscription(&self, filters: usize) -> bool {
        self.out.lock().receiving().subscriptions += 1;
        self.expect_answer_of(filters)
    }

    /// Whether subscriptions of the client are unanswered, which what it publishes now has to
    /// follow. Asks for a wake-up when they are answered.
    pub(super) fn is_subscribing(&self) -> bool {
        let mut out = self.out.lock();
        let receiving = out.receiving();
        receiving.publish_waits = receiving.subscriptions > 0;
        let waits = receiving.publish_waits;
        if waits {
            out.flags.set(Flags::STALLED);
        }
        waits
    }

    /// Whether publishes of the client are on their way, which a subscription that it makes or
    /// gives up now has to follow. Asks for a wake-up when they are settled.
    pub(super) fn is_publishing(&self) -> bool {
        // Held until the wish is noted: `publishes_settled` comes after.
        let order = self.publish_order().lock();
        if order.as_deref().is_none_or(PublishOrder::is_settled) {
            return false;
        }
        let mut out = self.out.lock();
        out.receiving().subscription_waits = true;
        out.flags.set(Flags::STALLED);
        true
    }

    /// Nothing of the client's [`PublishOrder`] is on its way any more; it may be locked.
    pub fn publishes_settled(&self) {
        let mut out = self.out.lock();
        let receiving = out.cold.as_mut().and_then(|cold| cold.receiving.as_mut());
        if receiving.is_some_and(|receiving| std::mem::take(&mut receiving.subscription_waits)) {
            drop(out);
            self.relieve();
        }
    }

    /// Answers with a packet as long as the request. A client that asks for so much that it does
    /// not take the answer is disconnected [MQTT-3.1.2-24].
    fn answer_within(self: &Arc<Self>, filters: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let mut fits = true;
        self.answer(filters, |out| {
            let behind = out.receiving().subscription_answered();
            fits = out.append_within(write);
            if fits {
                out.append_packets(&behind);
            }
        });
        if !fits {
            self.close(Ended::Server, ReasonCode::PacketTooLarge);
        }
    }

    fn answer(self: &Arc<Self>, filters: usize, answer: impl FnOnce(&mut Outbound)) {
        self.with_out(|out| {
            if out.flags.has(Flags::CLOSING) {
                return;
            }
            let requests = &mut out.receiving().requests;
            *requests = requests.saturating_sub(weight(filters, self.limits().requests_max));
            answer(out);
        });
        self.relieve();
    }

    /// Whether the client has so much unanswered or unread that it is not read for now. Asks for
    /// a wake-up when that changes.
    pub(super) fn must_stall(&self) -> bool {
        let mut out = self.out.lock();
        let stalled = self.is_overloaded(&out);
        if stalled {
            out.flags.set(Flags::STALLED);
        } else {
            out.flags.clear(Flags::STALLED);
        }
        stalled
    }

    /// Wakes the owner if it waits for the backlog to be gone and it is.
    pub(super) fn relieve(&self) {
        let mut out = self.out.lock();
        if out.flags.has(Flags::STALLED) && !self.is_overloaded(&out) {
            out.flags.clear(Flags::STALLED);
            drop(out);
            self.wake();
        }
    }

    pub(super) fn is_overloaded(&self, out: &Outbound) -> bool {
        let limits = self.limits();
        // A single message may exceed the outbox's bound by itself.
        if out.backlog_bytes() > 4 * limits.outbox_max_bytes as usize + limits.packet_max_bytes as usize {
            return true;
        }
        let Some(receiving) = out.cold.as_ref().and_then(|cold| cold.receiving.as_ref()) else {
            return false;
        };
        // A 5.0 client is bound by its quota, and is told when it breaks it. Only a hard-pressed node
        // takes less than it has granted.
        let window = self.context().pressure.window(limits.receive_maximum);
        let is_bound = self.version() != Version::V5 || window < limits.receive_maximum;
        receiving.requests >= limits.requests_max
            || receiving.publish_must_wait()
            || receiving.subscription_waits
            || (is_bound && receiving.owed.len() >= usize::from(window))
    }
}

fn take_answer(out: &mut Outbound, ticket: AckTicket, code: ReasonCode) {
    let Some(receiving) = out.cold.as_mut().and_then(|cold| cold.receiving.as_mut()) else { return };
    let Some(index) = ticket.0.checked_sub(receiving.first) else { return };
    let index = index as usize;
    let Some(owed) = receiving.owed.get_mut(index) else { return };
    owed.answer = Some(code);
    if code.is_error() && owed.exactly_once {
        // The id is free again [MQTT-4.3.3-9]; repeats that came meanwhile share the fate.
        let packet_id = owed.packet_id;
        receiving.received.remove(&packet_id);
        for later in receiving.owed.iter_mut().skip(index + 1) {
            if later.exactly_once && later.packet_id == packet_id && later.answer.is_some() {
                later.answer = Some(code);
            }
        }
    }
}

/// Appends PUBACK and PUBREC as far as they are answered without a gap.
fn send_answered(out: &mut Outbound, version: Version) {
    loop {
        let Some(receiving) = out.cold.as_mut().and_then(|cold| cold.receiving.as_mut()) else { return };
        let Some((packet_id, exactly_once, code)) = receiving.pop_answered() else { return };
        out.append(|buf| {
            if exactly_once {
                encode::pubrec(buf, version, packet_id, code);
            } else {
                encode::puback(buf, version, packet_id, code);
            }
        });
    }
}
