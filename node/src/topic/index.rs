//! Filters to values, and the values of the filters that match a topic.

use super::is_wildcard;
use super::trie::Trie;
use crate::linear::LinearMap;

/// One value per filter. Memory follows the number of filters, down as well as up.
#[derive(Debug)]
pub struct Index<V> {
    exact: LinearMap<Box<str>, V>,
    wild: Trie<V>,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Index<V> {
    pub fn new() -> Self {
        Self { exact: LinearMap::default(), wild: Trie::new() }
    }

    /// The number of filters.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wild.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, filter: &str) -> Option<&V> {
        if is_wildcard(filter) { self.wild.get(filter) } else { self.exact.get(filter) }
    }

    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        if is_wildcard(filter) { self.wild.get_mut(filter) } else { self.exact.get_mut(filter) }
    }

    /// The filter's value, made by `value` if the filter is new.
    pub fn get_mut_or_insert(&mut self, filter: &str, value: impl FnOnce() -> V) -> &mut V {
        if is_wildcard(filter) {
            self.wild.get_mut_or_insert(filter, value)
        } else {
            self.exact.get_or_insert_with(filter, || (filter.into(), value()))
        }
    }

    pub fn remove(&mut self, filter: &str) -> Option<V> {
        if is_wildcard(filter) {
            return self.wild.remove(filter);
        }
        self.exact.remove(filter)
    }

    /// Calls `f` with the value of every filter that matches the topic name, each once, in an
    /// order that depends on the filters alone and not on how they came in.
    #[inline]
    pub fn matches<'a>(&'a self, topic: &str, mut f: impl FnMut(&'a V)) {
        if !self.exact.is_empty()
            && let Some(value) = self.exact.get(topic)
        {
            f(value);
        }
        if self.wild.len() > 0 {
            self.wild.matches(topic, f);
        }
    }

    /// All values, in no particular order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.wild.values())
    }
}
