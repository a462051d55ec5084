//! The longest prefix of an address, by its octets.

use minimizer_common::tables::{CLASS_NEVER, Leaf, POINTER};

use crate::judge::{Address, Nodes};
use crate::untraced;

/// What is said of an address in a trie that cannot be read: it is never collected.
const UNREADABLE: Leaf = Leaf::new(CLASS_NEVER, 0);

/// What the trie says of an address. Its first two octets choose a word of the root, and nearly always that is a leaf.
#[inline(always)]
#[must_use]
pub fn leaf<const IPV6: bool>(nodes: &impl Nodes, root: u32, address: Address) -> Leaf {
    let Address { high, low } = address;
    let Some(node) = nodes.node(root + (high & 255) as u32) else { return UNREADABLE };
    let word = node[(high >> 8 & 255) as usize];
    if word & POINTER == 0 {
        return Leaf(word);
    }
    if IPV6 {
        Leaf(untraced(descend_ipv6(*nodes, word, high, low)))
    } else {
        Leaf(untraced(descend::<2>(*nodes, word, high, low)))
    }
}

/// Out of line: it is what two addresses have in common.
#[inline(never)]
fn descend_ipv6<N: Nodes>(nodes: N, word: u32, high: u64, low: u64) -> u32 {
    descend::<14>(nodes, word, high, low)
}

/// The leaf behind a pointer in the root: each of the `OCTETS` behind the second chooses a word.
#[inline(always)]
fn descend<const OCTETS: usize>(nodes: impl Nodes, pointer: u32, high: u64, low: u64) -> u32 {
    let mut word = pointer;
    let mut high = high >> 16 | low << 48;
    let mut low = low >> 16;
    for _ in 0..OCTETS {
        let Some(node) = nodes.node(word & !POINTER) else { return UNREADABLE.0 };
        word = node[(high & 255) as usize];
        if word & POINTER == 0 {
            return word;
        }
        high = high >> 8 | low << 56;
        low >>= 8;
    }
    UNREADABLE.0
}
