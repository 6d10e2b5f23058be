//! One choice.

use super::hash::Bid;
use super::{Memory, Strategy};

/// Whom a message can go to: one member, or a node with as many as its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Tells it from others, and is the same wherever and whenever it is asked for.
    pub key: u64,
    /// At least 1.
    pub weight: u32,
}

/// Members drawn at random before it is looked who is able at all.
const DRAWS: usize = 4;

/// The slot that a message of this key goes to, among those that are `able`; `None`: nobody is.
/// `Local` is for the caller, who knows who is near: among those it goes by turns.
pub fn choose(
    strategy: Strategy,
    slots: &[Slot],
    key: u64,
    memory: &mut impl Memory,
    able: impl FnMut(usize) -> bool,
) -> Option<usize> {
    match strategy {
        _ if slots.is_empty() => None,
        Strategy::RoundRobin | Strategy::Local => by_turns(slots, memory, able),
        Strategy::Random => at_random(slots, memory, able),
        Strategy::HashClientId | Strategy::HashTopic => by_hash(slots, key, able),
        Strategy::Sticky => sticking(slots, key, memory, able),
    }
}

fn total(slots: &[Slot]) -> u64 {
    slots.iter().map(|slot| u64::from(slot.weight)).sum()
}

/// The slot that `at`, below the sum of the weights, falls on.
fn slot_at(slots: impl Iterator<Item = (usize, u32)>, mut at: u64) -> Option<usize> {
    let mut last = None;
    for (index, weight) in slots {
        last = Some(index);
        match at.checked_sub(u64::from(weight)) {
            Some(rest) => at = rest,
            None => break,
        }
    }
    last
}

fn weights(slots: &[Slot]) -> impl Iterator<Item = (usize, u32)> {
    slots.iter().map(|slot| slot.weight).enumerate()
}

fn by_turns(slots: &[Slot], memory: &mut impl Memory, mut able: impl FnMut(usize) -> bool) -> Option<usize> {
    let of = u32::try_from(total(slots)).unwrap_or(u32::MAX);
    let mut unable = None;
    for _ in 0..of {
        let slot = slot_at(weights(slots), u64::from(memory.next_turn(of)))?;
        if unable == Some(slot) {
            continue;
        }
        if able(slot) {
            return Some(slot);
        }
        unable = Some(slot);
    }
    None
}

/// Below `bound`; no value is likelier than another by more than 2⁻³².
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

fn at_random(slots: &[Slot], memory: &mut impl Memory, mut able: impl FnMut(usize) -> bool) -> Option<usize> {
    let total = total(slots);
    for _ in 0..DRAWS {
        let slot = slot_at(weights(slots), below(memory.random(), total))?;
        if able(slot) {
            return Some(slot);
        }
    }
    let left: Vec<(usize, u32)> = weights(slots).filter(|(slot, _)| able(*slot)).collect();
    let total = left.iter().map(|(_, weight)| u64::from(*weight)).sum();
    slot_at(left.into_iter(), below(memory.random(), total))
}

/// Rendezvous hashing: of all that are able the one with the highest bid, so that a change of the
/// members moves only what goes to or comes from the ones that changed.
fn by_hash(slots: &[Slot], key: u64, mut able: impl FnMut(usize) -> bool) -> Option<usize> {
    let weighted = slots.iter().any(|slot| slot.weight != 1);
    let bid = |slot: &Slot| Bid::new(key, slot.key, slot.weight, weighted);
    let bids = || slots.iter().map(bid).enumerate();
    let (first, _) = bids().min_by(|(_, a), (_, b)| a.cmp(b))?;
    if able(first) {
        return Some(first);
    }
    let mut others: Vec<_> = bids().filter(|(index, _)| *index != first).collect();
    others.sort_by(|(_, a), (_, b)| a.cmp(b));
    others.into_iter().map(|(index, _)| index).find(|index| able(*index))
}

fn sticking(
    slots: &[Slot],
    key: u64,
    memory: &mut impl Memory,
    mut able: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let stuck = memory.stuck();
    if let Some(slot) = slots.iter().position(|slot| slot.key == stuck)
        && able(slot)
    {
        return Some(slot);
    }
    let slot = by_hash(slots, key, able)?;
    memory.stick(slots[slot].key);
    Some(slot)
}
