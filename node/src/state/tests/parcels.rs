//! Queued messages that a node has put away are no part of what the nodes agree on.

use std::io;

use super::*;
use crate::state::{Parcel, Shelf, Slot, Stock};

/// Keeps what it is given.
pub(super) struct Cupboard;

struct Kept(Message);

impl Slot for Kept {
    fn read(&self) -> io::Result<Message> {
        Ok(self.0.clone())
    }
}

impl Shelf for Cupboard {
    fn store(&self, parcels: &[Arc<Parcel>]) -> io::Result<()> {
        for parcel in parcels {
            let message = Message::clone(&*parcel.read()?);
            parcel.put_away(Arc::new(Kept(message)));
        }
        Ok(())
    }

    fn tidy(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A state that keeps nothing in memory that it need not, with ten messages for "c".
fn rig() -> (Rig, Arc<Stock>) {
    let stock = Arc::new(Stock::on(Arc::new(Cupboard), 0));
    let mut rig = Rig { state: State::new(Arc::clone(&stock)), ..Rig::default() };
    rig.up(1);
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", inc, &[sub("a", 1), sub("$share/g/b", 1)]);
    for i in 0..10 {
        rig.publish(1, message("a", &i.to_string(), 1));
    }
    (rig, stock)
}

#[test]
fn what_is_put_away_is_named_and_read_once_it_is_back() {
    let (rig, stock) = rig();
    assert_eq!(rig.payloads("c").len(), 10);
    stock.put_away(stock.take_surplus()).expect("a cupboard takes everything");
    assert_eq!(stock.held_bytes(), 0);
    let incarnation = rig.state.client("c").expect("a session").incarnation;
    let page = rig.state.stored("c", incarnation, 0, 4);
    assert_eq!((page.items.len(), page.away.len(), page.next), (0, 4, 0));
    page.away.iter().try_for_each(Parcel::bring).expect("read");
    let page = rig.state.stored("c", incarnation, 0, 100);
    assert_eq!((page.items.len(), page.away.len(), page.next), (4, 6, 4));
    page.away.iter().try_for_each(Parcel::bring).expect("read");
    assert_eq!(rig.payloads("c"), (0..10).map(|i| i.to_string()).collect::<Vec<_>>());
    // What was brought back is surplus again.
    stock.put_away(stock.take_surplus()).expect("a cupboard takes everything");
    assert_eq!((stock.held_bytes(), rig.payloads("c").len()), (0, 0));
}

#[test]
fn a_snapshot_is_the_same_wherever_messages_are() {
    let (rig, stock) = rig();
    let before = bytes(&rig.state);
    stock.put_away(stock.take_surplus()).expect("a cupboard takes everything");
    assert!(bytes(&rig.state) == before);
    let again = State::read(&mut before.as_slice(), Arc::clone(&stock)).expect("a snapshot");
    assert!(bytes(&again) == before);
}

#[test]
fn what_another_member_may_have_to_get_is_put_away_too() {
    let (mut rig, stock) = rig();
    let c = rig.state.client("c").expect("a session").incarnation;
    rig.release(1, "c", c, WillFate::Discard);
    rig.publish(1, message("b", "shared", 1));
    let put_away = || stock.put_away(stock.take_surplus()).expect("a cupboard takes everything");
    put_away();
    assert_eq!(stock.held_bytes(), 0);
    // It waits for a member, and the next one gets it.
    let (d, _) = rig.claim(1, persistent("d"));
    rig.subscribe(1, "d", d, &[sub("$share/g/b", 1)]);
    assert_eq!(stock.held_bytes(), 0, "nobody had to read it");
    let page = rig.state.stored("d", d, 0, 4);
    page.away.iter().try_for_each(Parcel::bring).expect("read");
    assert_eq!(rig.payloads("d"), ["shared"]);
    put_away();
    assert_eq!(stock.held_bytes(), 0);
    let restored = Arc::new(Stock::on(Arc::new(Cupboard), 0));
    let again = State::read(&mut bytes(&rig.state).as_slice(), Arc::clone(&restored)).expect("a snapshot");
    restored.put_away(restored.take_surplus()).expect("a cupboard takes everything");
    assert_eq!(restored.held_bytes(), 0);
    assert!(bytes(&again) == bytes(&rig.state));
}
