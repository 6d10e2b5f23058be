//! Retained messages on their way to a subscription: all of them, each once, a page at a time,
//! whatever happens meanwhile.

use proptest::prelude::*;

use super::*;
use crate::state::limits::{QueueLimits, REPLAY_BELOW, REPLAY_VISITS_MAX, RESERVE_AHEAD};
use crate::topic::filter_matches;
use DeliveryStep::Done;

/// So many that no page holds them all.
const MANY: usize = 5 * REPLAY_VISITS_MAX;

fn topic(i: usize) -> String {
    format!("many/{i:05}")
}

/// Other messages that a test queues at most.
const LIVE_MAX: usize = 8;

/// A cluster of two nodes with many retained messages.
fn with_many(qos: usize) -> Rig {
    let mut rig = Rig::new(2);
    for i in 0..MANY {
        rig.publish(1, retained(&topic(i), &i.to_string(), qos));
    }
    rig
}

/// A persistent session whose client takes what it is sent.
struct Subscriber {
    node: NodeId,
    incarnation: Incarnation,
    got: Vec<(String, String, bool)>,
}

impl Subscriber {
    fn connect(rig: &mut Rig, node: NodeId) -> Self {
        let (incarnation, _) = rig.claim(node, persistent("c"));
        Self { node, incarnation, got: Vec::new() }
    }

    /// Moves to another node; its owner is asked anew for what is missing.
    fn move_to(&mut self, rig: &mut Rig, node: NodeId) {
        (self.incarnation, _) = rig.claim(node, persistent("c"));
        self.node = node;
        rig.replay_on();
    }

    fn subscribe(&self, rig: &mut Rig, subscription: Subscription) {
        rig.subscribe(self.node, "c", self.incarnation, &[subscription]);
        rig.replay_on();
    }

    /// Takes and acknowledges up to so many; says how many there were.
    fn take(&mut self, rig: &mut Rig, at_once: usize) -> usize {
        let page = rig.state.stored("c", self.incarnation, 0, at_once).items;
        self.got.extend(page.iter().map(|s| (s.message.topic.to_string(), text(&s.message), s.retain)));
        let steps: Vec<_> = page.iter().map(|s| (s.seq, Done)).collect();
        rig.progress(self.node, "c", self.incarnation, &steps);
        rig.replay_on();
        page.len()
    }

    /// Takes all that comes, and checks that the queue never holds much of it.
    fn take_all(&mut self, rig: &mut Rig, at_once: usize) {
        loop {
            let info = rig.state.client("c").expect("a session");
            let queued_max = usize::from(persistent("c").receive_maximum) + RESERVE_AHEAD + REPLAY_BELOW;
            assert!(info.queued <= queued_max + LIVE_MAX, "{} are queued", info.queued);
            assert_eq!(info.dropped, 0);
            if self.take(rig, at_once) == 0 {
                assert_eq!(info.queued, 0);
                return;
            }
        }
    }

    fn topics(&self) -> Vec<&str> {
        self.got.iter().map(|(topic, ..)| &**topic).collect()
    }
}

fn all() -> Vec<String> {
    (0..MANY).map(topic).collect()
}

#[test]
fn a_persistent_session_gets_them_all_through_a_queue_of_bounded_length() {
    for (granted, at_once) in [(1, 64), (2, 7), (2, 1000)] {
        let mut rig = with_many(2);
        let mut c = Subscriber::connect(&mut rig, 1);
        c.subscribe(&mut rig, Subscription { id: 9, ..sub("#", granted) });
        let first = rig.stored("c").remove(0);
        assert_eq!((first.qos, first.retain, &*first.subscription_ids), (QOS[granted], true, &[9][..]));
        c.take_all(&mut rig, at_once);
        assert_eq!(c.topics(), all());
    }
}

#[test]
fn a_queue_with_a_tight_limit_is_never_filled_beyond_it() {
    for (messages, bytes) in [(1, 1 << 20), (10, 1 << 20), (1000, 300), (1000, 1)] {
        let mut rig = Rig::default();
        let queue = QueueLimits { messages, bytes, ..QueueLimits::default() };
        rig.up_with(1, NodeLimits { queue, ..NodeLimits::default() });
        for i in 0..100 {
            rig.publish(1, retained(&topic(i), "x", 1));
        }
        let mut c = Subscriber::connect(&mut rig, 1);
        c.subscribe(&mut rig, sub("#", 1));
        c.take_all(&mut rig, 3);
        assert_eq!(c.topics(), &all()[..100], "{messages} messages, {bytes} bytes");
    }
}

