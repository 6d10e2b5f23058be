//! The wildcard filters: a trie over interned words.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::linear::LinearMap;

const ROOT: u32 = 0;
/// No node, or a word that no filter uses.
const NONE: u32 = u32::MAX;
/// Nodes below which renumbering is not worth it.
const COMPACT_FROM: usize = 64;

#[derive(Debug)]
struct Node<V> {
    /// Of the filter that ends here.
    value: Option<V>,
    /// Of the filter that ends with `#` below here.
    rest: Option<V>,
    /// The child for `+`.
    plus: u32,
    /// How many words lead on from here.
    words: u32,
}

impl<V> Node<V> {
    fn new() -> Self {
        Self { value: None, rest: None, plus: NONE, words: 0 }
    }

    fn is_unused(&self) -> bool {
        self.value.is_none() && self.rest.is_none() && self.plus == NONE && self.words == 0
    }
}

#[derive(Debug)]
struct Word {
    id: u32,
    /// Edges that carry it.
    edges: u32,
}

#[derive(Debug)]
pub(super) struct Trie<V> {
    nodes: Vec<Node<V>>,
    free_nodes: Vec<u32>,
    edges: LinearMap<(u32, u32), u32>,
    words: LinearMap<Box<str>, Word>,
    free_words: Vec<u32>,
    next_word: u32,
    len: usize,
}

