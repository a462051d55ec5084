//! Pseudonyms of IPv4 addresses: [`minimizer_common::permutation`] is how they are made.
//!
//! Kernel program and agent compute the same pseudonym for the same address under the same key.

use core::ops::Range;

use minimizer_common::permutation::{HALF_BITS, LAST, Permutation, ROUNDS, TABLE_ENTRIES};
use minimizer_common::plan::{IPV4_PSEUDONYM, Plan, Steps};
use minimizer_common::tables::POINTER;

use crate::policy::nodes::{Nodes, constant};
use crate::untraced;

const HALF_MASK: u32 = TABLE_ENTRIES as u32 - 1;

/// What is permuted of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Below [`LAST`], or a few numbers more of addresses without a rank.
    pub number: u32,
    /// What changes it half-way: 0 for a rank, another number for each four bits that an address without a rank begins with.
    pub tweak: u32,
}

impl Number {
    /// That of a rank, or of a pseudonym that is permuted again.
    #[inline(always)]
    #[must_use]
    pub const fn of_rank(rank: u32) -> Self {
        Self { number: rank, tweak: 0 }
    }

    /// That of an address without a rank, in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn of_address(permutation: &Permutation, address: u32) -> Self {
        let address = u32::from_be(address);
        let first_bits = (address >> (2 * HALF_BITS)) + 1;
        Self { number: address & LAST, tweak: first_bits.wrapping_mul(permutation.tweak) & LAST }
    }
}

/// The number of an address before it is permuted. The address is in memory order.
#[inline(always)]
#[must_use]
pub fn number(nodes: &impl Nodes, plan: &Plan, permutation: &Permutation, address: u32) -> Number {
    if Steps(constant!(plan.steps)).intersects(Steps::RANKS) {
        let rank = rank(nodes, constant!(plan.tables.ranks), address);
        if rank < LAST {
            return Number::of_rank(rank);
        }
    }
    Number::of_address(permutation, address)
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

/// What a number becomes: another one below [`LAST`].
#[inline(always)]
#[must_use]
pub fn permuted(permutation: &Permutation, number: Number) -> u32 {
    let permuted = by_tables(permutation, number);
    if permuted == LAST { permutation.instead_of_last } else { permuted }
}

/// What a number becomes by the tables alone.
#[inline(always)]
#[must_use]
pub fn by_tables(permutation: &Permutation, Number { number, tweak }: Number) -> u32 {
    let [first, second] = [0, ROUNDS / 2].map(|from| from..from + ROUNDS / 2);
    rounds(permutation, rounds(permutation, untraced(number), first) ^ untraced(tweak), second)
}

#[inline(always)]
fn rounds(permutation: &Permutation, number: u32, rounds: Range<usize>) -> u32 {
    let (mut left, mut right) = (number >> HALF_BITS & HALF_MASK, number & HALF_MASK);
    let mut round = rounds.start;
    while round < rounds.end {
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

    use minimizer_common::permutation::{LAST, Permutation, ROUNDS, TABLE_ENTRIES};

    use super::{Number, by_tables, number_of_pseudonym, permuted, pseudonym};
    use crate::policy::siphash::tests::arbitrary;

    /// Tables of arbitrary numbers, the same in every run.
    fn permutation() -> Box<Permutation> {
        permutation_of(1)
    }

    fn permutation_of(seed: u64) -> Box<Permutation> {
        let mut permutation =
            Box::new(Permutation { tables: [[0; TABLE_ENTRIES]; ROUNDS], tweak: 0, instead_of_last: 0 });
        let mut next = arbitrary(seed);
        permutation.tables.iter_mut().flatten().for_each(|entry| *entry = next() as u16);
        permutation.tweak = next() as u32 | 1;
        permutation.instead_of_last = by_tables(&permutation, Number::of_rank(LAST));
        permutation
    }

    #[test]
    fn numbers_are_permuted_without_a_collision() {
        let permutation = permutation();
        // A stretch of addresses, and all that lies near the ends.
        let numbers = (0..200_000).chain(LAST - 200_000..LAST);
        let becomes = numbers
            .clone()
            .map(|number| permuted(&permutation, Number::of_rank(number)))
            .collect::<BTreeSet<_>>();
        assert_eq!(becomes.len(), numbers.count());
        assert!(becomes.iter().all(|number| *number < LAST));
        // What the tables make 255.255.255.255 becomes what they make of that.
        let before = inverse(&permutation, LAST);
        let instead = by_tables(&permutation, Number::of_rank(LAST));
        assert_eq!(permuted(&permutation, Number::of_rank(before)), instead);
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
                let becomes = |number| by_tables(permutation, Number::of_rank(number));
                (becomes(number) ^ becomes(number ^ 1 << bit)).count_ones()
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

    /// Stretches of addresses, as scans and networks have them, and ranks: whoever begins with other bits is permuted otherwise.
    #[test]
    fn addresses_that_begin_alike_share_no_pseudonym_and_others_do_by_chance() {
        const EACH: u32 = 1 << 17;
        for seed in 1..=8 {
            let permutation = permutation_of(seed);
            let addresses = |first: u32| {
                (first..first + EACH).map(|address| Number::of_address(&permutation, address.to_be()))
            };
            let becomes = |numbers: &mut dyn Iterator<Item = Number>| {
                numbers.map(|number| permuted(&permutation, number)).collect::<BTreeSet<_>>()
            };
            let mut all = becomes(&mut (0..EACH).map(Number::of_rank));
            for first in (0..14).map(|first_bits| first_bits << 28 | 0x0100_0000) {
                let these = becomes(&mut addresses(first));
                assert_eq!(these.len() as u32, EACH, "{first:x}");
                all.extend(these);
            }
            // Pairs of different sets, at 2^-28 each: 6,720, with a standard deviation of 82.
            let shared = 15 * EACH as usize - all.len();
            assert!((6_200..7_200).contains(&shared), "{shared}");
        }
    }
}
