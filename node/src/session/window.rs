//! Deliveries in flight: which packet ids are out and what each is waiting for.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::mqtt::{Message, QoS};
use crate::state::QueueSeq;

/// Packet ids, of which there are as many as sequence numbers may span.
const IDS: u64 = 65_535;

/// The packet id of a position: the same on every connection of the session, so that a new
/// owner of it derives the same ids [MQTT-4.4.0-1].
pub fn packet_id_of(seq: QueueSeq) -> u16 {
    // At most 65,535, so it fits.
    (1 + seq % IDS) as u16
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
    /// As given in [`Delivery::group`](super::Delivery::group).
    pub group: u32,
    pub qos: QoS,
    pub message: Arc<Message>,
}

#[derive(Debug)]
struct Flight {
    seq: QueueSeq,
    awaits: Awaits,
    kept: Option<Box<Unacknowledged>>,
}

/// The in-flight window of one connection, by ascending position. The span of positions stays
/// below the number of packet ids, which makes an id name one position.
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

    /// Whether `seq` may be sent to a client that takes `maximum` at once [MQTT-4.9.0-2].
    pub fn has_room(&self, seq: QueueSeq, maximum: u16) -> bool {
        self.open < u32::from(maximum) && self.flights.front().is_none_or(|f| seq - f.seq < IDS)
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
        let first = self.flights.front()?.seq;
        let offset = (u64::from(packet_id) + IDS - 1 - first % IDS) % IDS;
        let seq = first + offset;
        let flight = &self.flights[self.index(seq)?];
        (flight.awaits != Awaits::Nothing).then_some((seq, flight.awaits))
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
        }
    }

    /// Takes the kept messages that the client has not acknowledged, oldest first.
    pub fn take_kept(&mut self) -> impl Iterator<Item = Unacknowledged> + '_ {
        self.flights.iter_mut().filter_map(|flight| flight.kept.take().map(|kept| *kept))
    }

    fn index(&self, seq: QueueSeq) -> Option<usize> {
        // Positions of a clean session are dense, so the guess is right; a replicated queue may
        // have gaps.
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
        let mut window = Window::starting_at(IDS * 3 - 2);
        for _ in 0..4 {
            let seq = window.next();
            window.push(seq, Awaits::Ack, None);
        }
        assert_eq!(packet_id_of(IDS * 3 - 1), 65_535);
        assert_eq!(packet_id_of(IDS * 3), 1);
        for seq in IDS * 3 - 2..IDS * 3 + 2 {
            assert_eq!(window.find(packet_id_of(seq)), Some((seq, Awaits::Ack)));
        }
        assert_eq!(window.find(3), None);
        assert_eq!(window.find(65_533), None);
    }

    #[test]
    fn an_old_delivery_bounds_the_span() {
        let mut window = Window::starting_at(0);
        window.push(0, Awaits::Ack, None);
        window.skip(IDS - 2);
        assert!(window.has_room(IDS - 1, 10));
        assert!(!window.has_room(IDS, 10), "its id is still out");
        window.advance(0, Awaits::Nothing);
        assert!(window.has_room(IDS, 10));
        assert!(window.is_empty());
    }

    #[test]
    fn gaps_and_acknowledgements_out_of_order() {
        let mut window = Window::starting_at(10);
        for seq in [10, 13, 14, 20] {
            window.push(seq, Awaits::Ack, None);
        }
        assert!(!window.has_room(21, 4));
        window.advance(14, Awaits::Nothing);
        assert!(window.has_room(21, 4));
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
