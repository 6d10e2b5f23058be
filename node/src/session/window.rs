//! Deliveries in flight: which packet ids are out and what each is waiting for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Share;
use crate::mqtt::{Message, QoS};
use crate::state::QueueSeq;
use crate::state::limits::PACKET_IDS;

/// Flights, finished ones included, below which it is not worth removing the finished.
const COMPACT_FROM: usize = 64;

/// The packet id of a position: the same on every connection of the session, so that a new
/// owner of it derives the same ids [MQTT-4.4.0-1].
pub fn packet_id_of(seq: QueueSeq) -> u16 {
    // At most 65,535, so it fits.
    (1 + seq % PACKET_IDS) as u16
}

/// What a delivery waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// QoS 1: PUBACK.
    Ack,
    /// QoS 2: PUBREC.
    Rec,
    /// QoS 2 of a persistent session: PUBREC came; PUBREL goes out when that is recorded.
    Record,
    /// QoS 2: PUBCOMP.
    Comp,
    /// Over, but an older one is not.
    Nothing,
}

/// A delivery whose message is kept, so that another member of the group can have it.
#[derive(Clone, Debug)]
pub struct Unacknowledged {
    /// As given in [`Delivery::share`](super::Delivery::share).
    pub share: Share,
    pub qos: QoS,
    pub message: Arc<Message>,
    /// Otherwise it waited for room, and the client has not seen it.
    pub sent: bool,
}

#[derive(Debug)]
struct Flight {
    seq: QueueSeq,
    awaits: Awaits,
    kept: Option<Box<Unacknowledged>>,
}

/// The in-flight window of one connection, by ascending position. No two of those that await
/// something have the same packet id: whoever chooses positions passes over one whose id is out.
#[derive(Debug)]
pub(super) struct Window {
    flights: VecDeque<Flight>,
    /// Flights that await something.
    open: u32,
    /// The first position that was not handed over yet.
    next: QueueSeq,
}

impl Window {
    pub fn starting_at(next: QueueSeq) -> Self {
        Self { flights: VecDeque::new(), open: 0, next }
    }

    pub fn next(&self) -> QueueSeq {
        self.next
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Deliveries that await something of the client.
    pub fn open(&self) -> u32 {
        self.open
    }

    /// Whether one more may be sent to a client that takes `maximum` at once [MQTT-4.9.0-2].
    pub fn has_room(&self, maximum: u16) -> bool {
        self.open < u32::from(maximum).min(PACKET_IDS as u32 - 1)
    }

    /// The first position from [`Window::next`] on whose packet id is not out.
    pub fn next_free(&self) -> QueueSeq {
        let mut seq = self.next;
        while self.find(packet_id_of(seq)).is_some() {
            seq += 1;
        }
        seq
    }

    /// Puts `seq` in flight. It must not be below [`Window::next`].
    pub fn push(&mut self, seq: QueueSeq, awaits: Awaits, kept: Option<Box<Unacknowledged>>) {
        debug_assert!(seq >= self.next);
        self.flights.push_back(Flight { seq, awaits, kept });
        self.open += 1;
        self.next = seq + 1;
    }

    /// Passes over `seq` without sending it.
    pub fn skip(&mut self, seq: QueueSeq) {
        self.next = self.next.max(seq + 1);
    }

    /// The position in flight under `packet_id`, and what it awaits.
    pub fn find(&self, packet_id: u16) -> Option<(QueueSeq, Awaits)> {
        let (first, last) = (self.flights.front()?.seq, self.flights.back()?.seq);
        let offset = (u64::from(packet_id) + PACKET_IDS - 1 - first % PACKET_IDS) % PACKET_IDS;
        let positions = (first + offset..=last).step_by(PACKET_IDS as usize);
        positions
            .filter_map(|seq| Some((seq, self.awaits(seq)?)))
            .find(|(_, awaits)| *awaits != Awaits::Nothing)
    }

    /// What `seq` awaits, if it is in flight.
    pub fn awaits(&self, seq: QueueSeq) -> Option<Awaits> {
        self.index(seq).map(|i| self.flights[i].awaits)
    }

    /// Changes what a position in flight awaits; `Nothing` ends it and makes room.
    pub fn advance(&mut self, seq: QueueSeq, awaits: Awaits) {
        let Some(index) = self.index(seq) else { return };
        let flight = &mut self.flights[index];
        if flight.awaits == Awaits::Nothing {
            return;
        }
        flight.awaits = awaits;
        // Once the client has it, it is not another's [MQTT-4.8.2-6].
        flight.kept = None;
        if awaits == Awaits::Nothing {
            self.open -= 1;
            while self.flights.front().is_some_and(|f| f.awaits == Awaits::Nothing) {
                self.flights.pop_front();
            }
            // An old one at the front must not keep all that came after it.
            if self.flights.len() > COMPACT_FROM && self.flights.len() > 2 * self.open as usize {
                self.flights.retain(|f| f.awaits != Awaits::Nothing);
            }
        }
    }

    /// Takes the kept message of one position.
    pub fn take_kept_of(&mut self, seq: QueueSeq) -> Option<Box<Unacknowledged>> {
        let index = self.index(seq)?;
        self.flights[index].kept.take()
    }

    /// Takes the kept messages that the client has not acknowledged, oldest first.
    pub fn take_kept(&mut self) -> impl Iterator<Item = Unacknowledged> + '_ {
        self.flights.iter_mut().filter_map(|flight| flight.kept.take().map(|kept| *kept))
    }

