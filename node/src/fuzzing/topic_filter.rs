//! Topic names and filters: validity, matching, the index and the retained messages, each beside
//! its definition spelled out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::mqtt::topic::{self, level_count, matches, parse_share, valid_filter, valid_name};
use crate::mqtt::{Message, QoS, SubOptions};
use crate::state::{Command, NodeInfo, Pack, Replays, Resumed, State};
use crate::topic::{Index, filter_matches, is_wildcard, split_shared};

/// Lines that are looked at, which bounds the pairs of them.
const LINES_MAX: usize = 64;

/// Input: text, each line a topic name, a filter, or neither; a line that begins with `-` takes
/// the filter behind it out of the index again.
pub fn topic_filter(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut index = Index::new();
    let mut model = BTreeMap::new();
    let mut names = BTreeSet::new();
    for line in text.split('\n').take(LINES_MAX) {
        judge(line);
        if let Some(filter) = line.strip_prefix('-').filter(|f| valid_filter(f, usize::MAX).is_ok()) {
            assert_eq!(index.remove(filter), model.remove(filter));
        } else if valid_filter(line, usize::MAX).is_ok() {
            assert_eq!(index.get_mut_or_insert(line, || line.to_owned()), line);
            model.insert(line.to_owned(), line.to_owned());
        }
        assert_eq!(index.len(), model.len());
        if valid_name(line, usize::MAX).is_ok() {
            names.insert(line);
        }
    }
    let retained = retaining(&names);
    for name in &names {
        let mut found = Vec::new();
        index.matches(name, |filter| found.push(filter.clone()));
        found.sort();
        let expected: Vec<_> = model.keys().filter(|filter| naive_matches(filter, name)).cloned().collect();
        assert_eq!(found, expected, "filters that match {name:?}");
    }
    for filter in model.keys() {
        assert_eq!(index.get(filter), Some(filter));
        for name in &names {
            let expected = naive_matches(filter, name);
            assert_eq!(matches(filter, name), expected, "{filter:?} and {name:?}");
            assert_eq!(filter_matches(filter, name), expected, "{filter:?} and {name:?}");
        }
        if split_shared(filter).is_none() {
            let expected: Vec<_> = names.iter().filter(|name| naive_matches(filter, name)).copied().collect();
            assert_eq!(replayed(&retained, filter), expected, "retained topics that {filter:?} matches");
        }
    }
    for filter in model.keys() {
        assert_eq!(index.remove(filter).as_ref(), Some(filter));
    }
    assert!(index.is_empty() && index.values().next().is_none());
}

/// What is said of one text alone.
fn judge(text: &str) {
    let levels = text.split('/').count();
    assert_eq!(level_count(text), levels);
    assert_eq!(topic::has_wildcard(text), text.contains(['+', '#']));
    assert_eq!(is_wildcard(text), text.contains(['+', '#']));
    let speakable = !text.is_empty() && text.len() <= topic::MAX_TOPIC_BYTES && !text.contains('\0');
    let is_name = speakable && !text.contains(['+', '#']);
    assert_eq!(valid_name(text, usize::MAX).is_ok(), is_name, "{text:?} as a name");
    assert_eq!(valid_name(text, levels).is_ok(), is_name, "{text:?} as a name of {levels} levels");
    assert!(valid_name(text, levels - 1).is_err());
    let is_filter = speakable && naive_valid_filter(text);
    assert_eq!(valid_filter(text, usize::MAX).is_ok(), is_filter, "{text:?} as a filter");
    if is_filter {
        assert_eq!(parse_share(text), split_shared(text), "the group of {text:?}");
        assert_eq!(parse_share(text).is_some(), text.starts_with("$share/"));
        let inner = parse_share(text).map_or(text, |(_, inner)| inner);
        assert_eq!(valid_filter(text, level_count(inner)), Ok(()));
        assert!(valid_filter(text, level_count(inner) - 1).is_err());
    }
}

fn naive_valid_filter(text: &str) -> bool {
    let mut levels: Vec<&str> = text.split('/').collect();
    if levels[0] == "$share" && levels.len() > 1 {
        // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        let group = levels[1];
        if group.is_empty() || group.contains(['+', '#']) || matches!(levels[2..], [] | [""]) {
            return false;
        }
        levels.drain(..2);
    }
    let last = levels.len() - 1;
    levels.iter().enumerate().all(|(i, level)| match *level {
        "+" => true,
        "#" => i == last,
        _ => !level.contains(['+', '#']),
    })
}

/// The definition, level by level, without any index's structure [MQTT-4.7.1-2],
/// [MQTT-4.7.1-3], [MQTT-4.7.2-1].
pub(crate) fn naive_matches(filter: &str, topic: &str) -> bool {
    fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", f @ ..], [_, t @ ..]) => levels_match(f, t),
            ([a, f @ ..], [b, t @ ..]) if a == b => levels_match(f, t),
            _ => false,
        }
    }
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    levels_match(&filter, &topic)
}

/// A state that retains a message on each of these topics.
fn retaining(names: &BTreeSet<&str>) -> State {
    let publish = |name: &&str| {
        let message = Message {
            topic: (*name).into(),
            payload: b"x".as_slice().into(),
            properties: Box::default(),
            qos: QoS::AtMostOnce,
            retain: true,
            expires_at_ms: 0,
            publisher: Box::default(),
        };
        Command::Publish { message: Arc::new(message), exactly_once: None, or_refuse: false }
    };
    let commands = std::iter::once(Command::NodeUp { info: NodeInfo::default() });
    let commands = commands.chain(names.iter().map(publish)).collect();
    let mut state = State::default();
    let pack = Pack { origin: 1, epoch: 1, seq: 0, commands };
    state.apply(1, 1, &pack, &mut Vec::new()).expect("no command is in parts");
    assert_eq!(state.counts().retained_messages, names.len());
    state
}

/// The topics of all that a new subscription to the filter gets.
pub(super) fn replayed(state: &State, filter: &str) -> Vec<String> {
    let (mut replays, mut found) = (Replays::default(), Vec::new());
    replays.set(filter, state.replay(filter, SubOptions::default(), 0, true));
    let mut visits = usize::MAX;
    let resumed = state.resume(&mut replays, "", &mut visits, &mut |replayed| {
        found.push(replayed.message.topic.to_string());
        true
    });
    assert_eq!(resumed, Resumed::Finished);
    found
}
