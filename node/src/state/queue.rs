//! What a persistent session still has to receive at QoS 1 and 2.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::limits::{QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX};
use super::{DeliveryStep, QueueSeq, Stored};
use crate::mqtt::{Message, QoS};

/// One delivery.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub message: Arc<Message>,
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
}

impl Entry {
    pub(super) fn new(message: Arc<Message>, qos: QoS, retain: bool, extra: Extra) -> Self {
        let extra = (extra != Extra::default()).then(|| Arc::new(extra));
        Self { message, extra, qos, retain, received: false }
    }

    fn is_expired(&self, clock_ms: u64) -> bool {
        is_expired(&self.message, clock_ms)
    }

    pub(super) fn group(&self) -> Option<&Arc<str>> {
        self.extra.as_ref()?.group.as_ref()
    }
}

pub(super) fn is_expired(message: &Message, clock_ms: u64) -> bool {
    message.expires_at_ms != 0 && message.expires_at_ms <= clock_ms
}

/// A part of a queue, as its owner reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredPage {
    /// In sequence; finished positions and `expired` ones are left out.
    pub items: Vec<Stored>,
    /// Positions whose message expired before this owner sent it. The owner must not send them
    /// and reports them as `Done`, which frees the positions.
    pub expired: Vec<QueueSeq>,
    /// Where to go on reading.
    pub next: QueueSeq,
}

/// The queue: a *window* of positions reserved for sending, and behind it the messages that
/// *wait* for a position.
///
/// A message takes its position (and with it its packet id) when it is reserved, not before:
/// what still waits can be dropped or expire without leaving a hole. What is reserved may have
/// been sent, and stays until it is acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// Position of the window's first entry: the oldest incomplete delivery.
    head: QueueSeq,
    /// `None`: over. The first is never `None`.
    window: VecDeque<Option<Entry>>,
    waiting: VecDeque<Entry>,
    /// Positions below may have been sent by an owner before the present one.
    dup_upto: QueueSeq,
    bytes: usize,
    /// Incomplete deliveries of the window.
    in_flight: usize,
    dropped: u64,
}

impl Queue {
    /// Position of the oldest incomplete delivery, or of the next one if there is none.
    pub(super) fn head(&self) -> QueueSeq {
        self.head
    }

    /// Positions below may be sent.
    pub(super) fn sent_upto(&self) -> QueueSeq {
        self.head + self.window.len() as u64
    }

    pub(super) fn dup_upto(&self) -> QueueSeq {
        self.dup_upto
    }

