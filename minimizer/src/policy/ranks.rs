//! Ranks of the domestic IPv4 addresses, of which their pseudonyms are made: so no two of them have one pseudonym.

use minimizer_common::permutation::LAST;
use minimizer_common::tables::{NODE_WORDS, Node, POINTER};
use sha2::{Digest as _, Sha256};

use crate::policy::class::Class;
use crate::policy::model::Scope;

/// Bits of an address within a block. Blocks are numbered: all addresses of a block have a rank if one of them is domestic.
const BLOCK_BITS: u32 = 8;
/// More blocks have no ranks: they would come to the number that is not permuted.
const BLOCKS_MAX: u32 = LAST >> BLOCK_BITS;

/// Says what numbers a permutation is for: the same key under another purpose gives another permutation.
pub type Purpose = [u8; 16];

/// That of numbers that are not ranks.
pub const NO_RANKS: Purpose = *b"IPv4 pseudonyms ";

/// Ranks of the blocks that have domestic addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// In order, and apart from each other.
    stretches: Vec<Stretch>,
    purpose: Purpose,
}

/// Blocks that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: u32,
    blocks: u32,
    /// Rank of the first block.
    rank: u32,
}

impl Ranks {
    /// The ranks of a scope's domestic addresses. `None` if it has none, or more than 2^20 - 1 blocks of 256 addresses have some.
    #[must_use]
    pub fn new(scope: &Scope) -> Option<Self> {
        let domestic =
            scope.prefixes.iter().filter(|(prefix, class)| *class == Class::Domestic && !prefix.ipv6);
        let mut blocks = domestic
            .map(|(prefix, _)| {
                let [a, b, c, ..] = prefix.octets;
                let first = u32::from_be_bytes([0, a, b, c]);
                (first, 1_u32 << (24_u8.saturating_sub(prefix.bits)))
            })
            .collect::<Vec<_>>();
        blocks.sort_unstable();
        let mut stretches = Vec::<Stretch>::new();
        let mut rank = 0;
        for (first, count) in blocks {
            let end = first + count;
            match stretches.last_mut() {
                Some(last) if last.first + last.blocks >= first => {
                    let more = end.saturating_sub(last.first + last.blocks);
                    last.blocks += more;
                    rank += more;
                }
                _ => {
                    stretches.push(Stretch { first, blocks: count, rank });
                    rank += count;
                }
            }
        }
        if !(1..=BLOCKS_MAX).contains(&rank) {
            return None;
        }
        let purpose = purpose_of(&stretches);
        Some(Self { stretches, purpose })
    }

    /// What the permutation of these ranks is for. With other domestic prefixes an address has another rank, and its rank may be
    /// that of another address: under one permutation the two would share a pseudonym.
    #[must_use]
    pub const fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// The rank of an address; `None` if no domestic address is in its block.
    #[must_use]
    pub fn rank(&self, address: u32) -> Option<u32> {
        let block = address >> BLOCK_BITS;
        let after = self.stretches.partition_point(|stretch| stretch.first <= block);
        let stretch = self.stretches[..after].last()?;
        let within = block - stretch.first;
        let low = address & ((1 << BLOCK_BITS) - 1);
        (within < stretch.blocks).then_some((stretch.rank + within) << BLOCK_BITS | low)
    }

    /// Octets of memory.
    #[must_use]
    pub const fn octets(&self) -> usize {
        size_of_val(self.stretches.as_slice())
    }

    /// Appends the ranks as the kernel program reads them: see [`minimizer_common::tables`]. Returns the number of the first
    /// node; `None` if it cannot be numbered.
    pub(crate) fn append(&self, nodes: &mut Vec<Node>) -> Option<u32> {
        let number = |nodes: &[Node]| u32::try_from(nodes.len()).ok().filter(|number| *number < POINTER);
        let root = nodes.len();
        let first_node = number(nodes)?;
        nodes.resize(root + NODE_WORDS, [0; NODE_WORDS]);
        for stretch in &self.stretches {
            let mut done = 0;
            while done < stretch.blocks {
                let (block, word) = (stretch.first + done, stretch.rank + done + 1);
                let (place, third) = ((block >> 8) as usize, (block & 0xff) as usize);
                let (node, second) = (root + place / NODE_WORDS, place % NODE_WORDS);
                if third == 0 && stretch.blocks - done >= 256 {
                    nodes[node][second] = word;
                    done += 256;
                    continue;
                }
                if nodes[node][second] == 0 {
                    nodes[node][second] = number(nodes)? | POINTER;
                    nodes.push([0; NODE_WORDS]);
                }
                let inner = (nodes[node][second] & !POINTER) as usize;
                nodes[inner][third] = word;
                done += 1;
            }
        }
        Some(first_node)
    }
}