#[test]
fn a_search_that_finds_nothing_gives_way_to_others() {
    // No topic can be jumped over here.
    let mut rig = Rig::new(1);
    for i in 0..MANY {
        rig.publish(1, retained(&format!("{i:05}/other"), "x", 1));
    }
    rig.publish(1, retained("zz/wanted", "x", 1));
    let mut c = Subscriber::connect(&mut rig, 1);
    rig.subscribe(1, "c", c.incarnation, &[sub("+/wanted", 1)]);
    let asked = rig.replay_on();
    assert!(asked >= MANY / REPLAY_VISITS_MAX, "asked {asked} times");
    c.take_all(&mut rig, 1);
    assert_eq!(c.topics(), ["zz/wanted"]);
}

#[test]
fn takeover_failover_and_a_restored_snapshot_lose_and_repeat_nothing() {
    let mut rig = with_many(1);
    let mut c = Subscriber::connect(&mut rig, 1);
    c.subscribe(&mut rig, sub("#", 1));
    c.take(&mut rig, 500);
    c.move_to(&mut rig, 2);
    c.take(&mut rig, 500);
    rig.state = State::read(&mut bytes(&rig.state).as_slice(), Arc::default()).expect("a snapshot");
    c.take(&mut rig, 1500);
    rig.down(1, 2);
    rig.sweep("c");
    // Nobody is asked while nobody is there.
    assert!(rig.effects.is_empty());
    rig.up(2);
    c.move_to(&mut rig, 1);
    c.take_all(&mut rig, 100);
    assert_eq!(c.topics(), all());
}

#[test]
fn an_owner_is_asked_once_and_the_next_one_again() {
    let mut rig = Rig::new(2);
    for i in 0..MANY {
        rig.publish(1, retained(&format!("{i:05}/other"), "x", 1));
    }
    let asked = |rig: &Rig| rig.effects.iter().filter(|e| matches!(e, Effect::ReplayNext { .. })).count();
    let (inc, _) = rig.claim(1, persistent("c"));
    rig.subscribe(1, "c", inc, &[sub("+/wanted", 1)]);
    assert_eq!(asked(&rig), 1);
    rig.progress(1, "c", inc, &[]);
    assert_eq!(asked(&rig), 0, "it has been asked");
    let (newer, _) = rig.claim(2, persistent("c"));
    assert_eq!(asked(&rig), 1, "another owner");
    let stale = Command::Replay { client: "c".into(), incarnation: inc };
    assert_eq!(rig.run(1, stale), Outcome::Stale);
    rig.release(2, "c", newer, WillFate::Discard);
    assert_eq!(asked(&rig), 0);
}

#[test]
fn unsubscribing_ends_it_and_subscribing_again_starts_it_over() {
    let mut rig = with_many(1);
    let mut c = Subscriber::connect(&mut rig, 1);
    c.subscribe(&mut rig, sub("#", 1));
    c.take(&mut rig, 10);
    let queued = rig.state.client("c").expect("a session").queued;
    let unsubscribe = |filter: &str, incarnation| Command::Unsubscribe {
        client: "c".into(),
        incarnation,
        filters: vec![filter.into()],
    };
    rig.run(1, unsubscribe("#", c.incarnation));
    c.take_all(&mut rig, 100);
    assert_eq!(c.got.len(), 10 + queued, "what was queued is delivered, and no more");

    c.got.clear();
    c.subscribe(&mut rig, sub("#", 1));
    // Not sent again, and what was to be sent is.
    for retain_handling in [1, 2] {
        let mut again = sub("#", 1);
        again.options.retain_handling = retain_handling;
        c.subscribe(&mut rig, again);
    }
    c.take_all(&mut rig, 100);
    assert_eq!(c.topics(), all());

    c.got.clear();
    c.subscribe(&mut rig, sub("#", 1));
    let before = rig.state.client("c").expect("a session").queued;
    c.subscribe(&mut rig, sub("#", 2));
    c.take_all(&mut rig, 100);
    assert_eq!(c.topics()[before..], all(), "all of them after the second SUBSCRIBE");
}

