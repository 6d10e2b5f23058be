//! A map that can be frozen without copying it.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::linear::{parent_of_last, table_of};

const SHARDS: usize = 256;
/// Entries of a leaf on average, at most: what the first change of a leaf after a freeze copies.
const LEAF_TARGET: usize = 28;
/// Capacity of a leaf below which it is not worth shrinking.
const SHRINK_FROM: usize = 16;

/// A map keyed by strings, in 256 shards of many small leaves, all behind `Arc`s. A clone shares
/// them all; whichever of the two then changes an entry copies its shard's list of leaves, unless
/// it did so before, and the entry's leaf. So no change is held up long by a freeze, however large
/// the map is, nor by its growth: a shard gets a leaf more at a time (linear hashing).
///
/// The shard of a key is the same on every node and in every version: listings and snapshots go
/// by (shard, key). The leaf is nobody else's business.
#[derive(Clone, Debug)]
pub(super) struct CowMap<V> {
    shards: Box<[Arc<Shard<V>>]>,
    len: usize,
    hasher: RandomState,
}

#[derive(Clone, Debug)]
struct Shard<V> {
    /// None while the shard is empty.
    leaves: Vec<Arc<Leaf<V>>>,
    len: usize,
}

type Leaf<V> = HashTable<(Arc<str>, V)>;

pub(super) fn shard_of(key: &str) -> usize {
    (crc32c::crc32c(key.as_bytes()) & 0xff) as usize
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self { leaves: Vec::new(), len: 0 }
    }
}

impl<V> Default for CowMap<V> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Arc::default()).collect();
        Self { shards, len: 0, hasher: RandomState::default() }
    }
}

impl<V> Shard<V> {
    fn find(&self, hash: u64, key: &str) -> Option<&(Arc<str>, V)> {
        if self.leaves.is_empty() {
            return None;
        }
        self.leaves[table_of(hash, self.leaves.len())].find(hash, |(k, _)| k.as_ref() == key)
    }

    fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.leaves.iter().flat_map(|leaf| leaf.iter().map(|(k, v)| (k, v)))
    }
}

