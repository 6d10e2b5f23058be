//! One session's queue against a model that remembers, message by message, what happened to it.

use proptest::prelude::*;

use super::*;
use DeliveryStep::{Done, Received};

#[derive(Clone, Debug)]
enum Act {
    Publish(usize),
    /// The owner sends up to this many more.
    Send(usize),
    /// The client acknowledges one of those in flight.
    Ack(usize),
    Rec(usize),
    /// The connection ends, and says what it sent or not.
    Release(bool),
    /// The owner's node dies.
    Die,
    Claim(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..3usize).prop_map(Act::Publish),
        5 => (1..6usize).prop_map(Act::Send),
        4 => (0..8usize).prop_map(Act::Ack),
        2 => (0..8usize).prop_map(Act::Rec),
        1 => any::<bool>().prop_map(Act::Release),
        1 => Just(Act::Die),
        3 => (1..4u16).prop_map(Act::Claim),
    ]
}

/// What the client's side knows of one message.
#[derive(Clone, Debug)]
struct Known {
    payload: String,
    /// Its position, once it was sent.
    seq: Option<QueueSeq>,
    sent_by: Vec<Incarnation>,
    received: bool,
    qos: usize,
}

#[derive(Default)]
struct Owner {
    node: NodeId,
    incarnation: Incarnation,
    /// Next position to send.
    next: QueueSeq,
    connected: bool,
    /// What this connection sent.
    sent: Vec<QueueSeq>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_unacknowledged_is_lost_reordered_or_renumbered(
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let mut rig = Rig::new(2);
        let (incarnation, _) = rig.claim(2, persistent("c"));
        rig.subscribe(2, "c", incarnation, &[sub("a", 2)]);
        let mut owner = Owner { node: 2, incarnation, connected: true, ..Owner::default() };
        // What was published and not acknowledged, in order.
        let mut known: Vec<Known> = Vec::new();
        // Whether every earlier owner said exactly what it had sent.
        let mut exact = true;
        let mut count = 0;
        for act in acts {
            match act {
                Act::Publish(qos) => {
                    count += 1;
                    let payload = count.to_string();
                    prop_assert_eq!(rig.publish(1, message("a", &payload, qos)), 1);
                    known.push(Known { payload, seq: None, sent_by: vec![], received: false, qos });
                }
                Act::Send(n) if owner.connected => {
                    let page = rig.state.stored("c", owner.incarnation, owner.next, n);
                    prop_assert!(page.expired.is_empty());
                    for stored in page.items {
                        let payload = text(&stored.message);
                        let at = known.iter().position(|k| k.payload == payload);
                        prop_assert!(at.is_some(), "an acknowledged message came back");
                        let k = &mut known[at.unwrap_or_default()];
                        prop_assert!(k.seq.is_none_or(|s| s == stored.seq), "its packet id changed");
                        prop_assert_eq!(stored.received, k.received);
                        let sent_before = !k.sent_by.is_empty();
                        prop_assert!(!sent_before || stored.dup, "DUP is missing");
                        prop_assert!(!exact || stored.dup == sent_before, "DUP without reason");
                        prop_assert!(!k.sent_by.contains(&owner.incarnation), "twice on one connection");
                        k.seq = Some(stored.seq);
                        k.sent_by.push(owner.incarnation);
                        owner.sent.push(stored.seq);
                    }
                    owner.next = page.next;
                    prop_assert!(owner.sent.is_sorted(), "out of order");
                }
                Act::Ack(n) if owner.connected && n < owner.sent.len() => {
                    let seq = owner.sent[n];
                    rig.progress(owner.node, "c", owner.incarnation, &[(seq, Done)]);
                    known.retain(|k| k.seq != Some(seq));
                }
                Act::Rec(n) if owner.connected && n < owner.sent.len() => {
                    let seq = owner.sent[n];
                    rig.progress(owner.node, "c", owner.incarnation, &[(seq, Received)]);
                    for k in known.iter_mut().filter(|k| k.seq == Some(seq)) {
                        k.received = k.qos == 2;
                    }
                }
                Act::Release(precise) if owner.connected => {
                    let (client, incarnation) = ("c".into(), owner.incarnation);
                    let sent = precise.then_some(owner.next);
                    exact &= precise;
                    let will = WillFate::Discard;
                    let outcome =
                        rig.run(owner.node, Command::Release { client, incarnation, will, expiry_s: None, sent });
                    prop_assert_eq!(outcome, Outcome::Ok);
                    owner.connected = false;
                }
                Act::Die if owner.connected => {
                    rig.down(1, 2);
                    rig.up(2);
                    exact = false;
                    owner.connected = false;
                }
                Act::Claim(receive_maximum) => {
                    exact &= !owner.connected;
                    let claim = Claim { receive_maximum, ..persistent("c") };
                    let (incarnation, present) = rig.claim(2, claim);
                    prop_assert!(present);
                    owner = Owner { node: 2, incarnation, connected: true, ..Owner::default() };
                }
                _ => {}
            }
            let queued = rig.state.client("c").map(|c| (c.queued, c.dropped));
            prop_assert_eq!(queued, Some((known.len(), 0)));
        }
        // Whoever comes last finds all that was not acknowledged, in the order of publishing.
        rig.claim(1, persistent("c"));
        let expected: Vec<_> = known.iter().map(|k| k.payload.clone()).collect();
        prop_assert_eq!(rig.payloads("c"), expected);
    }
}