#[test]
fn overlapping_subscriptions_are_each_given_theirs() {
    let mut rig = with_many(1);
    let mut c = Subscriber::connect(&mut rig, 1);
    let filters = ["#", "many/+", "many/00007", "other/#"];
    rig.subscribe(1, "c", c.incarnation, &filters.map(|f| sub(f, 1)));
    rig.replay_on();
    c.take_all(&mut rig, 100);
    let mut expected = [all(), all(), vec![topic(7)]].concat();
    expected.sort();
    let mut topics = c.topics();
    topics.sort_unstable();
    assert_eq!(topics, expected);
}

#[test]
fn what_changes_meanwhile_comes_as_it_changes() {
    let mut rig = with_many(1);
    let mut c = Subscriber::connect(&mut rig, 1);
    c.subscribe(&mut rig, sub("#", 1));
    let queued = rig.state.client("c").expect("a session").queued;
    let (gone, set, new, live) = (MANY - 1, MANY - 2, MANY, MANY - 3);
    rig.publish(1, retained(&topic(gone), "", 1));
    rig.publish(1, retained(&topic(set), "newer", 1));
    rig.publish(1, retained(&topic(new), "newest", 1));
    rig.publish(1, message(&topic(live), "live", 1));
    c.take_all(&mut rig, 100);
    let told = |i, payload: &str, retain| (topic(i), payload.to_owned(), retain);
    let expected = [
        told(gone, "", false),
        told(set, "newer", false),
        told(new, "newest", false),
        // A topic's messages keep their order.
        told(live, &live.to_string(), true),
        told(live, "live", false),
    ];
    assert_eq!(c.got[queued..queued + 5], expected);
    assert_eq!(c.got.len(), MANY + 2);
    assert_eq!(c.topics()[queued + 5..], all()[queued..live]);
}

#[test]
fn what_expires_or_is_the_clients_own_meanwhile_does_not_come() {
    let mut rig = with_many(1);
    rig.publish(1, Message { expires_at_ms: 1000, ..retained("zz/expires", "x", 1) });
    rig.publish(1, Message { publisher: "c".into(), ..retained("zz/own", "x", 1) });
    let mut c = Subscriber::connect(&mut rig, 1);
    let mut no_local = sub("#", 1);
    no_local.options.no_local = true;
    c.subscribe(&mut rig, no_local);
    rig.tick(1000);
    c.take_all(&mut rig, 100);
    assert_eq!(c.topics(), all());
}

#[test]
fn messages_at_qos_0_are_for_the_owner_and_the_others_for_the_queue() {
    let mut rig = Rig::new(1);
    for (topic, qos) in [("a", 0), ("b", 1), ("c", 0), ("d", 2)] {
        rig.publish(1, retained(topic, topic, qos));
    }
    for (granted, queued, handed) in
        [(0, &[][..], &["a", "b", "c", "d"][..]), (1, &["b", "d"][..], &["a", "c"][..])]
    {
        let (inc, _) = rig.claim(1, Claim { clean_start: true, ..persistent("c") });
        rig.subscribe(1, "c", inc, &[sub("#", granted)]);
        let handed_over: Vec<_> = rig.handed_over().into_iter().flat_map(|(.., topics)| topics).collect();
        assert_eq!(handed_over, handed);
        assert_eq!(rig.payloads("c"), queued);
        let filters = vec!["#".into()];
        rig.run(1, Command::Unsubscribe { client: "c".into(), incarnation: inc, filters });
        let ended = |e: &Effect| matches!(e, Effect::Replay { replay: None, .. });
        assert!(rig.effects.iter().any(ended), "the owner stops");
    }
}

/// What may happen between two pages.
#[derive(Clone, Debug)]
enum Act {
    /// A retained publish to a topic; an empty payload clears it.
    Retain(usize, bool),
    /// A publish without RETAIN.
    Live(usize),
    Tick,
    /// One page: topics looked at, and messages taken.
    Page(usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..TOPICS.len(), prop::bool::weighted(0.7)).prop_map(|(t, full)| Act::Retain(t, full)),
        2 => (0..TOPICS.len()).prop_map(Act::Live),
        1 => Just(Act::Tick),
        4 => (0..5usize, 0..4usize).prop_map(|(visits, room)| Act::Page(visits, room)),
    ]
}

