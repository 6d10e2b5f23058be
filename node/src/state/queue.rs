//! What a persistent session still has to receive at QoS 1 and 2.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::limits::{BRING_BYTES, PACKET_IDS, QueueLimits, REPLAY_BELOW, REPLAY_BELOW_BYTES, WhenFull};
use super::line::Line;
use super::parcel::Parcel;
use super::{DeliveryStep, QueueSeq, Stored};
use crate::mqtt::QoS;

/// One delivery.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub parcel: Arc<Parcel>,
    /// What few deliveries have, off the common path.
    pub extra: Option<Arc<Extra>>,
    /// Effective QoS, 1 or 2.
    pub qos: QoS,
    pub retain: bool,
    /// QoS 2: PUBREC is recorded.
    pub received: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extra {
    /// Subscription identifiers.
    pub ids: SmallVec<[u32; 4]>,
    /// The shared filter whose turn it was.
    pub group: Option<Arc<str>>,
    /// How many members of it refused the message.
    pub moves: u8,
}

impl Entry {
    pub(super) fn new(parcel: Arc<Parcel>, qos: QoS, retain: bool, extra: Extra) -> Self {
        let extra = (extra != Extra::default()).then(|| Arc::new(extra));
        Self { parcel, extra, qos, retain, received: false }
    }

    pub(super) fn is_expired(&self, clock_ms: u64) -> bool {
        self.parcel.is_expired(clock_ms)
    }

    pub(super) fn group(&self) -> Option<&Arc<str>> {
        self.extra.as_ref()?.group.as_ref()
    }

    pub(super) fn moves(&self) -> u8 {
        self.extra.as_ref().map_or(0, |extra| extra.moves)
    }
}

pub(super) fn is_expired(expires_at_ms: u64, clock_ms: u64) -> bool {
    expires_at_ms != 0 && expires_at_ms <= clock_ms
}

/// A part of a queue, as its owner reads it.
#[derive(Clone, Debug, Default)]
pub struct StoredPage {
    /// In sequence; finished positions and `expired` ones are left out.
    pub items: Vec<Stored>,
    /// Positions whose message expired before this owner sent it. The owner must not send them
    /// and reports them as `Done`, which frees the positions.
    pub expired: Vec<QueueSeq>,
    /// What has to be brought into memory before anything can be read at `next`.
    pub away: Vec<Arc<Parcel>>,
    /// Where to go on reading.
    pub next: QueueSeq,
}

/// The queue: a *window* of deliveries that have a position for sending, and behind it the
/// messages that *wait* for one.
///
/// A message takes its position (and with it its packet id) when it is reserved, not before:
/// what still waits can be dropped or expire without leaving a hole. What is reserved may have
/// been sent, and stays until it is acknowledged. Positions grow; one whose packet id is still
/// out is passed over, so that a delivery that is never acknowledged holds up no other.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// Reserved and not over.
    window: BTreeMap<QueueSeq, Entry>,
    /// Where to look for the next position to reserve.
    next: QueueSeq,
    waiting: Line<Entry>,
    /// Positions below may have been sent by an owner before the present one.
    dup_upto: QueueSeq,
    bytes: usize,
    dropped: u64,
}

impl Queue {
    /// Position of the oldest incomplete delivery, or of the next one if there is none.
    pub(super) fn head(&self) -> QueueSeq {
        self.window.first_key_value().map_or(self.next, |(seq, _)| *seq)
    }

    /// Positions below may be sent.
    pub(super) fn sent_upto(&self) -> QueueSeq {
        self.next
    }

    pub(super) fn dup_upto(&self) -> QueueSeq {
        self.dup_upto
    }

