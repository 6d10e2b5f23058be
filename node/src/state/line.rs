//! A line of waiting items that can be frozen without copying it.

use std::collections::VecDeque;
use std::sync::Arc;

/// Items of one piece, at most: what the first change after a clone copies.
const PIECE: usize = 128;

/// First in, first out, in pieces behind `Arc`s: a clone shares them, and whichever of the two then
/// changes one copies that one first. However long the line is, that takes no noticeable time.
#[derive(Clone, Debug)]
pub(super) struct Line<T> {
    /// None of them is empty.
    pieces: VecDeque<Arc<VecDeque<T>>>,
    len: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), len: 0 }
    }
}

impl<T> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}

impl<T: Clone> Line<T> {
    pub(super) fn push_back(&mut self, item: T) {
        match self.pieces.back_mut() {
            Some(last) if last.len() < PIECE => Arc::make_mut(last).push_back(item),
            _ => self.pieces.push_back(Arc::new(VecDeque::from([item]))),
        }
        self.len += 1;
    }

    pub(super) fn push_front(&mut self, item: T) {
        match self.pieces.front_mut() {
            Some(first) if first.len() < PIECE => Arc::make_mut(first).push_front(item),
            _ => self.pieces.push_front(Arc::new(VecDeque::from([item]))),
        }
        self.len += 1;
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let first = Arc::make_mut(self.pieces.front_mut()?);
        let item = first.pop_front();
        if first.is_empty() {
            self.pieces.pop_front();
            self.give_back();
        } else if first.len() < first.capacity() / 4 {
            first.shrink_to(first.len() * 2);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    pub(super) fn pop_front_if(&mut self, condition: impl FnOnce(&T) -> bool) -> Option<T> {
        let first = self.pieces.front()?.front()?;
        if condition(first) { self.pop_front() } else { None }
    }

    /// Gives memory back once three quarters of it are idle.
    fn give_back(&mut self) {
        if self.pieces.len() < self.pieces.capacity() / 4 {
            self.pieces.shrink_to(self.pieces.len() * 2);
        }
    }
}

impl<T: Clone> FromIterator<T> for Line<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut line = Self::default();
        items.into_iter().for_each(|item| line.push_back(item));
        line
    }
}

/// The items of a line, piece by piece.
pub(super) struct Items<T>(Line<T>);

impl<T: Clone> Iterator for Items<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.pop_front()
    }
}

impl<T: Clone> IntoIterator for Line<T> {
    type Item = T;
    type IntoIter = Items<T>;

    fn into_iter(self) -> Items<T> {
        Items(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_after_a_clone_copies_one_piece() {
        let mut line: Line<u32> = (0..100_000).collect();
        let frozen = line.clone();
        line.push_back(1);
        assert_eq!(line.pop_front(), Some(0));
        let shared = |piece: &&Arc<VecDeque<u32>>| Arc::strong_count(piece) > 1;
        assert_eq!(frozen.pieces.iter().filter(shared).count(), frozen.pieces.len() - 2);
        assert!(frozen.iter().copied().eq(0..100_000));
        assert!(line.iter().copied().eq((1..100_000).chain([1])));
    }

    proptest! {
        #[test]
        fn it_is_a_line(steps in prop::collection::vec((0..7u8, any::<u16>()), 0..3_000)) {
            let (mut line, mut model) = (Line::default(), VecDeque::new());
            let mut frozen = Vec::new();
            for (kind, item) in steps {
                match kind {
                    0..=2 => {
                        line.push_back(item);
                        model.push_back(item);
                    }
                    3 => {
                        line.push_front(item);
                        model.push_front(item);
                    }
                    4 => prop_assert_eq!(line.pop_front(), model.pop_front()),
                    5 => prop_assert_eq!(
                        line.pop_front_if(|first| *first > item),
                        model.pop_front_if(|first| *first > item)
                    ),
                    _ if frozen.len() < 3 => frozen.push((line.clone(), model.clone())),
                    _ => {}
                }
                prop_assert_eq!(line.len(), model.len());
            }
            frozen.push((line, model));
            for (line, model) in frozen {
                prop_assert!(line.pieces.iter().all(|piece| (1..=PIECE).contains(&piece.len())));
                prop_assert_eq!(line.iter().copied().collect::<Vec<_>>(), Vec::from(model.clone()));
                prop_assert_eq!(line.into_iter().collect::<Vec<_>>(), Vec::from(model));
            }
        }
    }
}
