//! The trie of prefixes: the root takes 16 bits, each node 8 more. Equal nodes are stored once.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use minimizer_common::tables::{
    CLASS_MIXED, CLASS_NEVER, CLASS_SPECIAL, Leaf, NODE_WORDS, Node, POINTER, ROOT_WORDS, Roots,
};
use minimizer_ebpf::policy::nodes::Address;
use minimizer_ebpf::policy::prefixes;
use zerocopy::FromZeros as _;

use super::lists::Lists;
use super::selectors::Selectors;
use super::{TableError, TablesView, class_number, number, written};
use crate::policy::class::Class;
use crate::policy::prefixes::Prefix;

/// What a policy says about one prefix.
#[derive(Clone, Copy)]
pub struct Item {
    pub prefix: Prefix,
    pub meaning: Meaning,
}

/// What it says.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// The addresses have this class.
    Class(Class),
    /// The addresses match the indicator at this position.
    Indicator(u32),
}

/// Both tries.
pub struct Trie {
    roots: Box<Roots>,
    nodes: Vec<Node>,
    known: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Trie {
    /// Tries in which every address is foreign and has no indicator.
    pub fn empty() -> Result<Self, TableError> {
        let roots = Roots::new_box_zeroed().map_err(|_| TableError::TooLarge)?;
        Ok(Self { roots, nodes: Vec::new(), known: HashTable::new(), hasher: DefaultHashBuilder::default() })
    }

    /// Adds all items.
    pub fn build(
        &mut self,
        mut items: Vec<Item>,
        selectors: &Selectors<'_>,
        lists: &mut Lists,
    ) -> Result<(), TableError> {
        // A prefix comes before every prefix that it covers. Indicators of one prefix stay in the order of the policy, those that
        // name this very prefix first.
        items.sort_unstable_by_key(|item| {
            let order = match item.meaning {
                Meaning::Class(class) => (false, false, class as u32),
                Meaning::Indicator(position) => {
                    (true, selectors.is_carried(&item.prefix, position), position)
                }
            };
            (item.prefix, order)
        });
        let (ipv4, ipv6) = items.split_at(items.partition_point(|item| !item.prefix.ipv6));
        let mut builder = Builder { trie: self, selectors, lists };
        let (ipv4, ipv6) = (builder.root(ipv4)?, builder.root(ipv6)?);
        self.roots.ipv4.copy_from_slice(&ipv4);
        self.roots.ipv6.copy_from_slice(&ipv6);
        self.class_ipv4();
        self.nodes.shrink_to_fit();
        Ok(())
    }

    /// Fills the classes of IPv4 from the root.
    fn class_ipv4(&mut self) {
        let Roots { ipv4_classes, ipv4, .. } = &mut *self.roots;
        for (octets, word) in (0..=u16::MAX).zip(ipv4) {
            let class = Leaf(*word).class();
            let mixed = *word & POINTER != 0 || Leaf(*word).list() != 0 || class == CLASS_SPECIAL;
            let class = if mixed { CLASS_MIXED } else { class };
            let (place, bit) = Roots::class_place(octets);
            ipv4_classes[place] |= class << bit;
        }
    }

    /// The list of the prefixes that cover a host.
    pub fn list(&self, host: &Prefix) -> u32 {
        let address = address(host);
        let seen = TablesView { roots: &self.roots, nodes: &self.nodes, lists: &[] };
        let leaf = if host.ipv6 {
            prefixes::leaf::<true>(&seen, address)
        } else {
            prefixes::leaf::<false>(&seen, address)
        };
        leaf.list()
    }

    pub fn into_parts(self) -> (Box<Roots>, Vec<Node>) {
        (self.roots, self.nodes)
    }

    /// Stores a node, unless an equal one is there, and returns its number.
    fn store(&mut self, node: &Node) -> Result<u32, TableError> {
        let Self { nodes, known, hasher, .. } = self;
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

/// Stores the items behind an octet, given the leaf that covers them, and returns the word for the octet.
type Place<'place, Builder> =
    &'place mut dyn FnMut(&mut Builder, usize, &[Item], Leaf) -> Result<u32, TableError>;

impl Builder<'_, '_> {
    /// The words of the root, one for the first two octets.
    fn root(&mut self, items: &[Item]) -> Result<Vec<u32>, TableError> {
        let mut root = vec![0; ROOT_WORDS];
        let by_first_octet =
            self.fill(items, 0, Leaf::default(), &mut |builder, octet, longer, covering| {
                let by_second_octet = builder.node(longer, 1, covering)?;
                for (second, word) in by_second_octet.into_iter().enumerate() {
                    root[octet | second << 8] = word;
                }
                Ok(POINTER)
            })?;
        for (octet, word) in by_first_octet.into_iter().enumerate().filter(|(_, word)| *word != POINTER) {
            (0..NODE_WORDS).for_each(|second| root[octet | second << 8] = word);
        }
        Ok(root)
    }

    /// The word for a node in which the octet at `depth` chooses: a leaf if all words of the node are equal.
    fn word(&mut self, items: &[Item], depth: usize, leaf: Leaf) -> Result<u32, TableError> {
        let node = self.node(items, depth, leaf)?;
        let [first, ..] = node;
        if first & POINTER == 0 && node.iter().all(|word| *word == first) {
            return Ok(first);
        }
        Ok(POINTER | self.trie.store(&node)?)
    }

    /// The node in which the octet at `depth` chooses.
    fn node(&mut self, items: &[Item], depth: usize, leaf: Leaf) -> Result<Node, TableError> {
        self.fill(items, depth, leaf, &mut |builder, _, longer, covering| {
            builder.word(longer, depth + 1, covering)
        })
    }

    /// The words among which the octet at `depth` chooses. `leaf` is the leaf of the prefix that covers all
    /// of them. `place` stores longer prefixes and returns the word for their octet.
    fn fill(
        &mut self,
        items: &[Item],
        depth: usize,
        leaf: Leaf,
        place: Place<'_, Self>,
    ) -> Result<Node, TableError> {
        let mut words = [leaf.0; NODE_WORDS];
        let end_bits = 8 * (depth + 1);
        let mut rest = items;
        while let Some(Item { prefix, .. }) = rest.first() {
            let octet = usize::from(prefix.octets[depth]);
            let bits = usize::from(prefix.bits);
            // Every prefix that covers this one came before it.
            let covering = Leaf(words[octet]);
            let group;
            if bits <= end_bits {
                (group, rest) = split(rest, |item| item.prefix == *prefix);
                let leaf = self.leaf(prefix, group, covering)?;
                words[octet..octet + (1 << (end_bits - bits))].fill(leaf.0);
            } else {
                (group, rest) = split(rest, |item| usize::from(item.prefix.octets[depth]) == octet);
                words[octet] = place(self, octet, group, covering)?;
            }
        }
        Ok(words)
    }

    /// The leaf of a prefix, from all that the policy says about it and from the leaf that covers it.
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
            // The program looks for no indicator of an address that is never collected.
            return Ok(Leaf::new(CLASS_NEVER, 0));
        }
        let indicators = said.iter().filter_map(|item| match item.meaning {
            Meaning::Indicator(position) => usize::try_from(position).ok(),
            Meaning::Class(_) => None,
        });
        let entries = indicators.flat_map(|position| self.selectors.entries(position));
        let list = self.lists.join(entries, covering.list(), || written(prefix))?;
        Ok(Leaf::new(class, list))
    }
}

/// The leading items for which `is_first` is true, and the rest.
fn split(items: &[Item], is_first: impl Fn(&Item) -> bool) -> (&[Item], &[Item]) {
    items.split_at(items.iter().position(|item| !is_first(item)).unwrap_or(items.len()))
}
