//! The retained messages.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::cow::CowMap;
use super::limits::NodeLimits;
use super::queue::is_expired;
use crate::mqtt::Message;
use crate::topic::is_wildcard;

/// One message per topic. Wildcard look-ups go over the ordered topics and jump whatever cannot
/// match.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: CowMap<Arc<Message>>,
    topics: BTreeSet<Arc<str>>,
    /// Of messages that expire: when, and which topic.
    expiries: BTreeSet<(u64, Arc<str>)>,
    bytes: usize,
    /// Publishes that were not retained because of the limits. Not in snapshots.
    refused: u64,
}

impl Retained {
    /// Whether the message could be retained within the limits. One that clears its topic always
    /// can, and one that replaces another without being larger.
    pub(super) fn has_room(&self, message: &Message, limits: &NodeLimits) -> bool {
        let size = message.size_bytes();
        let (messages, freed) = match self.messages.get(&message.topic) {
            Some(old) => (self.messages.len(), old.size_bytes()),
            None => (self.messages.len() + 1, 0),
        };
        message.payload.is_empty()
            || ((freed > 0 || messages <= limits.retained_messages as usize)
                && (size <= freed || (self.bytes - freed + size) as u64 <= limits.retained_bytes))
    }

    /// A publish with RETAIN. Beyond the limits it leaves its topic without a retained message:
    /// the one before it is out of date.
    pub(super) fn publish(&mut self, message: &Arc<Message>, limits: &NodeLimits) {
        if self.has_room(message, limits) {
            self.set(message);
        } else {
            self.refused += 1;
            self.remove(&message.topic);
        }
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Keeps the message; an empty payload clears the topic [MQTT-3.3.1-6].
    pub(super) fn set(&mut self, message: &Arc<Message>) {
        if message.payload.is_empty() {
            self.remove(&message.topic);
            return;
        }
        let topic = match self.messages.get_key_value(&message.topic) {
            Some((topic, old)) => {
                self.bytes -= old.size_bytes();
                self.expiries.remove(&(old.expires_at_ms, Arc::clone(topic)));
                Arc::clone(topic)
            }
            None => {
                let topic: Arc<str> = message.topic.as_ref().into();
                self.topics.insert(Arc::clone(&topic));
                topic
            }
        };
        self.bytes += message.size_bytes();
        if message.expires_at_ms != 0 {
            self.expiries.insert((message.expires_at_ms, Arc::clone(&topic)));
        }
        self.messages.insert(topic, Arc::clone(message));
    }

    fn remove(&mut self, topic: &str) {
        let Some((topic, old)) = self.messages.get_key_value(topic) else { return };
        let topic = Arc::clone(topic);
        self.bytes -= old.size_bytes();
        self.expiries.remove(&(old.expires_at_ms, Arc::clone(&topic)));
        self.topics.remove(&topic);
        self.messages.remove(&topic);
    }

    /// Removes up to `max` expired messages.
    pub(super) fn expire(&mut self, clock_ms: u64, max: usize) {
        let due = self.expiries.iter().take_while(|(at, _)| *at <= clock_ms).take(max);
        for topic in due.map(|(_, t)| Arc::clone(t)).collect::<Vec<_>>() {
            self.remove(&topic);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn messages(&self) -> &CowMap<Arc<Message>> {
        &self.messages
    }

    pub(super) fn get(&self, topic: &str, clock_ms: u64) -> Option<&Arc<Message>> {
        self.messages.get(topic).filter(|m| !is_expired(m.expires_at_ms, clock_ms))
    }

    /// Calls `f` with the messages whose topic the (not shared) filter matches, in the order of
    /// topics.
    pub(super) fn matches<'a>(&'a self, filter: &str, clock_ms: u64, mut f: impl FnMut(&'a Arc<Message>)) {
        if !is_wildcard(filter) {
            if let Some(message) = self.get(filter, clock_ms) {
                f(message);
            }
            return;
        }
        let levels: Vec<&str> = filter.split('/').collect();
        let mut from = Bound::Unbounded;
        let mut seek;
        'seek: loop {
            for topic in self.topics.range::<str, _>((from, Bound::Unbounded)) {
                match compare(&levels, topic) {
                    Step::Match => {
                        if let Some(message) = self.get(topic, clock_ms) {
                            f(message);
                        }
                    }
                    Step::Next => {}
                    Step::Seek(to) => {
                        seek = to;
                        from = Bound::Included(&*seek);
                        continue 'seek;
                    }
                    Step::End => return,
                }
            }
            return;
        }
    }
}

enum Step {
    Match,
    /// The next topic may match.
    Next,
    /// No topic before this one does.
    Seek(String),
    End,
}

/// Compares a topic with a filter, and tells how far no other topic can match.
fn compare(levels: &[&str], topic: &str) -> Step {
    if topic.starts_with('$') && matches!(levels.first(), Some(&("+" | "#"))) {
        return Step::Seek("%".to_owned()); // The byte after `$`.
    }
    // Where the topic's present word starts.
    let mut start = 0;
    for (i, level) in levels.iter().enumerate() {
        if *level == "#" {
            return Step::Match;
        }
        let rest = &topic[start..];
        let end = rest.find('/').map_or(topic.len(), |at| start + at);
        let word = &topic[start..end];
        if *level != "+" && *level != word {
            let prefix = &topic[..start];
            return mismatch(prefix, level, topic);
        }
        let last_level = i + 1 == levels.len();
        match (end == topic.len(), last_level) {
            (true, true) => return Step::Match,
            // `a/#` matches `a` too.
            (true, false) if i + 2 == levels.len() && levels[i + 1] == "#" => return Step::Match,
            (true, false) => return Step::Next,
            (false, true) => return beyond(&topic[..=end]),
            (false, false) => start = end + 1,
        }
    }
    Step::Next
}

/// All that starts with `prefix`, which ends with `/`, is passed; the empty prefix is everything.
fn beyond(prefix: &str) -> Step {
    match prefix.strip_suffix('/') {
        Some(parent) => Step::Seek(format!("{parent}0")), // The byte after `/`.
        None => Step::End,
    }
}

/// After `prefix` the filter wants the word `level`, and the topic has another.
fn mismatch(prefix: &str, level: &str, topic: &str) -> Step {
    for target in [format!("{prefix}{level}"), format!("{prefix}{level}/")] {
        if target.as_str() > topic {
            return Step::Seek(target);
        }
    }
    beyond(prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::QoS;
    use crate::topic::filter_matches;

    fn message(topic: &str, payload: &str, expires_at_ms: u64) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: payload.as_bytes().into(),
            properties: Box::default(),
            qos: QoS::AtLeastOnce,
            retain: true,
            expires_at_ms,
            publisher: "p".into(),
        })
    }

