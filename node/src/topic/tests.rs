use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Index, filter_matches, split_shared};
use crate::fuzzing::naive_matches;

fn matching(index: &Index<String>, topic: &str) -> Vec<String> {
    let mut found = Vec::new();
    index.matches(topic, |v| found.push(v.clone()));
    found.sort();
    found
}

fn index_of(filters: &[&str]) -> Index<String> {
    let mut index = Index::new();
    for f in filters {
        index.get_mut_or_insert(f, || (*f).to_owned());
    }
    index
}

#[test]
fn multi_level_wildcard_matches_its_parent_and_everything_below() {
    let index = index_of(&["sport/#", "#", "sport/tennis/#", "other/#"]);
    assert_eq!(matching(&index, "sport"), ["#", "sport/#"]);
    assert_eq!(matching(&index, "sport/tennis/player1"), ["#", "sport/#", "sport/tennis/#"]);
}

#[test]
fn single_level_wildcard_matches_one_level_even_an_empty_one() {
    let index = index_of(&["sport/+", "+", "+/+", "/+", "sport/+/ranking"]);
    assert_eq!(matching(&index, "sport"), ["+"]);
    assert_eq!(matching(&index, "sport/"), ["+/+", "sport/+"]);
    assert_eq!(matching(&index, "/finance"), ["+/+", "/+"]);
    assert_eq!(matching(&index, "sport/x/ranking"), ["sport/+/ranking"]);
}

#[test]
fn leading_wildcards_do_not_match_dollar_topics() {
    let index = index_of(&["#", "+/monitor/Clients", "$SYS/#", "$SYS/monitor/+"]);
    assert_eq!(matching(&index, "$SYS/monitor/Clients"), ["$SYS/#", "$SYS/monitor/+"]);
}

#[test]
fn removing_returns_the_value_once_and_leaves_the_others() {
    let mut index = index_of(&["a/+", "a/+/b", "a/#", "a/b"]);
    assert_eq!(index.len(), 4);
    assert_eq!(index.remove("a/+").as_deref(), Some("a/+"));
    assert_eq!(index.remove("a/+"), None);
    assert_eq!(index.remove("never/+"), None);
    assert_eq!(matching(&index, "a/b"), ["a/#", "a/b"]);
    assert_eq!(matching(&index, "a/x/b"), ["a/#", "a/+/b"]);
    for f in ["a/+/b", "a/#", "a/b"] {
        assert!(index.remove(f).is_some());
    }
    assert!(index.is_empty());
}

#[test]
fn many_removed_wildcards_leave_the_rest_findable() {
    let mut index = Index::new();
    for i in 0..5000 {
        index.get_mut_or_insert(&format!("site/{i}/+"), || i.to_string());
    }
    for i in 0..5000 {
        if i % 100 != 0 {
            assert!(index.remove(&format!("site/{i}/+")).is_some());
        }
    }
    assert_eq!(index.len(), 50);
    assert_eq!(matching(&index, "site/4900/x"), ["4900"]);
    assert!(matching(&index, "site/4901/x").is_empty());
    index.get_mut_or_insert("site/4901/+", || "again".to_owned());
    assert_eq!(matching(&index, "site/4901/x"), ["again"]);
}

/// No client gets such a filter past the decoder; the index must not be damaged if one comes.
#[test]
fn what_follows_a_hash_is_not_looked_at() {
    let mut index = index_of(&["a/#", "b/+/b"]);
    assert_eq!(index.remove("a/#/b").as_deref(), Some("a/#"));
    assert!(matching(&index, "a/x").is_empty());
    assert_eq!(matching(&index, "b/x/b"), ["b/+/b"]);
    index.get_mut_or_insert("c/#/c", || "c/#/c".to_owned());
    assert_eq!(matching(&index, "c"), ["c/#/c"]);
}

#[test]
fn shared_filters_split_into_group_and_filter() {
    assert_eq!(split_shared("$share/g/a/+/b"), Some(("g", "a/+/b")));
    assert_eq!(split_shared("$share/g//x"), Some(("g", "/x")));
    assert_eq!(split_shared("share/g/a"), None);
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$SYS", "a-b", "c"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(word(), 1..5).prop_map(|w| w.join("/"))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => word(), 2 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>()).prop_map(|(mut levels, rest)| {
        if rest || levels.is_empty() {
            levels.push("#");
        }
        levels.join("/")
    })
}

proptest! {
    #[test]
    fn index_agrees_with_the_naive_matcher(
        steps in prop::collection::vec((filter(), any::<bool>()), 1..60),
        topics in prop::collection::vec(topic(), 1..20),
    ) {
        let mut index = Index::new();
        let mut model = BTreeMap::new();
        for (filter, insert) in steps {
            if insert {
                prop_assert_eq!(index.get_mut_or_insert(&filter, || filter.clone()), &filter);
                model.insert(filter.clone(), filter);
            } else {
                prop_assert_eq!(index.remove(&filter), model.remove(&filter));
            }
            prop_assert_eq!(index.len(), model.len());
        }
        for topic in topics {
            let expected: Vec<_> = model.keys().filter(|f| naive_matches(f, &topic)).cloned().collect();
            prop_assert_eq!(matching(&index, &topic), expected);
            for f in model.keys() {
                prop_assert_eq!(filter_matches(f, &topic), naive_matches(f, &topic));
            }
        }
        let mut values: Vec<_> = index.values().cloned().collect();
        values.sort();
        prop_assert_eq!(values, model.into_keys().collect::<Vec<_>>());
    }
}

#[test]
fn the_deepest_filters_need_no_deep_stack() {
    let deep = || {
        let topic = "/".repeat(65_534);
        let rest = format!("{}#", "/".repeat(65_534));
        let plus = vec!["+"; 32_768].join("/");
        let mut index = index_of(&[&topic, &rest, &plus]);
        assert_eq!(matching(&index, &topic).len(), 2);
        assert_eq!(matching(&index, &"/".repeat(32_767)), std::slice::from_ref(&plus));
        assert!(filter_matches(&rest, &topic) && filter_matches(&topic, &topic));
        for filter in [&topic, &rest, &plus] {
            assert!(index.remove(filter).is_some());
        }
        assert!(matching(&index, &topic).is_empty());
    };
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(deep).expect("a thread");
    thread.join().expect("no overflow");
}