impl<V> CowMap<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        self.get_key_value(key).map(|(_, v)| v)
    }

    pub(super) fn get_key_value(&self, key: &str) -> Option<(&Arc<str>, &V)> {
        let entry = self.shards[shard_of(key)].find(self.hasher.hash_one(key), key);
        entry.map(|(k, v)| (k, v))
    }

    pub(super) const fn shards() -> usize {
        SHARDS
    }

    /// One shard, in no particular order.
    pub(super) fn shard(&self, shard: usize) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.shards[shard].iter()
    }

    pub(super) fn shard_len(&self, shard: usize) -> usize {
        self.shards[shard].len
    }

    /// One shard, ordered by key.
    pub(super) fn sorted_shard(&self, shard: usize) -> Vec<(&Arc<str>, &V)> {
        let mut entries = Vec::with_capacity(self.shards[shard].len);
        entries.extend(self.shards[shard].iter());
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

impl<V: Clone> Shard<V> {
    fn leaf_mut(&mut self, hash: u64) -> &mut Leaf<V> {
        let at = table_of(hash, self.leaves.len());
        Arc::make_mut(&mut self.leaves[at])
    }

    fn insert(&mut self, key: Arc<str>, value: V, hash: u64, hasher: &RandomState) -> Option<V> {
        if self.leaves.is_empty() {
            self.leaves.push(Arc::default());
        }
        let leaf = self.leaf_mut(hash);
        if let Some((_, old)) = leaf.find_mut(hash, |(k, _)| *k == key) {
            return Some(std::mem::replace(old, value));
        }
        leaf.insert_unique(hash, (key, value), |(k, _)| hasher.hash_one(k.as_ref()));
        self.len += 1;
        if self.len > self.leaves.len() * LEAF_TARGET {
            self.split(hasher);
        }
        None
    }

    /// Adds a leaf, which gets its part of one that there was.
    fn split(&mut self, hasher: &RandomState) {
        self.leaves.push(Arc::default());
        let leaves = self.leaves.len();
        let at = parent_of_last(leaves);
        let hash = |entry: &(Arc<str>, V)| hasher.hash_one(entry.0.as_ref());
        let parent = Arc::unwrap_or_clone(std::mem::take(&mut self.leaves[at]));
        let (mut stays, mut goes) = (Leaf::with_capacity(parent.len() / 2), Leaf::new());
        for entry in parent {
            let h = hash(&entry);
            let to = if table_of(h, leaves) == at { &mut stays } else { &mut goes };
            to.insert_unique(h, entry, hash);
        }
        self.leaves[at] = Arc::new(stays);
        self.leaves[leaves - 1] = Arc::new(goes);
    }

    fn remove(&mut self, hash: u64, key: &str, hasher: &RandomState) -> Option<V> {
        let leaf = self.leaf_mut(hash);
        let ((_, old), _) = leaf.find_entry(hash, |(k, _)| k.as_ref() == key).ok()?.remove();
        if leaf.capacity() > SHRINK_FROM && leaf.len() < leaf.capacity() / 4 {
            leaf.shrink_to(leaf.len() * 2, |(k, _)| hasher.hash_one(k.as_ref()));
        }
        self.len -= 1;
        if self.len == 0 {
            self.leaves = Vec::new();
        } else if self.leaves.len() > 1 && self.len < self.leaves.len() * LEAF_TARGET / 4 {
            self.merge(hasher);
        }
        Some(old)
    }

    /// Undoes the last split.
    fn merge(&mut self, hasher: &RandomState) {
        let at = parent_of_last(self.leaves.len());
        let Some(last) = self.leaves.pop() else { return };
        let parent = Arc::make_mut(&mut self.leaves[at]);
        for entry in Arc::unwrap_or_clone(last) {
            let hash = hasher.hash_one(entry.0.as_ref());
            parent.insert_unique(hash, entry, |(k, _)| hasher.hash_one(k.as_ref()));
        }
        if self.leaves.len() < self.leaves.capacity() / 4 {
            self.leaves.shrink_to(self.leaves.len() * 2);
        }
    }
}

impl<V: Clone> CowMap<V> {
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        let hash = self.hasher.hash_one(key);
        let shard = &mut self.shards[shard_of(key)];
        // An absent key is no reason to copy anything.
        shard.find(hash, key)?;
        let leaf = Arc::make_mut(shard).leaf_mut(hash);
        leaf.find_mut(hash, |(k, _)| k.as_ref() == key).map(|(_, v)| v)
    }

    pub(super) fn insert(&mut self, key: Arc<str>, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(key.as_ref());
        let shard = Arc::make_mut(&mut self.shards[shard_of(&key)]);
        let old = shard.insert(key, value, hash, &self.hasher);
        self.len += usize::from(old.is_none());
        old
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let shard = &mut self.shards[shard_of(key)];
        shard.find(hash, key)?;
        let old = Arc::make_mut(shard).remove(hash, key, &self.hasher);
        self.len -= usize::from(old.is_some());
        old
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn a_change_after_a_freeze_copies_one_small_leaf() {
        let mut map = CowMap::default();
        for i in 0..300_000u32 {
            map.insert(i.to_string().into(), i);
        }
        let frozen = map.clone();
        *map.get_mut("77").expect("present") += 1;
        let leaves = |map: &CowMap<u32>| map.shards[shard_of("77")].leaves.clone();
        let (now, before) = (leaves(&map), leaves(&frozen));
        let copied = now.iter().zip(&before).filter(|(a, b)| !Arc::ptr_eq(a, b));
        let sizes: Vec<usize> = copied.map(|(leaf, _)| leaf.len()).collect();
        assert_eq!(sizes.len(), 1);
        assert!(sizes[0] < 5 * LEAF_TARGET, "{sizes:?}");
        let changed = (0..SHARDS).filter(|s| !Arc::ptr_eq(&map.shards[*s], &frozen.shards[*s]));
        assert_eq!(changed.collect::<Vec<_>>(), [shard_of("77")]);
    }

    #[test]
    fn memory_is_given_back() {
        let mut map = CowMap::default();
        let leaves = |map: &CowMap<()>| map.shards.iter().map(|s| s.leaves.len()).sum::<usize>();
        for i in 0..50_000u32 {
            map.insert(i.to_string().into(), ());
        }
        let many = leaves(&map);
        assert!(many >= 50_000 / LEAF_TARGET);
        for i in 0..49_000u32 {
            map.remove(&i.to_string());
        }
        assert!(leaves(&map) < many / 6);
        assert_eq!((map.len(), map.sorted().count()), (1_000, 1_000));
        for i in 49_000..50_000u32 {
            map.remove(&i.to_string());
        }
        assert_eq!((map.len(), leaves(&map)), (0, 0));
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0..3u8, 0..4_000u32), 0..20_000), freezes: u8) {
            let (mut map, mut model) = (CowMap::default(), std::collections::BTreeMap::new());
            let mut frozen = Vec::new();
            for (n, (kind, key)) in steps.iter().enumerate() {
                // All in a few shards, so that leaves split and merge.
                let name: Arc<str> = format!("{}", key % 40 + key * 1_000).into();
                match kind {
                    0 => prop_assert_eq!(map.insert(Arc::clone(&name), n), model.insert(name, n)),
                    1 => prop_assert_eq!(map.remove(&name), model.remove(&name)),
                    _ => {
                        let (ours, theirs) = (map.get_mut(&name), model.get_mut(&name));
                        prop_assert_eq!(ours.as_deref(), theirs.as_deref());
                        if let (Some(a), Some(b)) = (ours, theirs) {
                            (*a, *b) = (n, n);
                        }
                    }
                }
                if n % 5_000 == usize::from(freezes) {
                    frozen.push((map.clone(), model.clone()));
                }
            }
            frozen.push((map, model));
            for (map, model) in frozen {
                prop_assert_eq!(map.len(), model.len());
                let all: std::collections::BTreeMap<_, _> =
                    map.sorted().map(|(k, v)| (Arc::clone(k), *v)).collect();
                prop_assert_eq!(all, model);
            }
        }
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
