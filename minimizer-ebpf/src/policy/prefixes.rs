//! Finds the longest prefix of an address, octet by octet.

use minimizer_common::tables::{CLASS_MIXED, CLASS_NEVER, Leaf, POINTER, Roots};

use crate::policy::nodes::{Address, Nodes, constant};
use crate::untraced;

/// The leaf of every address if a node cannot be read: the program never collects it.
const UNREADABLE: Leaf = Leaf::new(CLASS_NEVER, 0);

/// The leaf of an address. The classes of IPv4 take 16 KiB, which stay in the processor's nearest cache
/// whatever addresses arrive; the trie behind them does not. An address of IPv6, or of a mixed class, often
/// has its leaf in the root of the trie.
#[inline(always)]
#[must_use]
pub fn leaf<const IPV6: bool>(nodes: &impl Nodes, address: Address) -> Leaf {
    let Address { high, low } = address;
    let roots = nodes.roots();
    // Without `untraced` the compiler would know that the number fits and drop the mask. The verifier does
    // not know it and needs the mask.
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

/// A function of its own, which both addresses of a packet share.
#[inline(never)]
fn descend_ipv6<N: Nodes>(nodes: N, word: u32, high: u64, low: u64) -> u32 {
    descend::<14>(nodes, word, high, low)
}

/// The leaf behind a pointer in the root. Each of the `OCTETS` after the second octet chooses a word.
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