    fn index(&self, seq: QueueSeq) -> Option<usize> {
        // Mostly they are dense, so the guess is right.
        let first = self.flights.front()?.seq;
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        match self.flights.get(guess) {
            Some(flight) if flight.seq == seq => Some(guess),
            _ => self.flights.binary_search_by_key(&seq, |f| f.seq).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_positions_across_the_wrap() {
        let mut window = Window::starting_at(PACKET_IDS * 3 - 2);
        for _ in 0..4 {
            let seq = window.next();
            window.push(seq, Awaits::Ack, None);
        }
        assert_eq!(packet_id_of(PACKET_IDS * 3 - 1), 65_535);
        assert_eq!(packet_id_of(PACKET_IDS * 3), 1);
        for seq in PACKET_IDS * 3 - 2..PACKET_IDS * 3 + 2 {
            assert_eq!(window.find(packet_id_of(seq)), Some((seq, Awaits::Ack)));
        }
        assert_eq!(window.find(3), None);
        assert_eq!(window.find(65_533), None);
    }

    #[test]
    fn an_old_delivery_keeps_its_id_and_holds_up_no_other() {
        let mut window = Window::starting_at(0);
        window.push(0, Awaits::Ack, None);
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..3 * PACKET_IDS {
            let seq = window.next_free();
            window.push(seq, Awaits::Ack, None);
            assert_eq!(window.find(packet_id_of(seq)), Some((seq, Awaits::Ack)));
            ids.insert(packet_id_of(seq));
            window.advance(seq, Awaits::Nothing);
        }
        assert_eq!(window.find(1), Some((0, Awaits::Ack)));
        assert!(!ids.contains(&1) && ids.len() as u64 == PACKET_IDS - 1);
        assert!(window.flights.len() <= COMPACT_FROM + 1, "{} kept", window.flights.len());
        window.advance(0, Awaits::Nothing);
        assert!(window.is_empty());
    }

    #[test]
    fn gaps_and_acknowledgements_out_of_order() {
        let mut window = Window::starting_at(10);
        for seq in [10, 13, 14, 20] {
            window.push(seq, Awaits::Ack, None);
        }
        assert!(!window.has_room(4));
        window.advance(14, Awaits::Nothing);
        assert!(window.has_room(4));
        assert_eq!(window.find(packet_id_of(14)), None);
        window.advance(14, Awaits::Nothing);
        window.advance(13, Awaits::Nothing);
        window.advance(10, Awaits::Nothing);
        assert_eq!(window.find(packet_id_of(20)), Some((20, Awaits::Ack)));
        assert_eq!(window.next(), 21);
        window.advance(20, Awaits::Nothing);
        assert!(window.is_empty());
    }
}
