//! What the cluster keeps is bounded alike on every node.

use super::*;
use crate::state::limits::QueueLimits;

fn limited(limits: NodeLimits) -> Rig {
    let mut rig = Rig::default();
    rig.up_with(1, limits);
    rig
}

fn publish(message: Message, or_refuse: bool) -> Command {
    Command::Publish { message: Arc::new(message), exactly_once: None, or_refuse }
}

#[test]
fn a_session_has_no_more_subscriptions_than_its_node_allows() {
    let mut rig = limited(NodeLimits { subscriptions_per_client: 2, ..NodeLimits::default() });
    rig.up(2);
    let (incarnation, _) = rig.claim(1, persistent("c"));
    let subscribe = |incarnation, filters: &[&str]| Command::Subscribe {
        client: "c".into(),
        incarnation,
        subscriptions: filters.iter().map(|f| sub(f, 1)).collect(),
    };
    let outcome = rig.run(1, subscribe(incarnation, &["a", "b", "c", "a"]));
    let added = vec![Added::New, Added::New, Added::Refused, Added::Replaced];
    assert_eq!(outcome, Outcome::Subscribed { added });
    assert_eq!(rig.publish(1, message("c", "x", 1)), 0, "a refused one is none");
    let filters = vec!["a".into()];
    rig.run(1, Command::Unsubscribe { client: "c".into(), incarnation, filters });
    let outcome = rig.run(1, subscribe(incarnation, &["c"]));
    assert_eq!(outcome, Outcome::Subscribed { added: vec![Added::New] });
    // The limits of the node that it is connected to.
    let (incarnation, _) = rig.claim(2, persistent("c"));
    let outcome = rig.run(2, subscribe(incarnation, &["d"]));
    assert_eq!(outcome, Outcome::Subscribed { added: vec![Added::New] });
}

#[test]
fn retained_messages_are_bounded_in_number() {
    let mut rig = limited(NodeLimits { retained_messages: 2, ..NodeLimits::default() });
    rig.publish(1, retained("a", "1", 1));
    rig.publish(1, retained("b", "1", 1));
    assert_eq!(rig.run(1, publish(retained("c", "1", 1), true)), Outcome::Refused);
    assert!(rig.delivered().is_empty(), "refused as a whole");
    assert_eq!(rig.publish(1, retained("c", "1", 1)), 0);
    assert_eq!(rig.delivered(), ["c"], "delivered, and not kept");
    assert_eq!(rig.retained("#"), ["a", "b"]);
    assert_eq!(rig.state.counts().retained_refused, 1);
    // Another value for a topic that has one, and none for another.
    assert_ne!(rig.run(1, publish(retained("a", "22", 1), true)), Outcome::Refused);
    assert_ne!(rig.run(1, publish(retained("b", "", 1), true)), Outcome::Refused);
    assert_ne!(rig.run(1, publish(retained("c", "1", 1), true)), Outcome::Refused);
    assert_eq!(rig.retained("#"), ["a", "c"]);
}

#[test]
fn retained_messages_are_bounded_in_bytes() {
    let size = retained("a", "1234", 1).size_bytes() as u64;
    let mut rig = limited(NodeLimits { retained_bytes: 2 * size, ..NodeLimits::default() });
    rig.publish(1, retained("a", "1234", 1));
    rig.publish(1, retained("b", "1234", 1));
    assert_eq!(rig.run(1, publish(retained("b", "12345", 1), true)), Outcome::Refused);
    assert_eq!(rig.retained("#"), ["a", "b"], "refused as a whole");
    rig.publish(1, retained("b", "123", 1));
    rig.publish(1, retained("b", "1234", 1));
    assert_eq!(rig.retained("#"), ["a", "b"]);
    rig.publish(1, retained("b", "12345", 1));
    assert_eq!(rig.retained("#"), ["a"], "the value before is out of date");
}

#[test]
fn a_retained_will_beyond_the_limit_is_delivered_and_not_kept() {
    let mut rig = limited(NodeLimits { retained_messages: 1, ..NodeLimits::default() });
    rig.publish(1, retained("a", "1", 1));
    let will = Will { message: Arc::new(retained("w", "gone", 1)), expiry_s: None, delay_s: 0 };
    let (incarnation, _) = rig.claim(1, Claim { will: Some(will), ..clean("c") });
    rig.release(1, "c", incarnation, WillFate::Fire);
    assert_eq!(rig.delivered(), ["w"]);
    assert_eq!(rig.retained("#"), ["a"]);
}