    /// Incomplete deliveries.
    pub(super) fn len(&self) -> usize {
        self.window.len() + self.waiting.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one more retained message of a new subscription may be appended, which leaves half of
    /// what the limits allow to other messages. If not, there are deliveries whose progress will
    /// make room.
    pub(super) fn has_room_for_retained(&self, limits: &QueueLimits) -> bool {
        let is_low = self.waiting.len() < REPLAY_BELOW && self.bytes < REPLAY_BELOW_BYTES;
        self.len() == 0 || (is_low && !limits.are_exceeded_by(2 * (self.len() + 1), 2 * self.bytes))
    }

    /// Appends a retained message for which there is room.
    pub(super) fn push_retained(&mut self, entry: Entry) {
        self.bytes += entry.parcel.size_bytes();
        self.waiting.push_back(entry);
    }

    /// Messages lost to the limits.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends within the limits; false: refused, where they say so. Otherwise the oldest of what
    /// waits is dropped; never what was just appended, so that a message larger than the limit has
    /// its turn. What is in the window is never dropped.
    pub(super) fn push(&mut self, entry: Entry, limits: &QueueLimits, clock_ms: u64) -> bool {
        if !self.accepts(entry.parcel.size_bytes(), limits, clock_ms) {
            self.dropped += 1;
            return false;
        }
        self.bytes += entry.parcel.size_bytes();
        self.waiting.push_back(entry);
        while self.waiting.len() > 1 && limits.are_exceeded_by(self.len(), self.bytes) {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.parcel.size_bytes();
            self.dropped += u64::from(!oldest.is_expired(clock_ms));
        }
        true
    }

    /// Whether a message of this size would not be refused. What has expired makes room for it.
    pub(super) fn accepts(&mut self, size_bytes: usize, limits: &QueueLimits, clock_ms: u64) -> bool {
        if limits.when_full == WhenFull::DropOldest {
            return true;
        }
        self.drop_expired(clock_ms);
        self.len() == 0 || !limits.are_exceeded_by(self.len() + 1, self.bytes + size_bytes)
    }

    /// Makes room of what has expired at the front.
    fn drop_expired(&mut self, clock_ms: u64) {
        while let Some(oldest) = self.waiting.pop_front_if(|oldest| oldest.is_expired(clock_ms)) {
            self.bytes -= oldest.parcel.size_bytes();
        }
    }

    /// Gives positions to what waits, as long as fewer than `most` deliveries have one, which is
    /// less than there are packet ids; what expired goes. Returns whether there is more to send
    /// than before.
    pub(super) fn reserve(&mut self, most: usize, clock_ms: u64) -> bool {
        let before = self.next;
        while self.window.len() < most {
            let Some(entry) = self.waiting.pop_front() else { break };
            if entry.is_expired(clock_ms) {
                self.bytes -= entry.parcel.size_bytes();
                continue;
            }
            while self.is_out(self.next) {
                self.next += 1;
            }
            self.window.insert(self.next, entry);
            self.next += 1;
        }
        self.next > before
    }

    /// Whether the packet id of this position, beyond all others, belongs to one of them.
    fn is_out(&self, seq: QueueSeq) -> bool {
        let before = |seq: &QueueSeq| seq.checked_sub(PACKET_IDS).filter(|seq| *seq >= self.head());
        std::iter::successors(before(&seq), before).any(|seq| self.window.contains_key(&seq))
    }

    /// A new owner: whatever is reserved may have been sent by the one before it.
    pub(super) fn claimed(&mut self) {
        self.dup_upto = self.next;
    }

    /// The owner says that it sent nothing from `sent` on: those positions are free again,
    /// except what earlier owners may have sent.
    pub(super) fn unreserve(&mut self, sent: QueueSeq) {
        let upto = sent.max(self.dup_upto);
        while let Some(last) = self.window.last_entry() {
            if *last.key() < upto || last.get().received {
                break;
            }
            self.waiting.push_front(last.remove());
        }
        let free = self.window.last_key_value().map_or(0, |(last, _)| last + 1);
        self.next = self.next.min(upto.max(free));
    }

    /// Records an acknowledgement, and returns the delivery if it is over by that. Positions that
    /// are over, or never were reserved, are ignored.
    pub(super) fn progress(&mut self, seq: QueueSeq, step: DeliveryStep) -> Option<Entry> {
        match step {
            DeliveryStep::Received => {
                if let Some(entry) = self.window.get_mut(&seq) {
                    entry.received = entry.qos == QoS::ExactlyOnce;
                }
                None
            }
            DeliveryStep::Done | DeliveryStep::Refused => {
                let over = self.window.remove(&seq);
                if let Some(entry) = &over {
                    self.bytes -= entry.parcel.size_bytes();
                }
                over
            }
        }
    }

    /// Up to `max` deliveries from position `from` on.
    pub(super) fn page(&self, from: QueueSeq, max: usize, clock_ms: u64) -> StoredPage {
        let mut page = StoredPage { next: from.max(self.next), ..StoredPage::default() };
        for (seq, entry) in self.window.range(from..) {
            if page.items.len() + page.expired.len() >= max {
                page.next = *seq;
                break;
            }
            let dup = *seq < self.dup_upto;
            if !dup && !entry.received && entry.is_expired(clock_ms) {
                page.expired.push(*seq);
                continue;
            }
            let Some(message) = entry.parcel.here() else {
                page.next = *seq;
                page.away = self.away_from(*seq, max);
                break;
            };
            page.items.push(Stored {
                seq: *seq,
                message,
                qos: entry.qos,
                retain: entry.retain,
                subscription_ids: entry.extra.as_ref().map_or_else(Vec::new, |e| e.ids.to_vec()),
                dup,
                received: entry.received,
            });
        }
        page
    }

    /// The next messages from position `from` on that have to be brought into memory.
    fn away_from(&self, from: QueueSeq, max: usize) -> Vec<Arc<Parcel>> {
        let (mut away, mut bytes) = (Vec::new(), 0);
        for (_, entry) in self.window.range(from..).take(max) {
            if !away.is_empty() && bytes + entry.parcel.size_bytes() > BRING_BYTES {
                break;
            }
            if !entry.parcel.is_here() {
                bytes += entry.parcel.size_bytes();
                away.push(Arc::clone(&entry.parcel));
            }
        }
        away
    }

    /// Of a session that ended: the shared deliveries that another member may still get. QoS 2
    /// that may have been sent is not among them [MQTT-4.8.2-5].
    pub(super) fn into_reassignable(self) -> impl Iterator<Item = Entry> {
        let sent = self.window.into_values().filter(|e| e.qos == QoS::AtLeastOnce);
        sent.chain(self.waiting).filter(|e| e.group().is_some())
    }

    /// Whether anything in it came through a shared subscription.
    pub(super) fn has_reassignable(&self) -> bool {
        self.window.values().chain(self.waiting.iter()).any(|e| e.group().is_some())
    }

    /// Takes out what came through shared subscriptions and was never sent, oldest first: other
    /// members may have it at once.
    pub(super) fn take_waiting_shared(&mut self) -> Vec<Entry> {
        if self.waiting.iter().all(|entry| entry.group().is_none()) {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let (shared, own): (Vec<_>, Vec<_>) = waiting.partition(|entry| entry.group().is_some());
        self.waiting = own.into_iter().collect();
        self.bytes -= shared.iter().map(|entry| entry.parcel.size_bytes()).sum::<usize>();
        shared
    }

    /// Whether a message of this size could be appended without dropping or refusing one.
    pub(super) fn has_room(&self, size_bytes: usize, limits: &QueueLimits) -> bool {
        self.len() == 0 || !limits.are_exceeded_by(self.len() + 1, self.bytes + size_bytes)
    }

    /// Takes the first of what waits.
    pub(super) fn take_first(&mut self) -> Option<Entry> {
        let entry = self.waiting.pop_front()?;
        self.bytes -= entry.parcel.size_bytes();
        Some(entry)
    }

    /// Puts it in front of what waits, whatever the limits: it has been here before.
    pub(super) fn put_first(&mut self, entry: Entry) {
        self.bytes += entry.parcel.size_bytes();
        self.waiting.push_front(entry);
    }

    /// For snapshots: the window, then what waits.
    pub(super) fn parts(&self) -> (&BTreeMap<QueueSeq, Entry>, &Line<Entry>) {
        (&self.window, &self.waiting)
    }

    /// From the parts of a snapshot; `positions` is `dup_upto..sent_upto`.
    pub(super) fn from_parts(
        positions: Range<QueueSeq>,
        window: BTreeMap<QueueSeq, Entry>,
        waiting: Line<Entry>,
        dropped: u64,
    ) -> Self {
        let bytes = window.values().chain(waiting.iter()).map(|e| e.parcel.size_bytes()).sum();
        Self { dup_upto: positions.start, next: positions.end, window, waiting, bytes, dropped }
    }
}