    fn found(retained: &Retained, filter: &str, clock_ms: u64) -> Vec<String> {
        let mut topics = Vec::new();
        retained.matches(filter, clock_ms, |m| topics.push(m.topic.to_string()));
        topics
    }

    #[test]
    fn an_empty_payload_clears_the_topic() {
        let mut retained = Retained::default();
        retained.set(&message("a/b", "1", 0));
        retained.set(&message("a/b", "22", 0));
        assert_eq!(retained.get("a/b", 0).map(|m| m.payload.len()), Some(2));
        assert_eq!(retained.bytes(), message("a/b", "22", 0).size_bytes());
        retained.set(&message("a/b", "", 0));
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        assert!(found(&retained, "#", 0).is_empty());
    }

    #[test]
    fn expired_messages_are_invisible_and_then_removed() {
        let mut retained = Retained::default();
        retained.set(&message("a", "x", 100));
        retained.set(&message("b", "x", 0));
        assert_eq!(found(&retained, "+", 99), ["a", "b"]);
        assert_eq!(found(&retained, "+", 100), ["b"]);
        assert!(retained.get("a", 100).is_none());
        retained.expire(100, 10);
        assert_eq!(retained.len(), 1);
    }

    proptest! {
        #[test]
        fn wildcards_find_the_matching_topics_in_order(
            topics in prop::collection::btree_set(
                prop::collection::vec(prop::sample::select(vec!["a", "b", "", "a-b", "$x", "a0", "c"]), 1..5)
                    .prop_map(|w| w.join("/")),
                0..60,
            ),
            levels in prop::collection::vec(prop::sample::select(vec!["a", "b", "+", "", "a-b", "$x"]), 0..4),
            rest in any::<bool>(),
        ) {
            let mut levels = levels;
            if rest || levels.is_empty() {
                levels.push("#");
            }
            let filter = levels.join("/");
            let mut retained = Retained::default();
            for t in &topics {
                retained.set(&message(t, "x", 0));
            }
            let expected: Vec<_> = topics.iter().filter(|t| filter_matches(&filter, t)).cloned().collect();
            prop_assert_eq!(found(&retained, &filter, 0), expected);
        }
    }
}
