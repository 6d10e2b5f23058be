//! Topic aliases towards a client [MQTT-3.3.2.3.4]: the first topics get them and keep them.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Shorter topics gain nothing by an alias.
const TOPIC_MIN_BYTES: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Aliases {
    by_topic: HashMap<Box<str>, u16, RandomState>,
}

impl Aliases {
    /// The alias to send with `topic` and whether it is new, so that the topic must go along.
    /// Nothing is changed: the packet may yet turn out not to be sent.
    pub fn choose(&self, topic: &str, maximum: u16) -> Option<(u16, bool)> {
        match self.by_topic.get(topic) {
            Some(alias) => Some((*alias, false)),
            None if topic.len() < TOPIC_MIN_BYTES || self.by_topic.len() >= usize::from(maximum) => None,
            None => Some((self.by_topic.len() as u16 + 1, true)),
        }
    }

    pub fn assign(&mut self, topic: &str, alias: u16) {
        self.by_topic.insert(topic.into(), alias);
    }
}
