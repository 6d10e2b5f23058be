//! Every strategy: who gets how much, and what a change of the members moves.

use std::collections::BTreeMap;

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::mqtt::{Publication, QoS};

fn member(n: usize) -> Slot {
    Slot { key: key_of(&format!("member-{n}")), weight: 1 }
}

fn members(n: usize) -> Vec<Slot> {
    (0..n).map(member).collect()
}

/// A group that is asked again and again.
#[derive(Default)]
struct Asked {
    turn: Turn,
    draw: Draw,
}

impl Asked {
    fn one(
        &mut self,
        strategy: Strategy,
        slots: &[Slot],
        key: &str,
        able: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        choose(strategy, slots, key_of(key), &mut (&mut self.turn, &mut self.draw), able)
    }

    /// How many of `n` messages, each of another key, go to each slot.
    fn shares(
        &mut self,
        strategy: Strategy,
        slots: &[Slot],
        n: usize,
        able: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let mut shares = vec![0; slots.len()];
        for i in 0..n {
            shares[self.one(strategy, slots, &format!("key-{i}"), &able).expect("somebody is able")] += 1;
        }
        shares
    }
}

/// The slot's key per message key.
fn placed(
    strategy: Strategy,
    slots: &[Slot],
    n: usize,
    able: impl Fn(usize) -> bool,
) -> BTreeMap<usize, u64> {
    let mut asked = Asked::default();
    (0..n)
        .filter_map(|i| Some((i, slots[asked.one(strategy, slots, &format!("key-{i}"), &able)?].key)))
        .collect()
}

fn moved(before: &BTreeMap<usize, u64>, after: &BTreeMap<usize, u64>) -> Vec<(u64, u64)> {
    before.iter().map(|(key, slot)| (*slot, after[key])).filter(|(a, b)| a != b).collect()
}

const HASHES: [Strategy; 2] = [Strategy::HashClientId, Strategy::HashTopic];

#[test]
fn by_turns_everyone_gets_the_same_number() {
    let mut asked = Asked::default();
    assert_eq!(asked.shares(Strategy::RoundRobin, &members(7), 700, |_| true), [100; 7]);
    // Whoever is not able is passed over, and nobody gets its turns in addition to their own.
    assert_eq!(
        asked.shares(Strategy::RoundRobin, &members(5), 300, |at| at != 1 && at != 2),
        [100, 0, 0, 100, 100]
    );
    let nodes = [Slot { weight: 1, ..member(0) }, Slot { weight: 9, ..member(1) }];
    assert_eq!(asked.shares(Strategy::RoundRobin, &nodes, 1000, |_| true), [100, 900]);
}

/// Bounds of six standard deviations.
#[test]
fn at_random_everyone_is_as_likely() {
    let mut asked = Asked::default();
    for share in asked.shares(Strategy::Random, &members(10), 10_000, |_| true) {
        assert!(share.abs_diff(1000) < 180, "{share}");
    }
    // Also when most are not able: no neighbour inherits what would have been theirs.
    for (at, share) in
        asked.shares(Strategy::Random, &members(100), 10_000, |at| at % 10 == 1).into_iter().enumerate()
    {
        if at % 10 == 1 {
            assert!(share.abs_diff(1000) < 180, "{at}: {share}");
        } else {
            assert_eq!(share, 0);
        }
    }
    let nodes = [Slot { weight: 3, ..member(0) }, Slot { weight: 1, ..member(1) }];
    let share = asked.shares(Strategy::Random, &nodes, 10_000, |_| true)[0];
    assert!(share.abs_diff(7500) < 260, "{share}");
}

#[test]
fn by_hash_everyone_has_about_as_many_keys() {
    for strategy in HASHES {
        let mut asked = Asked::default();
        for share in asked.shares(strategy, &members(10), 10_000, |_| true) {
            assert!(share.abs_diff(1000) < 180, "{share}");
        }
        let nodes = [
            Slot { weight: 3, ..member(0) },
            Slot { weight: 1, ..member(1) },
            Slot { weight: 6, ..member(2) },
        ];
        let shares = asked.shares(strategy, &nodes, 10_000, |_| true);
        for (share, weight) in shares.iter().zip([3, 1, 6]) {
            assert!(share.abs_diff(1000 * weight) < 300, "{shares:?}");
        }
    }
}

#[test]
fn a_key_stays_where_it_is_while_the_members_do() {
    let slots = members(9);
    for strategy in HASHES {
        assert_eq!(placed(strategy, &slots, 500, |_| true), placed(strategy, &slots, 500, |_| true));
        let mut turned = slots.clone();
        turned.rotate_left(4);
        assert_eq!(placed(strategy, &slots, 500, |_| true), placed(strategy, &turned, 500, |_| true));
    }
}

#[test]
fn who_leaves_moves_only_its_own_keys_and_who_joins_only_takes() {
    let slots = members(10);
    for strategy in HASHES {
        let before = placed(strategy, &slots, 5000, |_| true);
        let without = placed(strategy, &slots, 5000, |at| at != 3);
        let from_gone = moved(&before, &without);
        assert!(from_gone.iter().all(|(from, _)| *from == slots[3].key));
        assert!(from_gone.len() < 700, "about a tenth: {}", from_gone.len());
        // Not being able and not being there are the same.
        let gone: Vec<Slot> = slots.iter().filter(|slot| slot.key != slots[3].key).copied().collect();
        assert_eq!(placed(strategy, &gone, 5000, |_| true), without);
        let joined: Vec<Slot> = slots.iter().copied().chain([member(10)]).collect();
        let to_new = moved(&before, &placed(strategy, &joined, 5000, |_| true));
        assert!(to_new.iter().all(|(_, to)| *to == member(10).key) && to_new.len() < 640);
    }
}