/// The first octets of SHA-256 of the stretches: of each the first block and the number of blocks, big-endian.
fn purpose_of(stretches: &[Stretch]) -> Purpose {
    let mut hasher = Sha256::new_with_prefix(NO_RANKS);
    for Stretch { first, blocks, .. } in stretches {
        hasher.update(first.to_be_bytes());
        hasher.update(blocks.to_be_bytes());
    }
    let digest: [u8; 32] = hasher.finalize().into();
    std::array::from_fn(|index| digest[index])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use minimizer_common::permutation::{LAST, Permutation, ROUNDS, TABLE_ENTRIES};
    use minimizer_common::plan::{Plan, Steps};
    use minimizer_ebpf::policy::permutation::{self, Number};

    use super::Ranks;
    use crate::policy::class::Class;
    use crate::policy::model::Scope;
    use crate::policy::prefixes::Prefix;
    use crate::policy::tables::build;

    fn scope(prefixes: &[(&str, Class)]) -> Scope {
        let prefixes = prefixes.iter().map(|(prefix, class)| {
            let (address, bits) = prefix.split_once('/').expect("a prefix");
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.parse::<Ipv4Addr>().expect("an address").octets());
            (Prefix { ipv6: false, octets, bits: bits.parse().expect("bits") }, *class)
        });
        Scope { prefixes: prefixes.collect(), directions: vec![(Class::Domestic, Class::Foreign)] }
    }

    fn number(text: &str) -> u32 {
        text.parse::<Ipv4Addr>().expect("an address").into()
    }

    #[test]
    fn domestic_addresses_have_ranks_and_no_two_the_same() {
        let scope = scope(&[
            ("10.1.0.0/16", Class::Domestic),
            ("10.1.7.0/24", Class::Foreign),
            ("10.2.0.0/17", Class::Domestic),
            ("192.0.2.64/26", Class::Domestic),
            ("192.0.2.128/26", Class::Domestic),
            ("203.0.0.0/14", Class::Domestic),
        ]);
        let ranks = Ranks::new(&scope).expect("few");
        let all = [
            "10.1.0.0",
            "10.1.255.255",
            "10.2.0.0",
            "10.2.127.255",
            "192.0.2.0",
            "192.0.2.255",
            "203.3.255.255",
        ];
        let expected = [0, 0xffff, 0x1_0000, 0x1_7fff, 0x1_8000, 0x1_80ff, 0x1_8100 + 0x3_ffff];
        for (address, rank) in all.into_iter().zip(expected) {
            assert_eq!(ranks.rank(number(address)), Some(rank), "{address}");
        }
        for other in ["0.0.0.0", "10.0.255.255", "10.2.128.0", "192.0.3.0", "203.4.0.0", "255.255.255.255"] {
            assert_eq!(ranks.rank(number(other)), None, "{other}");
        }

        // The kernel program finds the same.
        let built = build(Some(&scope), &[], None, Some(&ranks)).expect("fits");
        let mut plan = Plan::EXACT;
        plan.tables = built.tables;
        plan.steps = Steps::RANKS.0;
        let keys = Permutation { tables: [[0; TABLE_ENTRIES]; ROUNDS], tweak: 1, instead_of_last: 0 };
        let mut seen = BTreeSet::new();
        for address in
            (number("10.0.0.0")..number("10.3.0.0")).chain(number("192.0.1.0")..number("192.0.4.0"))
        {
            let found = permutation::number(&built.content.seen(), &plan, &keys, address.to_be());
            match ranks.rank(address) {
                Some(rank) => {
                    assert_eq!(found, Number::of_rank(rank), "{}", Ipv4Addr::from(address));
                    assert!(seen.insert(rank));
                }
                None => assert_eq!(found, Number::of_address(&keys, address.to_be())),
            }
        }
    }

    #[test]
    fn the_purpose_changes_with_the_ranks_and_with_nothing_else() {
        let purpose = |prefixes: &[(&str, Class)]| *Ranks::new(&scope(prefixes)).expect("few").purpose();
        let one = purpose(&[("203.0.113.0/24", Class::Domestic), ("192.0.2.0/23", Class::Domestic)]);
        let same = purpose(&[
            ("192.0.3.0/24", Class::Domestic),
            ("203.0.113.128/25", Class::Domestic),
            ("203.0.113.64/26", Class::Foreign),
            ("192.0.2.0/24", Class::Domestic),
        ]);
        assert_eq!(one, same);
        let other = purpose(&[("203.0.113.0/24", Class::Domestic), ("192.0.2.0/24", Class::Domestic)]);
        assert_ne!(one, other);
    }

    #[test]
    fn more_addresses_than_pseudonyms_have_no_ranks() {
        assert_eq!(
            Ranks::new(&scope(&[("0.0.0.0/4", Class::Domestic)])),
            None,
            "the last would be 255.255.255.255"
        );
        assert_eq!(Ranks::new(&scope(&[("10.0.0.0/8", Class::Foreign)])), None);
        let most =
            [("0.0.0.0/5", Class::Domestic), ("8.0.0.0/6", Class::Domestic), ("12.0.0.0/7", Class::Domestic)];
        let ranks = Ranks::new(&scope(&most)).expect("fits");
        assert!(ranks.rank(number("13.255.255.255")).is_some_and(|rank| rank < LAST));
    }
}