#[test]
fn the_packet_id_of_a_refused_publish_is_free() {
    let mut rig = limited(NodeLimits { retained_messages: 1, ..NodeLimits::default() });
    let (incarnation, _) = rig.claim(1, persistent("p"));
    let exact = |topic| Command::Publish {
        message: Arc::new(Message { publisher: "p".into(), ..retained(topic, "1", 2) }),
        exactly_once: Some((incarnation, 7)),
        or_refuse: true,
    };
    rig.publish(1, retained("a", "1", 1));
    assert_eq!(rig.run(1, exact("b")), Outcome::Refused);
    assert_eq!(rig.run(1, exact("a")), Outcome::Published { matched: 0, duplicate: false });
    assert_eq!(rig.run(1, exact("b")), Outcome::Published { matched: 0, duplicate: true });
}

fn parts(command: &Command, size: usize) -> Vec<Command> {
    let bytes = postcard::to_stdvec(command).expect("encodable");
    let count = bytes.len().div_ceil(size);
    let part = |(n, chunk): (usize, &[u8])| Command::Part {
        bytes: bytes::Bytes::copy_from_slice(chunk),
        last: n + 1 == count,
    };
    bytes.chunks(size).enumerate().map(part).collect()
}

#[test]
fn a_command_in_parts_is_carried_out_with_the_last() {
    let mut rig = Rig::new(2);
    rig.claim(1, persistent("c"));
    let (incarnation, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", incarnation, &[sub("#", 1)]);
    let mine = parts(&publish(message("a", "one", 1), false), 9);
    let theirs = parts(&publish(message("b", "two", 1), false), 7);
    assert!(mine.len() > 2 && theirs.len() > 2);
    let (last, others) = mine.split_last().expect("parts");
    for (one, two) in others.iter().zip(&theirs[..theirs.len() - 1]) {
        assert_eq!(rig.run(1, one.clone()), Outcome::Ok);
        assert_eq!(rig.run(2, two.clone()), Outcome::Ok);
        // Whoever is restored in between has them too.
        let before = bytes(&rig.state);
        rig.state = State::read(&mut before.as_slice(), Arc::default()).expect("a snapshot");
        assert!(bytes(&rig.state) == before);
    }
    assert_eq!(rig.run(1, last.clone()), Outcome::Published { matched: 1, duplicate: false });
    assert_eq!(rig.delivered(), ["a"]);
    assert_eq!(rig.payloads("c"), ["one"]);
    // The end of a life is the end of what it had not finished.
    assert!(!rig.state.parts.is_empty());
    rig.up(2);
    assert!(rig.state.parts.is_empty());
}

#[test]
fn parts_of_something_unknown_stop_the_node() {
    let mut rig = Rig::new(1);
    let last = |bytes: &[u8]| Command::Part { bytes: bytes::Bytes::copy_from_slice(bytes), last: true };
    let nested = postcard::to_stdvec(&last(b"x")).expect("encodable");
    for (bytes, error) in [
        (&[99][..], PackError::UnknownCommand(99)),
        (&nested[..], PackError::NestedParts),
        (&[13, 0][..], PackError::TrailingBytes(1)),
    ] {
        let pack = rig.pack(1, vec![last(bytes)]);
        let mut effects = Vec::new();
        let index = 1000;
        assert_eq!(rig.state.apply(index, TERM, &pack, &mut effects), Err(error));
    }
}

#[test]
fn one_message_larger_than_the_queue_waits_all_the_same() {
    let mut rig = Rig::new(1);
    let (incarnation, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", incarnation, &[sub("#", 1)]);
    rig.release(1, "c", incarnation, WillFate::Discard);
    let large = vec![0; QueueLimits::default().bytes as usize + 1];
    rig.publish(1, message("small", "x", 1));
    rig.publish(1, Message { payload: large.into(), ..message("large", "", 1) });
    let info = rig.state.client("c").expect("a session");
    assert_eq!((info.queued, info.dropped), (1, 1), "the older one made room");
    rig.publish(1, message("small", "x", 1));
    rig.claim(1, persistent("c"));
    assert_eq!(rig.payloads("c"), ["x"]);
}

#[test]
fn the_deepest_topics_need_no_deep_stack() {
    let deep = || {
        let topic = "/".repeat(65_534);
        let filters = [topic.clone(), format!("{}#", "/".repeat(65_534)), format!("+{}", "/".repeat(65_534))];
        let mut rig = Rig::new(1);
        let (incarnation, _) = rig.claim(1, persistent("c"));
        for filter in &filters {
            rig.subscribe(1, "c", incarnation, &[sub(filter, 1)]);
            rig.run(1, Command::RouteAdd { filter: filter.as_str().into() });
        }
        assert_eq!(rig.publish(1, retained(&topic, "x", 1)), 1);
        for filter in &filters {
            assert_eq!(rig.retained(filter).len(), 1);
        }
        rig.state = State::read(&mut bytes(&rig.state).as_slice(), Arc::default()).expect("a snapshot");
        for filter in &filters {
            rig.run(1, Command::RouteRemove { filter: filter.as_str().into() });
        }
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(deep).expect("a thread");
    thread.join().expect("no overflow");
}