const TOPICS: [&str; 9] = ["$x", "a", "a/b", "a/b/c", "a/c", "b", "b/c", "c", "c/b"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    /// One subscription, fed in pages of any size while anything is published, against what it
    /// must get: of each topic, what was retained when it began, unless it changed or expired
    /// before its turn, and before anything newer.
    #[test]
    fn pages_under_changes_give_what_the_moment_of_the_subscription_had(
        before in prop::collection::vec((0..TOPICS.len(), any::<bool>()), 0..12),
        filter in prop::sample::select(vec!["#", "+", "a/#", "+/b", "a/+/c", "b", "+/+", "x/#"]),
        acts in prop::collection::vec(act(), 0..30),
    ) {
        let mut rig = Rig::new(1);
        // Half of them expire at the first tick.
        let retain = |rig: &mut Rig, topic: usize, payload: String, expires: bool| {
            let expires_at_ms = if expires { 10 } else { 0 };
            rig.publish(1, Message { expires_at_ms, ..retained(TOPICS[topic], &payload, 1) });
        };
        for (n, (topic, expires)) in before.iter().enumerate() {
            retain(&mut rig, *topic, format!("before {n}"), *expires);
        }
        let mut owed: BTreeMap<String, (String, bool)> = BTreeMap::new();
        for (n, (topic, expires)) in before.iter().enumerate() {
            if filter_matches(filter, TOPICS[*topic]) {
                owed.insert(TOPICS[*topic].into(), (format!("before {n}"), *expires));
            }
        }
        let mut replays = Replays::default();
        replays.set(filter, rig.state.replay(filter, SubOptions::default(), 0, true));
        prop_assert!(owed.is_empty() || !replays.is_empty());
        let mut given: Vec<(String, String)> = Vec::new();
        for (n, act) in acts.into_iter().enumerate() {
            match act {
                Act::Retain(topic, full) => {
                    retain(&mut rig, topic, if full { format!("at {n}") } else { String::new() }, false);
                    // If it was not given before, it never is.
                    owed.remove(TOPICS[topic]);
                }
                Act::Live(topic) => {
                    let topic = TOPICS[topic];
                    if replays.is_ahead(topic) {
                        rig.state.catch_up(&mut replays, "", topic, &mut |r| {
                            given.push((r.message.topic.to_string(), text(r.message)));
                            true
                        });
                    }
                    // What was owed of it has been given, by now or just now.
                    let seen = given.iter().any(|(t, _)| t == topic);
                    prop_assert!(seen || !owed.contains_key(topic), "{topic} is overtaken");
                }
                Act::Tick => {
                    rig.tick(10);
                    let unseen = |t: &String| !given.iter().any(|(g, _)| g == t);
                    owed.retain(|topic, (_, expires)| !(*expires && unseen(topic)));
                }
                Act::Page(mut visits, room) => {
                    let mut left = room;
                    let before = given.len();
                    rig.state.resume(&mut replays, "", &mut visits, &mut |r| {
                        let taken = left > 0;
                        if taken {
                            left -= 1;
                            given.push((r.message.topic.to_string(), text(r.message)));
                        }
                        taken
                    });
                    prop_assert!(given.len() - before <= room);
                }
            }
            // Each once, and nothing but what is owed or was, of the subscription's moment.
            for (at, (topic, payload)) in given.iter().enumerate() {
                prop_assert!(payload.starts_with("before"), "{payload} is newer");
                prop_assert!(given[..at].iter().all(|(earlier, _)| earlier != topic), "{topic} twice");
                if let Some((expected, _)) = owed.get(topic) {
                    prop_assert_eq!(payload, expected);
                }
            }
        }
        given.extend(resumed(&rig.state, &mut replays, "").into_iter().map(|(t, p, _)| (t, p)));
        let given: BTreeMap<_, _> = given.into_iter().collect();
        for (topic, (payload, _)) in owed {
            prop_assert_eq!(given.get(&topic), Some(&payload), "{} is missing", topic);
        }
    }
}
