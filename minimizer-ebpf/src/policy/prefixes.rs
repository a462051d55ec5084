//! The longest prefix of an address, by its octets.

use minimizer_common::tables::{CLASS_MIXED, CLASS_NEVER, Leaf, POINTER, Roots};

use crate::policy::judge::{Address, Nodes, constant};
use crate::untraced;

/// What is said of an address in a trie that cannot be read: it is never collected.
const UNREADABLE: Leaf = Leaf::new(CLASS_NEVER, 0);

/// What is said of an address. The classes of IPv4 are 16 KiB, which stay in a processor's nearest cache whatever
/// addresses come; the trie behind them does not. In the trie, too, the root often has the answer.
#[inline(always)]
#[must_use]
pub fn leaf<const IPV6: bool>(nodes: &impl Nodes, address: Address) -> Leaf {
    let Address { high, low } = address;
    let roots = nodes.roots();
    // Of what it is made of the compiler would know how large it is, and the verifier not.
    let octets = untraced(high as u32) as u16;
    if IPV6 {
        let word = constant!(roots.ipv6[octets as usize]);
        if word & POINTER == 0 { Leaf(word) } else { Leaf(descend_ipv6(*nodes, word, high, low)) }
    } else {
        let (place, bit) = Roots::class_place(octets);
        let class = constant!(roots.ipv4_classes[place]) >> bit & 3;
        if class != CLASS_MIXED {
            return Leaf::new(class, 0);
        }
        let word = constant!(roots.ipv4[octets as usize]);
        if word & POINTER == 0 { Leaf(word) } else { Leaf(descend::<2>(*nodes, word, high, low)) }
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
