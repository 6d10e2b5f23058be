//! The filters of one connection.

use std::collections::HashSet;

/// From here on they are found by hash: a client with very many must not make every UNSUBSCRIBE
/// look through all of them.
const HASHED_FROM: usize = 32;

/// A set of filters that costs little while they are few.
#[derive(Debug)]
pub enum Filters {
    Few(Vec<Box<str>>),
    Many(HashSet<Box<str>>),
}

impl Default for Filters {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Filters {
    /// Adds a filter that is not there.
    pub fn push(&mut self, filter: Box<str>) {
        match self {
            Self::Few(few) if few.len() < HASHED_FROM => few.push(filter),
            Self::Few(few) => {
                let mut many: HashSet<_> = few.drain(..).collect();
                many.insert(filter);
                *self = Self::Many(many);
            }
            Self::Many(many) => {
                many.insert(filter);
            }
        }
    }

    /// Whether it was there.
    pub fn remove(&mut self, filter: &str) -> bool {
        match self {
            Self::Few(few) => match few.iter().position(|f| **f == *filter) {
                Some(at) => {
                    few.swap_remove(at);
                    true
                }
                None => false,
            },
            Self::Many(many) => {
                let removed = many.remove(filter);
                if many.len() < HASHED_FROM / 2 {
                    *self = Self::Few(many.drain().collect());
                }
                removed
            }
        }
    }

    pub fn contains(&self, filter: &str) -> bool {
        match self {
            Self::Few(few) => few.iter().any(|f| **f == *filter),
            Self::Many(many) => many.contains(filter),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn into_vec(self) -> Vec<Box<str>> {
        match self {
            Self::Few(few) => few,
            Self::Many(many) => many.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_the_same_set() {
        let mut filters = Filters::default();
        for n in 0..100 {
            filters.push(n.to_string().into());
            assert_eq!(matches!(filters, Filters::Many(_)), n >= HASHED_FROM);
            assert!(filters.contains(&n.to_string()) && !filters.contains("100"));
            assert_eq!(filters.len(), n + 1);
        }
        assert!(!filters.remove("100"));
        for n in 0..90 {
            assert!(filters.remove(&n.to_string()), "{n}");
            assert!(!filters.remove(&n.to_string()), "{n}");
        }
        assert!(matches!(filters, Filters::Few(_)));
        let mut left = filters.into_vec();
        left.sort();
        assert_eq!(left, (90..100).map(|n| n.to_string().into()).collect::<Vec<Box<str>>>());
    }
}
