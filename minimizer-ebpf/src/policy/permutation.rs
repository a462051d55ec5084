//! Pseudonyms of IPv4 addresses: [`minimizer_common::permutation`] is how they are made.
//!
//! Kernel program and agent compute the same pseudonym for the same address under the same key.

use minimizer_common::permutation::{HALF_BITS, LAST, Permutation, ROUNDS, TABLE_ENTRIES};
use minimizer_common::plan::{IPV4_PSEUDONYM, Plan, Steps};
use minimizer_common::tables::POINTER;

use crate::policy::nodes::{Nodes, constant};
use crate::untraced;

const HALF_MASK: u32 = TABLE_ENTRIES as u32 - 1;

/// The number of an address before it is permuted. The address is in memory order.
#[inline(always)]
#[must_use]
pub fn number(nodes: &impl Nodes, plan: &Plan, permutation: &Permutation, address: u32) -> u32 {
    if Steps(constant!(plan.steps)).intersects(Steps::RANKS) {
        let rank = rank(nodes, constant!(plan.tables.ranks), address);
        if rank < LAST {
            return rank;
        }
    }
    hashed(permutation.multiplier, address)
}

/// The rank of an address among the domestic ones, or [`LAST`] if it has none: see [`minimizer_common::tables`].
#[inline(always)]
fn rank(nodes: &impl Nodes, first_node: u32, address: u32) -> u32 {
    let [first, second, third, fourth] = address.to_ne_bytes();
    let Some(node) = nodes.node(first_node + untraced(first.into())) else { return LAST };
    let mut word = node[usize::from(second)];
    let mut block = u32::from(third);
    if word & POINTER != 0 {
        let Some(node) = nodes.node(word & !POINTER) else { return LAST };
        word = node[usize::from(third)];
        block = 0;
    }
    if word == 0 { LAST } else { (word - 1 + block) << 8 | u32::from(fourth) }
}

/// The hash of an address in memory order: the upper bits of a product with a secret.
#[inline(always)]
#[must_use]
pub const fn hashed(multiplier: u64, address: u32) -> u32 {
    let hash =
        ((u32::from_be(address) as u64).wrapping_mul(multiplier) >> (u64::BITS - 2 * HALF_BITS)) as u32;
    if hash == LAST { 0 } else { hash }
}

/// What a number below [`LAST`] becomes: another such number.
#[inline(always)]
#[must_use]
pub fn permuted(permutation: &Permutation, number: u32) -> u32 {
    let permuted = by_tables(permutation, number);
    if permuted == LAST { permutation.instead_of_last } else { permuted }
}

/// What a number of 28 bits becomes by the tables alone.
#[inline(always)]
#[must_use]
pub fn by_tables(permutation: &Permutation, number: u32) -> u32 {
    let number = untraced(number);
    let (mut left, mut right) = (number >> HALF_BITS & HALF_MASK, number & HALF_MASK);
    let mut round = 0;
    while round < ROUNDS {
        let change = permutation.tables[round][right as usize];
        (left, right) = (right, (left ^ u32::from(change)) & HALF_MASK);
        round += 1;
    }
    left << HALF_BITS | right
}

/// The pseudonym with a number, in memory order.
#[inline(always)]
#[must_use]
pub const fn pseudonym(number: u32) -> u32 {
    (u32::from_be_bytes(IPV4_PSEUDONYM) | number).to_be()
}

/// The number of a pseudonym in memory order.
#[inline(always)]
#[must_use]
pub const fn number_of_pseudonym(pseudonym: u32) -> u32 {
    u32::from_be(pseudonym) & LAST
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use minimizer_common::permutation::{LAST, Permutation, ROUNDS, TABLE_ENTRIES};

    use super::{by_tables, hashed, number_of_pseudonym, permuted, pseudonym};
    use crate::policy::siphash::tests::arbitrary;

    /// Tables of arbitrary numbers, the same in every run.
    fn permutation() -> Box<Permutation> {
        let mut permutation = Box::new(Permutation {
            tables: [[0; TABLE_ENTRIES]; ROUNDS],
            multiplier: 0,
            instead_of_last: 0,
            reserved: 0,
        });
        let mut next = arbitrary();
        permutation.tables.iter_mut().flatten().for_each(|entry| *entry = next() as u16);
        permutation.multiplier = next() | 1;
        permutation.instead_of_last = by_tables(&permutation, LAST);
        permutation
    }

    #[test]
    fn numbers_are_permuted_without_a_collision() {
        let permutation = permutation();
        // A stretch of addresses, and all that lies near the ends.
        let numbers = (0..200_000).chain(LAST - 200_000..LAST);
        let becomes = numbers.clone().map(|number| permuted(&permutation, number)).collect::<BTreeSet<_>>();
        assert_eq!(becomes.len(), numbers.count());
        assert!(becomes.iter().all(|number| *number < LAST));
        // What the tables make 255.255.255.255 becomes what they make of that.
        let before = inverse(&permutation, LAST);
        assert_eq!(permuted(&permutation, before), by_tables(&permutation, LAST));
    }

    /// The number that the tables make another one.
    fn inverse(permutation: &Permutation, number: u32) -> u32 {
        let (mut left, mut right) = (number >> 14, number & 0x3fff);
        for table in permutation.tables.iter().rev() {
            (left, right) = (right ^ u32::from(table[left as usize]) & 0x3fff, left);
        }
        left << 14 | right
    }

    #[test]
    fn one_bit_of_a_number_changes_half_of_the_others() {
        let permutation = &*permutation();
        let changed = |bit: u32| {
            (0..2000).map(move |number| {
                (by_tables(permutation, number) ^ by_tables(permutation, number ^ 1 << bit)).count_ones()
            })
        };
        for bit in 0..28 {
            let mean = changed(bit).sum::<u32>() as f64 / 2000.0;
            assert!((mean - 14.0).abs() < 0.5, "bit {bit}: {mean}");
        }
    }

    #[test]
    fn a_pseudonym_looks_like_an_address_of_nobody_and_has_its_number() {
        assert_eq!(pseudonym(0x0102_0304).to_ne_bytes(), [0xf1, 2, 3, 4]);
        assert_eq!(number_of_pseudonym(pseudonym(0x0102_0304)), 0x0102_0304);
    }

    #[test]
    fn hashes_are_spread_and_never_the_last_number() {
        let multiplier = 0x9e37_79b9_7f4a_7c15;
        let hashes = (0..100_000_u32).map(|n| hashed(multiplier, n.to_be())).collect::<Vec<_>>();
        assert!(hashes.iter().all(|hash| *hash < LAST));
        assert!(hashes.iter().collect::<BTreeSet<_>>().len() > 99_900);
    }
}
