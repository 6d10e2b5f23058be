//! The retained messages.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::cow::CowMap;
use super::limits::NodeLimits;
use super::queue::is_expired;
use super::replay::Revision;
use crate::mqtt::{Message, QoS};
use crate::topic::is_wildcard;

/// The message of a topic, and when it was set.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub message: Arc<Message>,
    pub revision: Revision,
}

/// One message per topic. Wildcard look-ups go over the ordered topics and jump whatever cannot
/// match.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: CowMap<Kept>,
    topics: BTreeSet<Arc<str>>,
    /// That of the message set last.
    revision: Revision,
    /// Messages that were published at QoS 0.
    at_qos0: usize,
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
            Some(old) => (self.messages.len(), old.message.size_bytes()),
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
        self.revision += 1;
        self.insert(message, self.revision);
    }

    /// As it was when the message was set last, before the messages of a snapshot are put back.
    pub(super) fn restore(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// Puts back a message that was set at `revision`.
    pub(super) fn insert(&mut self, message: &Arc<Message>, revision: Revision) {
        let topic = match self.messages.get_key_value(&message.topic) {
            Some((topic, old)) => {
                let (topic, old) = (Arc::clone(topic), Arc::clone(&old.message));
                self.forget(&topic, &old);
                topic
            }
            None => {
                let topic: Arc<str> = message.topic.as_ref().into();
                self.topics.insert(Arc::clone(&topic));
                topic
            }
        };
        self.bytes += message.size_bytes();
        self.at_qos0 += usize::from(message.qos == QoS::AtMostOnce);
        if message.expires_at_ms != 0 {
            self.expiries.insert((message.expires_at_ms, Arc::clone(&topic)));
        }
        self.messages.insert(topic, Kept { message: Arc::clone(message), revision });
    }

    /// Takes a topic's message out of the sums.
    fn forget(&mut self, topic: &Arc<str>, old: &Message) {
        self.bytes -= old.size_bytes();
        self.at_qos0 -= usize::from(old.qos == QoS::AtMostOnce);
        if old.expires_at_ms != 0 {
            self.expiries.remove(&(old.expires_at_ms, Arc::clone(topic)));
        }
    }

    fn remove(&mut self, topic: &str) {
        let Some((topic, _)) = self.messages.get_key_value(topic) else { return };
        let topic = Arc::clone(topic);
        self.topics.remove(&topic);
        if let Some(old) = self.messages.remove(&topic) {
            self.forget(&topic, &old.message);
        }
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

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// How many messages were published at QoS 0.
    pub(super) fn at_qos0(&self) -> usize {
        self.at_qos0
    }

    pub(super) fn messages(&self) -> &CowMap<Kept> {
        &self.messages
    }

    pub(super) fn get(&self, topic: &str, clock_ms: u64) -> Option<&Arc<Message>> {
        self.get_upto(topic, Revision::MAX, clock_ms)
    }

    /// The topic's message, if it was not set after `upto`.
    pub(super) fn get_upto(&self, topic: &str, upto: Revision, clock_ms: u64) -> Option<&Arc<Message>> {
        let kept = self.messages.get(topic).filter(|kept| kept.revision <= upto)?;
        (!is_expired(kept.message.expires_at_ms, clock_ms)).then_some(&kept.message)
    }

    /// Whether looking for what the (not shared) filter matches is worth it.
    pub(super) fn may_match(&self, filter: &str) -> bool {
        if is_wildcard(filter) { self.messages.len() > 0 } else { self.messages.get(filter).is_some() }
    }

    /// Calls `f` with the topics, from `from` on and in their order, that the (not shared) filter
    /// matches, until it returns false or `visits`, which is counted down, is 0.
    pub(super) fn walk(
        &self,
        filter: &str,
        from: &str,
        visits: &mut usize,
        mut f: impl FnMut(&str) -> bool,
    ) -> Walked {
        if !is_wildcard(filter) {
            if filter < from || self.messages.get(filter).is_none() {
                return Walked::End;
            }
            if *visits == 0 {
                return Walked::Paused(filter.into());
            }
            *visits -= 1;
            return if f(filter) { Walked::End } else { Walked::Stopped(filter.into()) };
        }
        let levels: Vec<&str> = filter.split('/').collect();
        let mut from = Bound::Included(from);
        let mut seek;
        'seek: loop {
            for topic in self.topics.range::<str, _>((from, Bound::Unbounded)) {
                if *visits == 0 {
                    return Walked::Paused((&**topic).into());
                }
                *visits -= 1;
                match compare(&levels, topic) {
                    Step::Match => {
                        if !f(topic) {
                            return Walked::Stopped((&**topic).into());
                        }
                    }
                    Step::Next => {}
                    Step::Seek(to) => {
                        seek = to;
                        from = Bound::Included(&*seek);
                        continue 'seek;
                    }
                    Step::End => return Walked::End,
                }
            }
            return Walked::End;
        }
    }
}

/// Why a walk over the topics ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// There are no more.
    End,
    /// This one was not taken.
    Stopped(Box<str>),
    /// Enough topics were visited; this one is next.
    Paused(Box<str>),
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
        let walked = retained.walk(filter, "", &mut usize::MAX.clone(), |topic| {
            topics.extend(retained.get(topic, clock_ms).map(|m| m.topic.to_string()));
            true
        });
        assert_eq!(walked, Walked::End);
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
