//! Every command of a session carries the incarnation it was proposed under. One that lost the
//! client id changes nothing, whatever it says: a paused owner that goes on can neither
//! acknowledge, deliver nor delete.

use super::*;

/// One of each kind of command that speaks for a session, with what tells them apart.
fn commands(client: &str, incarnation: Incarnation) -> Vec<(&'static str, Command)> {
    let publisher = client;
    let client = || Arc::<str>::from(client);
    let release =
        |will, expiry_s, sent| Command::Release { client: client(), incarnation, will, expiry_s, sent };
    let progress = |steps: &[(QueueSeq, DeliveryStep)]| Command::Progress {
        client: client(),
        incarnation,
        steps: steps.to_vec(),
    };
    let publish = |retain, packet_id| Command::Publish {
        message: Arc::new(Message { publisher: publisher.into(), retain, ..message("a", "late", 2) }),
        exactly_once: Some((incarnation, packet_id)),
        or_refuse: false,
    };
    vec![
        ("a release with the will", release(WillFate::Fire, None, None)),
        ("a release without it", release(WillFate::Discard, None, Some(0))),
        ("a release with a new expiry", release(WillFate::Discard, Some(0), None)),
        (
            "a subscription",
            Command::Subscribe { client: client(), incarnation, subscriptions: vec![sub("late/#", 2)] },
        ),
        (
            "a subscription of a group",
            Command::Subscribe { client: client(), incarnation, subscriptions: vec![sub("$share/g/a", 1)] },
        ),
        (
            "the end of a subscription",
            Command::Unsubscribe { client: client(), incarnation, filters: vec!["a".into()] },
        ),
        ("PUBREC", progress(&[(0, DeliveryStep::Received), (1, DeliveryStep::Received)])),
        ("PUBACK and PUBCOMP", progress(&[(0, DeliveryStep::Done), (1, DeliveryStep::Done)])),
        ("a publish of QoS 2", publish(false, 9)),
        ("a retained publish of QoS 2", publish(true, 9)),
        ("a publish of QoS 2 sent again", publish(false, 7)),
        ("the wish for more retained messages", Command::Replay { client: client(), incarnation }),
        ("PUBREL", Command::Forget { client: client(), incarnation, packet_id: 7 }),
    ]
}

/// A session on node 1 with everything that a late command could harm: a will, subscriptions,
/// deliveries at QoS 1 and 2, and a QoS 2 publish of its own that was not released.
fn session(rig: &mut Rig) -> Incarnation {
    let claim = Claim { will: will("w", 5), receive_maximum: 1, ..persistent("c") };
    let (incarnation, _) = rig.claim(1, claim);
    rig.subscribe(1, "c", incarnation, &[sub("a", 2), sub("$share/g/b", 1)]);
    let (watcher, _) = rig.claim(3, persistent("watcher"));
    rig.subscribe(3, "watcher", watcher, &[sub("#", 2)]);
    for (topic, qos) in [("a", 1), ("a", 2), ("b", 1)] {
        rig.publish(3, message(topic, "queued", qos));
    }
    let own = Message { publisher: "c".into(), ..message("a", "own", 2) };
    let command =
        Command::Publish { message: Arc::new(own), exactly_once: Some((incarnation, 7)), or_refuse: false };
    assert!(matches!(rig.run(1, command), Outcome::Published { duplicate: false, .. }));
    incarnation
}

/// The same log but for one command, which says nothing: what remains is the pack's number.
fn without(rig: &Rig, state: &[u8], pack: &Pack) -> State {
    let mut state = State::read(&mut &state[..], Arc::default()).expect("a snapshot");
    let nothing = Command::Sweep { clients: vec![], routes: vec![] };
    let pack = Pack { commands: vec![nothing; pack.commands.len()], ..pack.clone() };
    let mut effects = Vec::new();
    let outcomes = state.apply(rig.index, TERM, &pack, &mut effects).expect("known commands");
    assert!(outcomes.is_some() && effects.is_empty());
    state
}

