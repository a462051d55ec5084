//! The trie of prefixes: 16 bits in the root, then 8 bits a node. Equal nodes are stored once.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use minimizer_common::tables::{CLASS_NEVER, Leaf, NODE_WORDS, Node, POINTER};
use minimizer_ebpf::judge::{Address, Nodes};
use minimizer_ebpf::prefixes;

use super::lists::Lists;
use super::selectors::Selectors;
use super::{TableError, class_number, number, written};
use crate::policy::{Class, Prefix};

/// Nodes of a root: one for each first octet.
const ROOT_NODES: usize = 256;

/// Something that is said of a prefix.
#[derive(Clone, Copy)]
pub struct Item {
    pub prefix: Prefix,
    pub meaning: Meaning,
}

/// What is said of it.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// The class of its addresses.
    Class(Class),
    /// They match the indicator at this position.
    Indicator(usize),
}

/// The nodes of both tries.
#[derive(Default)]
pub struct Trie {
    nodes: Vec<Node>,
    known: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// The array as the kernel would see it.
#[derive(Clone, Copy)]
pub struct Array<'nodes>(pub &'nodes [Node]);

impl Nodes for Array<'_> {
    fn node(&self, index: u32) -> Option<&Node> {
        self.0.get(usize::try_from(index).ok()?)
    }
}

impl Trie {
    /// Puts everything in and returns the roots of IPv4 and IPv6.
    pub fn build(
        &mut self,
        mut items: Vec<Item>,
        selectors: &Selectors<'_>,
        lists: &mut Lists,
    ) -> Result<(u32, u32), TableError> {
        // Before everything that it covers stands a prefix; the order of the same prefix is that of the policy.
        items.sort_by_key(|item| item.prefix);
        let (ipv4, ipv6) = items.split_at(items.partition_point(|item| !item.prefix.ipv6));
        self.nodes = vec![[0; NODE_WORDS]; 2 * ROOT_NODES];
        let mut builder = Builder { trie: self, selectors, lists };
        builder.root(ipv4, 0)?;
        builder.root(ipv6, ROOT_NODES)?;
        Ok((0, number(ROOT_NODES)?))
    }

    /// The list of the prefixes that cover a host.
    pub fn list(&self, host: &Prefix, root: u32) -> u32 {
        let address = address(host);
        let array = Array(&self.nodes);
        let leaf = if host.ipv6 {
            prefixes::leaf::<true>(&array, root, address)
        } else {
            prefixes::leaf::<false>(&array, root, address)
        };
        leaf.list()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// The number of a node with these words.
    fn store(&mut self, node: &Node) -> Result<u32, TableError> {
        let Self { nodes, known, hasher } = self;
        let hashed = hasher.hash_one(node);
        let at = |number: u32| usize::try_from(number).ok().and_then(|number| nodes.get(number));
        if let Some(number) = known.find(hashed, |number| at(*number) == Some(node)) {
            return Ok(*number);
        }
        let number = number(nodes.len())?;
        known.insert_unique(hashed, number, |number| hasher.hash_one(at(*number)));
        nodes.push(*node);
        Ok(number)
    }
}

/// The octets of a host or prefix, as the kernel reads them from a tuple.
pub fn address(prefix: &Prefix) -> Address {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = prefix.octets;
    Address {
        high: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        low: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
    }
}

struct Builder<'build, 'policy> {
    trie: &'build mut Trie,
    selectors: &'build Selectors<'policy>,
    lists: &'build mut Lists,
}

impl Builder<'_, '_> {
    /// Fills the root that begins at a node. The second octet's words lie in it even when they are all the same.
    fn root(&mut self, items: &[Item], first_node: usize) -> Result<(), TableError> {
        let by_first_octet = self.fill(items, 0, Leaf::default(), Some(first_node))?;
        for (octet, word) in by_first_octet.into_iter().enumerate() {
            if word != POINTER {
                self.trie.nodes[first_node + octet] = [word; NODE_WORDS];
            }
        }
        Ok(())
    }

    /// The word that stands for a node whose words the octet at `depth` chooses.
    fn word(&mut self, items: &[Item], depth: usize, leaf: Leaf) -> Result<u32, TableError> {
        let node = self.fill(items, depth, leaf, None)?;
        let [first, ..] = node;
        if first & POINTER == 0 && node.iter().all(|word| *word == first) {
            return Ok(first);
        }
        Ok(POINTER | self.trie.store(&node)?)
    }

    /// The words that the octet at `depth` chooses. `leaf` is what the prefix says that covers all of them. Longer
    /// prefixes go into the nodes of the root that begins at a node, or else into nodes behind pointers.
    fn fill(
        &mut self,
        items: &[Item],
        depth: usize,
        leaf: Leaf,
        root: Option<usize>,
    ) -> Result<Node, TableError> {
        let mut words = [leaf.0; NODE_WORDS];
        let end_bits = 8 * (depth + 1);
        let mut rest = items;
        while let Some(Item { prefix, .. }) = rest.first() {
            let octet = usize::from(prefix.octets[depth]);
            let bits = usize::from(prefix.bits);
            // Whatever covers this prefix came before it.
            let covering = Leaf(words[octet]);
            let group;
            if bits <= end_bits {
                (group, rest) = split(rest, |item| item.prefix == *prefix);
                let leaf = self.leaf(prefix, group, covering)?;
                words[octet..octet + (1 << (end_bits - bits))].fill(leaf.0);
            } else {
                (group, rest) = split(rest, |item| usize::from(item.prefix.octets[depth]) == octet);
                words[octet] = match root {
                    Some(first_node) => {
                        self.trie.nodes[first_node + octet] = self.fill(group, depth + 1, covering, None)?;
                        POINTER
                    }
                    None => self.word(group, depth + 1, covering)?,
                };
            }
        }
        Ok(words)
    }

    /// What a prefix says of its addresses, by all that is said of it and by the prefix that covers it.
    fn leaf(&mut self, prefix: &Prefix, said: &[Item], covering: Leaf) -> Result<Leaf, TableError> {
        let mut class = None;
        for item in said {
            let Meaning::Class(next) = item.meaning else { continue };
            class = match (class, next) {
                (None, only) => Some(only),
                (Some(Class::Never), _) | (_, Class::Never) => Some(Class::Never),
                (Some(before), next) if before == next => class,
                _ => return Err(TableError::TwoClasses { prefix: written(prefix) }),
            };
        }
        let class = class.map_or(covering.class(), class_number);
        if class == CLASS_NEVER || covering.class() == CLASS_NEVER {
            // Nobody looks for indicators of an address that is never collected.
            return Ok(Leaf::new(CLASS_NEVER, 0));
        }
        let indicators = said.iter().filter_map(|item| match item.meaning {
            Meaning::Indicator(position) => Some(position),
            Meaning::Class(_) => None,
        });
        let entries = indicators.flat_map(|position| self.selectors.entries(position));
        let list = self.lists.join(entries, covering.list(), || written(prefix))?;
        Ok(Leaf::new(class, list))
    }
}

/// The first items, for which it is true, and the others.
fn split(items: &[Item], is_first: impl Fn(&Item) -> bool) -> (&[Item], &[Item]) {
    items.split_at(items.iter().position(|item| !is_first(item)).unwrap_or(items.len()))
}