#[test]
fn a_weight_that_grows_only_takes() {
    let weigh = |weight| {
        [Slot { weight: 4, ..member(0) }, Slot { weight, ..member(1) }, Slot { weight: 5, ..member(2) }]
    };
    for strategy in HASHES {
        let before = placed(strategy, &weigh(3), 5000, |_| true);
        let after = placed(strategy, &weigh(4), 5000, |_| true);
        let changed = moved(&before, &after);
        assert!(changed.iter().all(|(_, to)| *to == member(1).key));
        // From 3 of 12 to 4 of 13.
        assert!(changed.len().abs_diff(5000 * 4 / 13 - 5000 / 4) < 120, "{}", changed.len());
    }
}

#[test]
fn one_sticks_until_it_is_gone() {
    let (slots, mut asked) = (members(5), Asked::default());
    let first = asked.one(Strategy::Sticky, &slots, "$share/g/t", |_| true).expect("one");
    for _ in 0..50 {
        assert_eq!(asked.one(Strategy::Sticky, &slots, "$share/g/t", |_| true), Some(first));
    }
    // Another node that asks for the first time begins with the same one.
    assert_eq!(Asked::default().one(Strategy::Sticky, &slots, "$share/g/t", |_| true), Some(first));
    let second = asked.one(Strategy::Sticky, &slots, "$share/g/t", |at| at != first).expect("another");
    assert_ne!(second, first);
    assert_eq!(
        asked.one(Strategy::Sticky, &slots, "$share/g/t", |_| true),
        Some(second),
        "also once it is back"
    );
    let mut more = slots;
    more.insert(0, member(99));
    assert_eq!(
        asked.one(Strategy::Sticky, &more, "$share/g/t", |_| true),
        Some(second + 1),
        "wherever it stands"
    );
}

proptest! {
    /// Whatever the strategy and the members: somebody who is able, as long as anybody is.
    #[test]
    fn somebody_able_is_found_if_there_is_one(
        strategy in prop::sample::select(&Strategy::ALL[..]),
        weights in prop::collection::vec((1u32..40, any::<bool>()), 0..40),
        keys in prop::collection::vec("[a-z]{0,4}", 1..20),
    ) {
        let slots: Vec<Slot> = weights.iter().enumerate().map(|(n, (weight, _))| Slot { weight: *weight, ..member(n) }).collect();
        let mut asked = Asked::default();
        for key in keys {
            let found = asked.one(strategy, &slots, &key, |at| weights[at].1);
            prop_assert_eq!(found.is_some(), weights.iter().any(|(_, able)| *able));
            prop_assert!(found.is_none_or(|at| weights[at].1));
        }
    }
}

#[test]
fn what_a_choice_depends_on() {
    let publication = |topic, publisher| Publication {
        topic,
        payload: b"",
        properties: b"",
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at_ms: 0,
        publisher,
    };
    let [a, b, c] = [publication("t", "p"), publication("t", "q"), publication("u", "p")];
    let same = |strategy: Strategy, x, y| strategy.key("$share/g/+", x) == strategy.key("$share/g/+", y);
    assert!(same(Strategy::HashTopic, &a, &b) && !same(Strategy::HashTopic, &a, &c));
    assert!(!same(Strategy::HashClientId, &a, &b) && same(Strategy::HashClientId, &a, &c));
    assert!(same(Strategy::Sticky, &a, &b) && same(Strategy::Sticky, &a, &c));
}

fn rule(text: &str) -> GroupRule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_first_rule_that_names_a_group_counts() {
    let groups = ["orders=sticky", "cams/hall/*=hash_topic", "cams=local", "*/+/a=b=random"].map(rule);
    let sharing = Sharing { groups: groups.into(), ..Sharing::default() };
    for (full, strategy) in [
        ("$share/orders/a/b", Strategy::Sticky),
        ("$share/orders2/a", Strategy::RoundRobin),
        ("$share/cams/hall/1", Strategy::HashTopic),
        ("$share/cams/yard/1", Strategy::Local),
        ("$share/any/+/a=b", Strategy::Random),
        ("$share/any/x/a=b", Strategy::RoundRobin),
    ] {
        assert_eq!(sharing.strategy_of(full), strategy, "{full}");
    }
}

#[test]
fn rules_that_cannot_be_meant_are_named() {
    for (text, what) in [
        ("orders", "no '='"),
        ("orders=roundrobin", "expected one of random, round_robin"),
        ("=sticky", "no name of a group"),
        ("/a=sticky", "no name of a group"),
        ("a/=sticky", "no name of a group"),
        ("$share/orders=sticky", "without \"$share/\""),
        ("a#=sticky", "has no '+' or '#'"),
    ] {
        let error = text.parse::<GroupRule>().expect_err("refused");
        assert!(error.contains(what), "{text}: {error}");
    }
    for text in ["orders=sticky", "a/#=local", "*=random", "a/+/b=hash_client_id"] {
        assert_eq!(rule(text).to_string(), text);
    }
}

proptest! {
    #[test]
    fn a_star_stands_for_any_text(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
                (Some((p, rest)), Some((t, left))) => p == t && naive(rest, left),
                _ => false,
            }
        }
        prop_assert_eq!(super::rules::glob(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
    }
}
