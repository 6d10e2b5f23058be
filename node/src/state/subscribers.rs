//! The subscriptions of persistent sessions, shared ones excepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::mqtt::{QoS, SubOptions};
use crate::topic::{Index, split_shared};

/// What a subscription says besides its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sub {
    pub options: SubOptions,
    /// Subscription identifier; 0: none.
    pub id: u32,
}

impl Sub {
    pub(super) fn is_durable(&self) -> bool {
        self.options.qos > QoS::AtMostOnce
    }

    /// Whether the retained messages go to a subscription [MQTT-3.3.1-9 to MQTT-3.3.1-11]: to a
    /// shared one they do not [MQTT-4.8.2].
    pub(super) fn wants_retained(&self, filter: &str, is_new: bool) -> bool {
        split_shared(filter).is_none()
            && match self.options.retain_handling {
                0 => true,
                1 => is_new,
                _ => false,
            }
    }

    /// Whether a message of `publisher` must not go to `client` [MQTT-3.8.3-3].
    #[inline]
    pub(super) fn excludes(&self, client: &str, publisher: &str) -> bool {
        self.options.no_local && client == publisher
    }
}

/// The subscribers of one filter. Most filters have one, so that one costs no allocation.
#[derive(Debug)]
pub(super) enum Subscribers {
    One(Arc<str>, Sub),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
pub(super) struct Many {
    subs: BTreeMap<Arc<str>, Sub>,
    /// How many of them have a QoS above 0.
    durable: usize,
}

impl Many {
    fn insert(&mut self, client: Arc<str>, sub: Sub) {
        let old = self.subs.insert(client, sub);
        self.durable -= usize::from(old.is_some_and(|s| s.is_durable()));
        self.durable += usize::from(sub.is_durable());
    }
}

impl Subscribers {
    /// In the order of client ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Sub)> {
        let (one, many) = match self {
            Self::One(client, sub) => (Some((client, sub)), None),
            Self::Many(many) => (None, Some(many.subs.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(many) => many.subs.len(),
        }
    }

    /// Whether any of them wants `publisher`'s messages at QoS 1 or 2.
    pub(super) fn is_durable_for(&self, publisher: &str) -> bool {
        match self {
            Self::One(client, sub) => sub.is_durable() && !sub.excludes(client, publisher),
            Self::Many(many) => {
                let own = many.subs.get(publisher);
                let excluded = own.is_some_and(|s| s.is_durable() && s.options.no_local);
                many.durable > usize::from(excluded)
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct SubscriberIndex {
    index: Index<Subscribers>,
}

impl SubscriberIndex {
    pub(super) fn insert(&mut self, filter: &str, client: &Arc<str>, sub: Sub) {
        let mut fresh = false;
        let entry = self.index.get_mut_or_insert(filter, || {
            fresh = true;
            Subscribers::One(Arc::clone(client), sub)
        });
        if fresh {
            return;
        }
        match entry {
            Subscribers::One(only, old) if *only == *client => *old = sub,
            Subscribers::One(only, old) => {
                let mut many = Many::default();
                many.insert(Arc::clone(only), *old);
                many.insert(Arc::clone(client), sub);
                *entry = Subscribers::Many(Box::new(many));
            }
            Subscribers::Many(many) => many.insert(Arc::clone(client), sub),
        }
    }

    pub(super) fn remove(&mut self, filter: &str, client: &str) {
        let Some(entry) = self.index.get_mut(filter) else { return };
        match entry {
            Subscribers::One(only, _) => {
                if only.as_ref() == client {
                    self.index.remove(filter);
                }
            }
            Subscribers::Many(many) => {
                if let Some(sub) = many.subs.remove(client) {
                    many.durable -= usize::from(sub.is_durable());
                }
                if many.subs.len() == 1
                    && let Some((only, sub)) = many.subs.pop_first()
                {
                    *entry = Subscribers::One(only, sub);
                }
            }
        }
    }

    #[inline]
    pub(super) fn matches<'a>(&'a self, topic: &str, f: impl FnMut(&'a Subscribers)) {
        if !self.index.is_empty() {
            self.index.matches(topic, f);
        }
    }
}

/// One session that a message reaches through any number of overlapping subscriptions: it gets
/// one copy, at the highest QoS, with all their identifiers [MQTT-3.3.4-2, MQTT-3.3.4-4].
#[derive(Debug)]
pub(super) struct Hit<'a> {
    pub client: &'a Arc<str>,
    /// The highest granted; the publish's own QoS still caps it.
    pub qos: QoS,
    pub retain_as_published: bool,
    pub ids: smallvec::SmallVec<[u32; 4]>,
}

impl SubscriberIndex {
    /// The sessions that `publisher`'s message on `topic` reaches, by client id.
    pub(super) fn hits(&self, topic: &str, publisher: &str) -> Vec<Hit<'_>> {
        let mut hits: Vec<Hit<'_>> = Vec::new();
        let mut filters = 0;
        self.matches(topic, |subscribers| {
            filters += 1;
            for (client, sub) in subscribers.iter().filter(|(c, s)| !s.excludes(c, publisher)) {
                hits.push(Hit {
                    client,
                    qos: sub.options.qos,
                    retain_as_published: sub.options.retain_as_published,
                    ids: std::iter::once(sub.id).filter(|id| *id != 0).collect(),
                });
            }
        });
        if filters > 1 {
            hits.sort_by(|a, b| a.client.cmp(b.client));
            hits.dedup_by(|next, kept| {
                let same = next.client == kept.client;
                if same {
                    kept.qos = kept.qos.max(next.qos);
                    kept.retain_as_published |= next.retain_as_published;
                    kept.ids.append(&mut next.ids);
                }
                same
            });
            for hit in &mut hits {
                hit.ids.sort_unstable();
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_subscriber_of_a_filter_is_small() {
        assert!(size_of::<(Box<str>, Subscribers)>() <= 40);
    }
}
