//! A map that can be frozen without copying it.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

const SHARDS: usize = 256;
/// Capacity of a shard below which it is not worth shrinking.
const SHRINK_FROM: usize = 16;

type Shard<V> = HashMap<Arc<str>, V, RandomState>;

/// A map keyed by strings, in 256 shards behind `Arc`s. A clone shares them all; whichever of
/// the two then changes a shard copies that one first.
///
/// The shard of a key is the same on every node and in every version: listings and snapshots go
/// by (shard, key).
#[derive(Clone, Debug)]
pub(super) struct CowMap<V> {
    shards: Box<[Arc<Shard<V>>]>,
    len: usize,
}

pub(super) fn shard_of(key: &str) -> usize {
    (crc32c::crc32c(key.as_bytes()) & 0xff) as usize
}

impl<V> Default for CowMap<V> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Arc::new(Shard::default())).collect(), len: 0 }
    }
}

impl<V> CowMap<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        self.shards[shard_of(key)].get(key)
    }

    pub(super) fn get_key_value(&self, key: &str) -> Option<(&Arc<str>, &V)> {
        self.shards[shard_of(key)].get_key_value(key)
    }

    pub(super) const fn shards() -> usize {
        SHARDS
    }

    /// One shard, in no particular order.
    pub(super) fn shard(&self, shard: usize) -> impl ExactSizeIterator<Item = (&Arc<str>, &V)> {
        self.shards[shard].iter()
    }

    /// One shard, ordered by key.
    pub(super) fn sorted_shard(&self, shard: usize) -> Vec<(&Arc<str>, &V)> {
        let mut entries: Vec<_> = self.shards[shard].iter().collect();
        entries.sort_unstable_by_key(|(k, _)| *k);
        entries
    }

    /// Everything, ordered by (shard, key).
    pub(super) fn sorted(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        (0..SHARDS).flat_map(|s| self.sorted_shard(s))
    }

    /// Up to `limit` entries that follow `after` in the order of (shard, key).
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> Vec<(&Arc<str>, &V)> {
        let mut page = Vec::new();
        let first = after.map_or(0, shard_of);
        for shard in first..SHARDS {
            if page.len() >= limit {
                break;
            }
            let from = after.filter(|_| shard == first);
            let entries = self.sorted_shard(shard).into_iter();
            page.extend(
                entries.filter(|(k, _)| from.is_none_or(|a| k.as_ref() > a)).take(limit - page.len()),
            );
        }
        page
    }
}

impl<V: Clone> CowMap<V> {
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        let shard = &mut self.shards[shard_of(key)];
        // An absent key is no reason to copy a shared shard.
        if Arc::get_mut(shard).is_none() && !shard.contains_key(key) {
            return None;
        }
        Arc::make_mut(shard).get_mut(key)
    }

    pub(super) fn insert(&mut self, key: Arc<str>, value: V) -> Option<V> {
        let old = Arc::make_mut(&mut self.shards[shard_of(&key)]).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        let shard = &mut self.shards[shard_of(key)];
        if !shard.contains_key(key) {
            return None;
        }
        let shard = Arc::make_mut(shard);
        let old = shard.remove(key);
        self.len -= usize::from(old.is_some());
        if shard.capacity() > SHRINK_FROM && shard.len() < shard.capacity() / 4 {
            shard.shrink_to(shard.len() * 2);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_not_touched_by_later_changes() {
        let mut map = CowMap::default();
        for i in 0..1000u32 {
            map.insert(i.to_string().into(), i);
        }
        let frozen = map.clone();
        for i in 0..1000u32 {
            match i % 3 {
                0 => assert_eq!(map.remove(&i.to_string()), Some(i)),
                1 => *map.get_mut(&i.to_string()).expect("present") += 1,
                _ => assert_eq!(map.insert(format!("n{i}").into(), i), None),
            }
        }
        assert_eq!(frozen.len(), 1000);
        assert_eq!(frozen.sorted().count(), 1000);
        assert!((0..1000u32).all(|i| frozen.get(&i.to_string()) == Some(&i)));
        assert_eq!(map.get("1"), Some(&2));
        assert_eq!(map.get("0"), None);
        assert_eq!(map.len(), map.sorted().count());
    }

    #[test]
    fn looking_for_an_absent_key_copies_nothing() {
        let mut map = CowMap::default();
        map.insert("a".into(), 1);
        let frozen = map.clone();
        assert!(map.get_mut("b").is_none());
        assert!(map.remove("b").is_none());
        assert!((0..SHARDS).all(|s| Arc::ptr_eq(&map.shards[s], &frozen.shards[s])));
    }

    #[test]
    fn pages_cover_everything_once() {
        let mut map = CowMap::default();
        for i in 0..500 {
            map.insert(format!("client-{i}").into(), ());
        }
        let (mut seen, mut after) = (Vec::new(), None::<Arc<str>>);
        loop {
            let page = map.page(after.as_deref(), 7);
            let Some((last, ())) = page.last() else { break };
            assert!(page.len() <= 7);
            seen.extend(page.iter().map(|(k, ())| Arc::clone(k)));
            after = Some(Arc::clone(last));
        }
        let all: Vec<_> = map.sorted().map(|(k, ())| Arc::clone(k)).collect();
        assert_eq!(seen, all);
    }
}
