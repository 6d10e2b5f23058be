//! Hash maps that grow a little at a time: a map that doubles as a whole holds up whoever inserts,
//! a million entries for a tenth of a second.
//!
//! Linear hashing: entries are spread over small tables, and whenever they are too many for the
//! tables there are, one table more is split off another; whenever too few, the last is merged back.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Entries of a table on average, at most: what a change may have to move.
const TABLE_TARGET: usize = 1024;
/// Capacity of a table below which it is not worth shrinking.
const SHRINK_FROM: usize = 64;

/// The table of a hash among `tables`, which is not 0: as many bits as there are tables for, and one
/// less where that table is not there yet. The bits are others than those a table uses itself.
pub fn table_of(hash: u64, tables: usize) -> usize {
    let bits = (hash >> 24) as u32 as usize;
    let all = tables.next_power_of_two();
    let at = bits & (all - 1);
    if at < tables { at } else { bits & (all / 2 - 1) }
}

/// The table that the last of `tables`, at least 2, was split from, and is merged into.
pub fn parent_of_last(tables: usize) -> usize {
    (tables - 1) & (tables.next_power_of_two() / 2 - 1)
}

/// A map whose changes take a bounded time. Memory follows the number of entries, down as well as up.
#[derive(Debug)]
pub struct LinearMap<K, V> {
    /// None while the map is empty.
    tables: Vec<HashTable<(K, V)>>,
    len: usize,
    hasher: RandomState,
}

impl<K, V> Default for LinearMap<K, V> {
    fn default() -> Self {
        Self { tables: Vec::new(), len: 0, hasher: RandomState::default() }
    }
}

impl<K, V> LinearMap<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.tables.iter().flatten().map(|(k, v)| (k, v))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.tables.iter_mut().flatten().map(|(_, v)| v)
    }
}

impl<K: Hash + Eq, V> LinearMap<K, V> {
    fn hash_of(hasher: &RandomState) -> impl Fn(&(K, V)) -> u64 {
        |(key, _)| hasher.hash_one(key)
    }

    #[inline]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        if self.tables.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let table = &self.tables[table_of(hash, self.tables.len())];
        table.find(hash, |(k, _)| k.borrow() == key).map(|(_, v)| v)
    }

    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if self.tables.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let at = table_of(hash, self.tables.len());
        self.tables[at].find_mut(hash, |(k, _)| k.borrow() == key).map(|(_, v)| v)
    }

    /// The value of `key`; `make` gives the entry if there is none.
    pub fn get_or_insert_with<Q: Hash + Eq + ?Sized>(
        &mut self,
        key: &Q,
        make: impl FnOnce() -> (K, V),
    ) -> &mut V
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let found = |tables: &[HashTable<(K, V)>]| {
            !tables.is_empty()
                && tables[table_of(hash, tables.len())].find(hash, |(k, _)| k.borrow() == key).is_some()
        };
        if !found(&self.tables) {
            self.insert_unique(hash, make());
        }
        let at = table_of(hash, self.tables.len());
        let entry = self.tables[at].find_mut(hash, |(k, _)| k.borrow() == key);
        &mut entry.expect("it was there or was inserted").1
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(old) = self.get_mut(&key) {
            return Some(std::mem::replace(old, value));
        }
        self.insert_unique(self.hasher.hash_one(&key), (key, value));
        None
    }

    fn insert_unique(&mut self, hash: u64, entry: (K, V)) {
        self.len += 1;
        if self.len > self.tables.len() * TABLE_TARGET {
            self.split();
        }
        let at = table_of(hash, self.tables.len());
        self.tables[at].insert_unique(hash, entry, Self::hash_of(&self.hasher));
    }

    /// Adds a table, which gets its part of one that there was.
    fn split(&mut self) {
        self.tables.push(HashTable::new());
        let tables = self.tables.len();
        if tables == 1 {
            return;
        }
        let at = parent_of_last(tables);
        let hash_of = Self::hash_of(&self.hasher);
        let parent = std::mem::take(&mut self.tables[at]);
        self.tables[at].reserve(parent.len() / 2, &hash_of);
        for entry in parent {
            let hash = hash_of(&entry);
            self.tables[table_of(hash, tables)].insert_unique(hash, entry, &hash_of);
        }
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if self.tables.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let at = table_of(hash, self.tables.len());
        let table = &mut self.tables[at];
        let ((_, value), _) = table.find_entry(hash, |(k, _)| k.borrow() == key).ok()?.remove();
        if table.capacity() > SHRINK_FROM && table.len() < table.capacity() / 4 {
            table.shrink_to(table.len() * 2, Self::hash_of(&self.hasher));
        }
        self.len -= 1;
        if self.len == 0 {
            self.tables = Vec::new();
        } else if self.tables.len() > 1 && self.len < self.tables.len() * TABLE_TARGET / 4 {
            self.merge();
        }
        Some(value)
    }

    /// Undoes the last split.
    fn merge(&mut self) {
        let at = parent_of_last(self.tables.len());
        let Some(last) = self.tables.pop() else { return };
        let hash_of = Self::hash_of(&self.hasher);
        for entry in last {
            self.tables[at].insert_unique(hash_of(&entry), entry, &hash_of);
        }
    }
}

impl<K: Hash + Eq, V> FromIterator<(K, V)> for LinearMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_table_is_ever_large() {
        let mut map = LinearMap::default();
        for key in 0..100_000u32 {
            map.insert(key, ());
            assert!(map.tables.len() >= map.len().div_ceil(TABLE_TARGET));
        }
        let largest = map.tables.iter().map(HashTable::len).max();
        assert!(largest < Some(3 * TABLE_TARGET), "{largest:?}");
        for key in 0..99_000u32 {
            map.remove(&key);
        }
        let capacity: usize = map.tables.iter().map(HashTable::capacity).sum();
        assert!(capacity < 10_000, "{capacity} for {} entries", map.len());
        for key in 99_000..100_000u32 {
            assert_eq!(map.remove(&key), Some(()));
        }
        assert!(map.is_empty() && map.tables.is_empty());
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0..4u8, 0..9_000u32), 0..20_000)) {
            let (mut map, mut model) = (LinearMap::default(), BTreeMap::new());
            for (n, (kind, key)) in steps.into_iter().enumerate() {
                match kind {
                    0 => prop_assert_eq!(map.insert(key, n), model.insert(key, n)),
                    1 => prop_assert_eq!(
                        map.get_or_insert_with(&key, || (key, n)),
                        model.entry(key).or_insert(n)
                    ),
                    2 => prop_assert_eq!(map.get_mut(&key), model.get_mut(&key)),
                    _ => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.len(), model.len());
            }
            let all: BTreeMap<_, _> = map.iter().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(all, model);
        }
    }
}
