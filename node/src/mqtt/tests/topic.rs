use proptest::prelude::*;

use crate::mqtt::topic::*;

const ANY: usize = usize::MAX;

#[test]
fn names() {
    for good in ["a", "/", "//", "a/b", "$SYS/x", " ", "ä/ö", "\u{FEFF}a", "$share/g/x"] {
        assert_eq!(valid_name(good, ANY), Ok(()), "{good:?}");
    }
    for (bad, why) in [
        ("", TopicError::Empty),
        ("a/+", TopicError::WildcardInName),
        ("#", TopicError::WildcardInName),
        ("a#b", TopicError::WildcardInName),
        ("a\0", TopicError::Nul),
    ] {
        assert_eq!(valid_name(bad, ANY), Err(why), "{bad:?}");
    }
    assert_eq!(valid_name(&"x".repeat(65_535), ANY), Ok(()));
    assert_eq!(valid_name(&"x".repeat(65_536), ANY), Err(TopicError::TooLong));
}

#[test]
fn filters() {
    for good in [
        "a",
        "#",
        "+",
        "+/+",
        "/+",
        "+/",
        "a/#",
        "a/+/#",
        "/#",
        "//#",
        "$SYS/#",
        "$share/g/a",
        "$share/g/#",
        "$share/g/+",
        "$share/g//",
        "$shared/x",
        "$share",
        "$share/g/$SYS/#",
    ] {
        assert_eq!(valid_filter(good, ANY), Ok(()), "{good:?}");
    }
    for (bad, why) in [
        ("", TopicError::Empty),
        ("a#", TopicError::MisplacedHash),
        ("#/a", TopicError::MisplacedHash),
        ("a/#/b", TopicError::MisplacedHash),
        ("a/#/", TopicError::MisplacedHash),
        ("##", TopicError::MisplacedHash),
        ("+#", TopicError::MisplacedHash),
        ("a+", TopicError::MisplacedPlus),
        ("+a/b", TopicError::MisplacedPlus),
        ("a/b+/c", TopicError::MisplacedPlus),
        ("++", TopicError::MisplacedPlus),
        ("a\0/#", TopicError::Nul),
        ("$share/", TopicError::EmptyShareName),
        ("$share//a", TopicError::EmptyShareName),
        ("$share/g", TopicError::NoSharedFilter),
        ("$share/g/", TopicError::NoSharedFilter),
        ("$share/+/a", TopicError::WildcardInShareName),
        ("$share/g#/a", TopicError::WildcardInShareName),
        ("$share/g/a#", TopicError::MisplacedHash),
    ] {
        assert_eq!(valid_filter(bad, ANY), Err(why), "{bad:?}");
    }
}

#[test]
fn levels_are_limited() {
    assert_eq!(valid_name("///", 4), Ok(()));
    assert_eq!(valid_name("///", 3), Err(TopicError::TooManyLevels));
    assert_eq!(valid_name("abcdefgh/b", 1), Err(TopicError::TooManyLevels));
    assert_eq!(valid_filter("a/+/#", 3), Ok(()));
    assert_eq!(valid_filter("a/+/#", 2), Err(TopicError::TooManyLevels));
    assert_eq!(valid_filter("$share/g/a", 1), Ok(()));
    assert_eq!(valid_filter("$share/g/a/b", 1), Err(TopicError::TooManyLevels));
}

#[test]
fn shares() {
    assert_eq!(parse_share("$share/g/a/b"), Some(("g", "a/b")));
    assert_eq!(parse_share("$share/g//"), Some(("g", "/")));
    for none in ["a", "$share/g", "$share//a", "$share/g/", "$share/+/a", "share/g/a"] {
        assert_eq!(parse_share(none), None, "{none:?}");
    }
}

#[test]
fn matching() {
    for (filter, topic, expected) in [
        ("a/b", "a/b", true),
        ("a/b", "a/B", false),
        ("a/b", "a/b/", false),
        ("+", "a", true),
        ("+", "/a", false),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/#", "a", true),
        ("a/#", "a/", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("a/+/#", "a", false),
        ("a/+/#", "a/b", true),
        ("#", "/", true),
        ("#", "$SYS/a", false),
        ("+/a", "$SYS/a", false),
        ("$SYS/#", "$SYS/a", true),
        ("$SYS/+", "$SYS/a", true),
        ("a/#", "a/$b", true),
        ("a/+", "a/$b", true),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
    }
}

/// The matching rules once more, written the other way round: by recursion over both lists.
fn recursive(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) => true,
        ([], []) => true,
        (["+", f @ ..], [_, t @ ..]) => recursive(f, t),
        ([a, f @ ..], [b, t @ ..]) if a == b => recursive(f, t),
        _ => false,
    }
}

#[test]
fn the_servers_own_topics() {
    for own in ["$SYS", "$SYS/", "$SYS/broker/load"] {
        assert!(is_servers(own), "{own}");
    }
    for other in ["$SYSTEM/x", "$sys/x", "x/$SYS", "$share", "a", ""] {
        assert!(!is_servers(other), "{other}");
    }
}

fn oracle(filter: &str, topic: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let hidden = topic[0].starts_with('$') && matches!(filter[0], "+" | "#");
    !hidden && recursive(&filter, &topic)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn matching_agrees_with_the_oracle(
        mut filter in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "+", "$x"]), 0..4),
        hash in any::<bool>(),
        topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "$x"]), 1..5),
    ) {
        if hash || filter.join("/").is_empty() {
            filter.push("#");
        }
        let topic = if topic == [""] { "/".to_owned() } else { topic.join("/") };
        let filter = filter.join("/");
        prop_assert_eq!((valid_filter(&filter, ANY), valid_name(&topic, ANY)), (Ok(()), Ok(())));
        prop_assert_eq!(matches(&filter, &topic), oracle(&filter, &topic));
        prop_assert!(has_wildcard(&filter) || matches(&filter, &filter));
    }

    #[test]
    fn any_valid_name_is_a_filter_that_matches_itself(topic in "[ab$/+#\u{0}ä]{0,8}") {
        if valid_name(&topic, ANY).is_ok() && !topic.starts_with("$share/") {
            prop_assert_eq!(valid_filter(&topic, ANY), Ok(()));
            prop_assert!(matches(&topic, &topic));
        }
        prop_assert_eq!(levels(&topic).count(), level_count(&topic));
        for max in 0..10 {
            let limited = valid_name(&topic, max);
            let fits = level_count(&topic) <= max;
            prop_assert_eq!(limited.is_ok(), valid_name(&topic, ANY).is_ok() && fits);
        }
    }
}