impl<V> Trie<V> {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            edges: LinearMap::default(),
            words: LinearMap::default(),
            free_words: Vec::new(),
            next_word: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.nodes.iter().flat_map(|n| n.value.iter().chain(n.rest.iter()))
    }

    pub(super) fn get(&self, filter: &str) -> Option<&V> {
        let (node, rest) = self.find(filter)?;
        let node = &self.nodes[node as usize];
        if rest { node.rest.as_ref() } else { node.value.as_ref() }
    }

    pub(super) fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        let (node, rest) = self.find(filter)?;
        let node = &mut self.nodes[node as usize];
        if rest { node.rest.as_mut() } else { node.value.as_mut() }
    }

    /// The node where the filter ends, and whether by `#`.
    fn find(&self, filter: &str) -> Option<(u32, bool)> {
        if self.nodes.is_empty() {
            return None;
        }
        let mut at = ROOT;
        for level in filter.split('/') {
            at = match level {
                "#" => return Some((at, true)),
                "+" => self.nodes[at as usize].plus,
                word => self.child(at, self.word(word)),
            };
            if at == NONE {
                return None;
            }
        }
        Some((at, false))
    }

    fn word(&self, word: &str) -> u32 {
        self.words.get(word).map_or(NONE, |w| w.id)
    }

    fn child(&self, node: u32, word: u32) -> u32 {
        if word == NONE { NONE } else { self.edges.get(&(node, word)).copied().unwrap_or(NONE) }
    }

    pub(super) fn get_mut_or_insert(&mut self, filter: &str, value: impl FnOnce() -> V) -> &mut V {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new());
        }
        let (mut at, mut rest) = (ROOT, false);
        for level in filter.split('/') {
            match level {
                "#" => {
                    rest = true;
                    break;
                }
                "+" => {
                    if self.nodes[at as usize].plus == NONE {
                        let child = self.new_node();
                        self.nodes[at as usize].plus = child;
                    }
                    at = self.nodes[at as usize].plus;
                }
                word => at = self.child_or_insert(at, word),
            }
        }
        let node = &mut self.nodes[at as usize];
        let slot = if rest { &mut node.rest } else { &mut node.value };
        if slot.is_none() {
            self.len += 1;
        }
        slot.get_or_insert_with(value)
    }

    fn new_node(&mut self) -> u32 {
        match self.free_nodes.pop() {
            Some(id) => id,
            None => {
                self.nodes.push(Node::new());
                (self.nodes.len() - 1) as u32
            }
        }
    }

    fn child_or_insert(&mut self, at: u32, word: &str) -> u32 {
        let known = self.word(word);
        let child = self.child(at, known);
        if child != NONE {
            return child;
        }
        let word = if known == NONE {
            let id = self.free_words.pop().unwrap_or_else(|| {
                self.next_word += 1;
                self.next_word - 1
            });
            self.words.insert(word.into(), Word { id, edges: 1 });
            id
        } else {
            if let Some(w) = self.words.get_mut(word) {
                w.edges += 1;
            }
            known
        };
        let child = self.new_node();
        self.edges.insert((at, word), child);
        self.nodes[at as usize].words += 1;
        child
    }

    pub(super) fn remove(&mut self, filter: &str) -> Option<V> {
        let (mut at, rest) = self.find(filter)?;
        let node = &mut self.nodes[at as usize];
        let value = if rest { node.rest.take() } else { node.value.take() }?;
        self.len -= 1;

        // From the filter's end back to the root, until a node is still in use.
        let mut path: SmallVec<[(u32, &str); 16]> = SmallVec::new();
        let mut from = ROOT;
        for level in filter.split('/').take_while(|l| *l != "#") {
            path.push((from, level));
            from = match level {
                "+" => self.nodes[from as usize].plus,
                word => self.child(from, self.word(word)),
            };
        }
        while let Some((parent, level)) = path.pop() {
            if !self.nodes[at as usize].is_unused() {
                break;
            }
            self.free_nodes.push(at);
            if level == "+" {
                self.nodes[parent as usize].plus = NONE;
            } else {
                self.unlink(parent, level);
            }
            at = parent;
        }
        self.give_back();
        Some(value)
    }

    fn unlink(&mut self, parent: u32, level: &str) {
        let Some(word) = self.words.get_mut(level) else { return };
        let id = word.id;
        word.edges -= 1;
        if word.edges == 0 {
            self.words.remove(level);
            self.free_words.push(id);
        }
        self.edges.remove(&(parent, id));
        self.nodes[parent as usize].words -= 1;
    }

    fn give_back(&mut self) {
        if self.len == 0 {
            *self = Self::new();
        } else if self.nodes.len() > COMPACT_FROM && self.free_nodes.len() > self.nodes.len() / 4 * 3 {
            self.renumber();
        }
    }

    /// Closes the gaps that removed filters left.
    fn renumber(&mut self) {
        let mut new_words = HashMap::with_capacity_and_hasher(self.words.len(), RandomState::default());
        for (new, word) in (0..).zip(self.words.values_mut()) {
            new_words.insert(word.id, new);
            word.id = new;
        }
        self.next_word = self.words.len() as u32;
        self.free_words = Vec::new();

        let mut free = vec![false; self.nodes.len()];
        for id in std::mem::take(&mut self.free_nodes) {
            free[id as usize] = true;
        }
        let mut new_ids = vec![NONE; self.nodes.len()];
        let mut kept = Vec::with_capacity(self.nodes.len() / 2);
        for (old, node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            if !free[old] {
                new_ids[old] = kept.len() as u32;
                kept.push(node);
            }
        }
        kept.shrink_to_fit();
        for node in kept.iter_mut().filter(|n| n.plus != NONE) {
            node.plus = new_ids[node.plus as usize];
        }
        self.nodes = kept;
        self.edges = self
            .edges
            .iter()
            .map(|((node, word), child)| {
                ((new_ids[*node as usize], new_words[word]), new_ids[*child as usize])
            })
            .collect();
    }

    pub(super) fn matches<'a>(&'a self, topic: &str, mut f: impl FnMut(&'a V)) {
        if self.nodes.is_empty() {
            return;
        }
        let words: SmallVec<[u32; 16]> = topic.split('/').map(|w| self.word(w)).collect();
        // A leading wildcard does not match topics that begin with `$` [MQTT-4.7.2-1].
        let hidden = topic.starts_with('$');
        let mut stack: SmallVec<[(u32, u32); 32]> = SmallVec::new();
        stack.push((ROOT, 0));
        while let Some((at, level)) = stack.pop() {
            let node = &self.nodes[at as usize];
            let wild = !(hidden && at == ROOT);
            if let Some(rest) = &node.rest
                && wild
            {
                f(rest);
            }
            let Some(word) = words.get(level as usize) else {
                if let Some(value) = &node.value {
                    f(value);
                }
                continue;
            };
            if node.plus != NONE && wild {
                stack.push((node.plus, level + 1));
            }
            if node.words > 0 {
                let child = self.child(at, *word);
                if child != NONE {
                    stack.push((child, level + 1));
                }
            }
        }
    }
}