/// A way to lose a client id: what it is called, and what happens.
type Loss = (&'static str, fn(&mut Rig));

fn losses() -> [Loss; 6] {
    [
        ("a takeover", |rig| {
            rig.claim(2, Claim { will: will("w2", 5), ..persistent("c") });
        }),
        ("a takeover on the same node", |rig| {
            rig.claim(1, persistent("c"));
        }),
        ("a clean start", |rig| {
            let claim = Claim { clean_start: true, will: will("w2", 5), ..persistent("c") };
            let (incarnation, _) = rig.claim(2, claim);
            rig.subscribe(2, "c", incarnation, &[sub("a", 2)]);
            rig.publish(3, message("a", "new", 1));
        }),
        ("a clean session", |rig| {
            rig.claim(2, Claim { will: will("w2", 0), ..clean("c") });
        }),
        ("a takeover whose owner has left", |rig| {
            let (incarnation, _) = rig.claim(2, Claim { will: will("w2", 5), ..persistent("c") });
            rig.release(2, "c", incarnation, WillFate::Fire);
        }),
        ("a kick", |rig| {
            let (incarnation, _) = rig.claim(2, clean("c"));
            rig.release(2, "c", incarnation, WillFate::Discard);
        }),
    ]
}

/// Every kind of command × every way to lose the client id. Fails without the comparison of
/// incarnations in `Sessions::current_mut`, or in `State::release`.
#[test]
fn a_stale_incarnation_changes_nothing() {
    for (loss, lose) in losses() {
        for at in 0..commands("c", 0).len() {
            let mut rig = Rig::new(3);
            let stale = session(&mut rig);
            lose(&mut rig);
            let before = bytes(&rig.state);
            let (what, command) = commands("c", stale).swap_remove(at);
            let pack = rig.pack(1, vec![command]);
            assert_eq!(rig.apply(&pack), Some(vec![Outcome::Stale]), "{what} after {loss}");
            assert_eq!(rig.effects, [], "{what} after {loss}");
            let expected = without(&rig, &before, &pack);
            assert!(bytes(&rig.state) == bytes(&expected), "{what} after {loss} changed something");
        }
    }
}

/// The test above would pass if the commands never did anything.
#[test]
fn the_present_incarnation_changes_something() {
    for at in 0..commands("c", 0).len() {
        let mut rig = Rig::new(3);
        let incarnation = session(&mut rig);
        let before = bytes(&rig.state);
        let (what, command) = commands("c", incarnation).swap_remove(at);
        let pack = rig.pack(1, vec![command]);
        let outcomes = rig.apply(&pack).expect("in sequence");
        assert_ne!(outcomes, [Outcome::Stale], "{what}");
        let unchanged = bytes(&rig.state) == bytes(&without(&rig, &before, &pack));
        // A repetition, and nothing retained that would be left to send.
        let idle = ["a publish of QoS 2 sent again", "the wish for more retained messages"].contains(&what);
        assert_eq!(unchanged, idle, "{what}: {outcomes:?}");
    }
}

/// A command that was proposed before the loss and is committed after it, in one pack with others:
/// only those of the lost session are void.
#[test]
fn what_shares_its_pack_with_a_stale_command_is_done() {
    let mut rig = Rig::new(3);
    let stale = session(&mut rig);
    rig.claim(2, persistent("c"));
    let (_, forget) = commands("c", stale).pop().expect("PUBREL");
    let pack = rig.pack(1, vec![forget, Command::Claim(clean("d"))]);
    let outcomes = rig.apply(&pack).expect("in sequence");
    assert!(matches!(outcomes[..], [Outcome::Stale, Outcome::Claimed { .. }]), "{outcomes:?}");
    assert_eq!(rig.state.owner("d").map(|(node, ..)| node), Some(1));
}

/// A stale command reaches `apply` in parts if it is large.
#[test]
fn a_stale_command_in_parts_is_stale() {
    let mut rig = Rig::new(3);
    let stale = session(&mut rig);
    rig.claim(2, persistent("c"));
    let before = rig.state.subscriptions("c").len();
    let (_, subscribe) = commands("c", stale).swap_remove(3);
    let encoded = postcard::to_stdvec(&subscribe).expect("encodable");
    let (head, tail) = encoded.split_at(4);
    let part = |bytes: &[u8], last| Command::Part { bytes: bytes.to_vec().into(), last };
    assert_eq!(rig.run(1, part(head, false)), Outcome::Ok);
    assert_eq!(rig.run(1, part(tail, true)), Outcome::Stale);
    assert_eq!(rig.state.subscriptions("c").len(), before);
}