    /// Incomplete deliveries.
    pub(super) fn len(&self) -> usize {
        self.in_flight + self.waiting.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages lost to the limits.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends, and drops the oldest of what waits if the limits are exceeded; never what was
    /// just appended, so that a message larger than the limit has its turn.
    pub(super) fn push(&mut self, entry: Entry, clock_ms: u64) {
        self.bytes += entry.message.size_bytes();
        self.waiting.push_back(entry);
        while self.waiting.len() > 1 && (self.len() > QUEUE_MESSAGES_MAX || self.bytes > QUEUE_BYTES_MAX) {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.message.size_bytes();
            self.dropped += u64::from(!oldest.is_expired(clock_ms));
        }
    }

    /// Gives positions to what waits, as long as the window spans less than `span`; what expired
    /// goes. Returns whether there is more to send than before.
    pub(super) fn reserve(&mut self, span: u64, clock_ms: u64) -> bool {
        let before = self.sent_upto();
        while (self.window.len() as u64) < span {
            let Some(entry) = self.waiting.pop_front() else { break };
            if entry.is_expired(clock_ms) {
                self.bytes -= entry.message.size_bytes();
            } else {
                self.in_flight += 1;
                self.window.push_back(Some(entry));
            }
        }
        shrink(&mut self.waiting);
        self.sent_upto() > before
    }

    /// A new owner: whatever is reserved may have been sent by the one before it.
    pub(super) fn claimed(&mut self) {
        self.dup_upto = self.sent_upto();
    }

    /// The owner says that it sent nothing from `sent` on: those positions are free again,
    /// except what earlier owners may have sent.
    pub(super) fn unreserve(&mut self, sent: QueueSeq) {
        let upto = sent.max(self.head).max(self.dup_upto);
        while self.sent_upto() > upto {
            match self.window.pop_back() {
                Some(Some(entry)) if entry.received => {
                    self.window.push_back(Some(entry));
                    break;
                }
                Some(Some(entry)) => {
                    self.in_flight -= 1;
                    self.waiting.push_front(entry);
                }
                Some(None) => {}
                None => break,
            }
        }
    }

    /// Records an acknowledgement. Positions that are over, or never were reserved, are ignored.
    pub(super) fn progress(&mut self, seq: QueueSeq, step: DeliveryStep) {
        let Some(at) = seq.checked_sub(self.head).and_then(|at| usize::try_from(at).ok()) else { return };
        let Some(slot) = self.window.get_mut(at) else { return };
        match step {
            DeliveryStep::Received => {
                if let Some(entry) = slot {
                    entry.received = entry.qos == QoS::ExactlyOnce;
                }
            }
            DeliveryStep::Done => {
                if let Some(entry) = slot.take() {
                    self.bytes -= entry.message.size_bytes();
                    self.in_flight -= 1;
                }
                while let Some(None) = self.window.front() {
                    self.window.pop_front();
                    self.head += 1;
                }
                shrink(&mut self.window);
            }
        }
    }

    /// Up to `max` deliveries from position `from` on.
    pub(super) fn page(&self, from: QueueSeq, max: usize, clock_ms: u64) -> StoredPage {
        let mut page = StoredPage { next: from.max(self.head), ..StoredPage::default() };
        let skip = usize::try_from(page.next - self.head).unwrap_or(usize::MAX);
        for slot in self.window.iter().skip(skip) {
            if page.items.len() + page.expired.len() >= max {
                break;
            }
            let seq = page.next;
            page.next += 1;
            let Some(entry) = slot else { continue };
            let dup = seq < self.dup_upto;
            if !dup && !entry.received && entry.is_expired(clock_ms) {
                page.expired.push(seq);
                continue;
            }
            page.items.push(Stored {
                seq,
                message: Arc::clone(&entry.message),
                qos: entry.qos,
                retain: entry.retain,
                subscription_ids: entry.extra.as_ref().map_or_else(Vec::new, |e| e.ids.to_vec()),
                dup,
                received: entry.received,
            });
        }
        page
    }

    /// Of a session that ended: the shared deliveries that another member may still get. QoS 2
    /// that may have been sent is not among them [MQTT-4.8.2-5].
    pub(super) fn into_reassignable(self) -> impl Iterator<Item = Entry> {
        let sent = self.window.into_iter().flatten().filter(|e| e.qos == QoS::AtLeastOnce);
        sent.chain(self.waiting).filter(|e| e.group().is_some())
    }

    /// Whether anything in it came through a shared subscription.
    pub(super) fn has_reassignable(&self) -> bool {
        self.window.iter().flatten().chain(&self.waiting).any(|e| e.group().is_some())
    }

    /// For snapshots: the window, then what waits.
    pub(super) fn parts(&self) -> (&VecDeque<Option<Entry>>, &VecDeque<Entry>) {
        (&self.window, &self.waiting)
    }

    /// From the parts of a snapshot; `positions` is `head..dup_upto`.
    pub(super) fn from_parts(
        positions: Range<QueueSeq>,
        window: VecDeque<Option<Entry>>,
        waiting: VecDeque<Entry>,
        dropped: u64,
    ) -> Self {
        let incomplete = || window.iter().flatten();
        let in_flight = incomplete().count();
        let bytes = incomplete().chain(&waiting).map(|e| e.message.size_bytes()).sum();
        Self { head: positions.start, dup_upto: positions.end, window, waiting, bytes, in_flight, dropped }
    }
}

/// Gives memory back once three quarters of it are idle.
fn shrink<T>(deque: &mut VecDeque<T>) {
    if deque.is_empty() && deque.capacity() > 0 {
        *deque = VecDeque::new();
    } else if deque.capacity() > 64 && deque.len() < deque.capacity() / 4 {
        deque.shrink_to(deque.len() * 2);
    }
}
