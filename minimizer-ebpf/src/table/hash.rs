//! The keyed hash that spreads tuples over the groups of the flow table.
//!
//! Pair-multiply-shift (Lemire and Kaser, "Strongly universal string hashing is fast"): with random 64-bit
//! keys, the upper 32 bits of `Σ (k₂ᵢ + x₂ᵢ)(k₂ᵢ₊₁ + x₂ᵢ₊₁)` over 32-bit words are strongly universal.
//! Somebody who does not know the keys can make two tuples collide with probability 2⁻³² at best.
//!
//! That promise covers pairs only. The sum maps a run of consecutive addresses to an arithmetic progression,
//! which with one key in a hundred falls into few groups. A final mix, a bijection of all 64 bits, breaks the
//! progression up. An IPv4 tuple costs four multiplications.

use core::ptr;

use minimizer_common::settings::HASH_KEYS;
use minimizer_common::slot::{HALF_WORDS, Narrow, Wide};

/// The position of a narrow slot: its low bits name the group, its top bits the half at which probing starts.
#[inline(always)]
#[must_use]
pub fn narrow(keys: &[u64; HASH_KEYS], slot: &[u64; HALF_WORDS]) -> u32 {
    let [addresses, transport, marks, _] = *slot;
    upper_half(sum(keys, addresses, transport, marks & Narrow::KEY))
}

/// The position of a wide slot; see [`narrow`].
#[inline(always)]
#[must_use]
pub fn wide(keys: &[u64; HASH_KEYS], slot: &[u64; 2 * HALF_WORDS]) -> u32 {
    let [source, source_end, _, _, destination, destination_end, counters, transport] = *slot;
    let sum = sum(keys, source, transport, counters & Wide::KIND)
        .wrapping_add(pair(keys, 5, source_end))
        .wrapping_add(pair(keys, 7, destination))
        .wrapping_add(pair(keys, 9, destination_end));
    upper_half(sum)
}

/// The second position of a tuple whose first group is full: another mix of the same hash.
#[inline(always)]
#[must_use]
pub const fn second(position: u32) -> u32 {
    // Any odd constant works: the secret is in `position`.
    const MIX: u32 = 0x9e37_79b1;
    (position ^ position >> 15).wrapping_mul(MIX)
}

/// The upper half of the mixed sum. Scans and address pools make tuples in arithmetic progression. Without
/// the mix, unlucky keys could put them into few groups.
#[inline(always)]
fn upper_half(sum: u64) -> u32 {
    // Any odd constant works: the secret is in `sum`.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (sum ^ sum >> 32).wrapping_mul(MIX);
    (mixed >> 32) as u32
}

#[inline(always)]
fn sum(keys: &[u64; HASH_KEYS], addresses: u64, transport: u64, kind: u64) -> u64 {
    key(keys, 4)
        .wrapping_mul(kind)
        .wrapping_add(pair(keys, 0, addresses))
        .wrapping_add(pair(keys, 2, transport))
}

#[inline(always)]
fn pair(keys: &[u64; HASH_KEYS], first: usize, word: u64) -> u64 {
    let low = word & 0xffff_ffff;
    let high = word >> 32;
    key(keys, first).wrapping_add(low).wrapping_mul(key(keys, first + 1).wrapping_add(high))
}

/// One key. The read is volatile, because the agent replaces the keys before it loads the program; the
/// compiler must not use the zeroes in the object.
#[inline(always)]
fn key(keys: &[u64; HASH_KEYS], index: usize) -> u64 {
    // SAFETY: reads a field of a borrowed array.
    unsafe { ptr::read_volatile(&raw const keys[index]) }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use minimizer_common::settings::HASH_KEYS;
    use minimizer_common::tuple::{Tags, Tuple};

    use super::second;
    use crate::table::group::Parts;

    fn ipv4(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u32 {
        super::ipv4(keys, tuple, Parts::ALL)
    }

    fn ipv6(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u32 {
        super::ipv6(keys, tuple, Parts::ALL)
    }

    /// SplitMix64: keys that look random and are the same in every run.
    fn keys(seed: u64) -> [u64; HASH_KEYS] {
        let mut state = seed;
        core::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        })
    }

    fn tuple(flow: u64) -> Tuple {
        Tuple::new([flow, 0, 0, 0], (1, 2), Tags::NONE, 17, 0)
    }

    #[test]
    fn every_part_of_the_tuple_changes_the_hash() {
        let base = Tuple::new([1, 2, 3, 4], (5, 6), Tags::NONE.with_ipv6(), 7, 8);
        let others = [
            Tuple::new([9, 2, 3, 4], (5, 6), base.tags(), 7, 8),
            Tuple::new([1 | 1 << 63, 2, 3, 4], (5, 6), base.tags(), 7, 8),
            Tuple::new([1, 9, 3, 4], (5, 6), base.tags(), 7, 8),
            Tuple::new([1, 2, 9, 4], (5, 6), base.tags(), 7, 8),
            Tuple::new([1, 2, 3, 9], (5, 6), base.tags(), 7, 8),
            Tuple::new([1, 2, 4, 3], (5, 6), base.tags(), 7, 8),
            Tuple::new([3, 4, 1, 2], (5, 6), base.tags(), 7, 8),
            Tuple::new([1, 2, 3, 4], (6, 5), base.tags(), 7, 8),
            Tuple::new([1, 2, 3, 4], (5, 6), base.tags().with_interface(1), 7, 8),
            Tuple::new([1, 2, 3, 4], (5, 6), base.tags().with_vlan(1), 7, 8),
            Tuple::new([1, 2, 3, 4], (5, 6), base.tags(), 8, 8),
            Tuple::new([1, 2, 3, 4], (5, 6), base.tags(), 7, 7),
        ];
        for seed in 0..50 {
            let keys = keys(seed);
            for other in &others {
                assert_ne!(ipv6(&keys, &base), ipv6(&keys, other), "seed {seed}: {other:?}");
            }
        }
    }

    #[test]
    fn the_keys_decide() {
        let hashes =
            (0..100).map(|seed| ipv4(&keys(seed), &tuple(1))).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(hashes.len(), 100);
    }

    const GROUPS: usize = 1024;
    const FLOWS: u64 = 4 * GROUPS as u64;

    fn groups(hashes: impl Iterator<Item = u32>) -> [u64; GROUPS] {
        let mut counts = [0; GROUPS];
        for hash in hashes {
            counts[hash as usize % GROUPS] += 1;
        }
        counts
    }

    #[test]
    fn flows_that_differ_in_few_bits_spread_over_the_groups() {
        // Mean 4. By chance, more than 20 in any of 1024 groups has a probability below 10^-5.
        const MOST: u64 = 20;
        let fullest = |hash: &dyn Fn(u64) -> u32| groups((0..FLOWS).map(hash)).into_iter().max();
        for seed in 0..100 {
            let keys = keys(seed);
            for shift in [0, 8, 20, 32, 40, 52] {
                let four = |flow| ipv4(&keys, &tuple(flow << shift));
                let six = |flow| {
                    ipv6(&keys, &Tuple::new([1, 2, 3, flow << shift], (1, 2), Tags::NONE.with_ipv6(), 6, 0))
                };
                assert!(fullest(&four) <= Some(MOST), "IPv4, seed {seed}, shift {shift}");
                assert!(
                    fullest(&|flow| second(four(flow))) <= Some(MOST),
                    "second, seed {seed}, shift {shift}"
                );
                assert!(fullest(&six) <= Some(MOST), "IPv6, seed {seed}, shift {shift}");
            }
            let ports = |flow| {
                let port = u16::try_from(flow).expect("few flows");
                ipv4(&keys, &Tuple::new([1, 0, 0, 0], (port, 443), Tags::NONE, 6, 0))
            };
            assert!(fullest(&ports) <= Some(MOST), "ports, seed {seed}");
        }
    }

    #[test]
    fn flows_of_one_group_part_at_the_second_choice() {
        let group = |hash: u32| hash as usize % GROUPS;
        for seed in 0..20 {
            let keys = keys(seed);
            let hashes = (0..100 * GROUPS as u64).map(|flow| ipv4(&keys, &tuple(flow)));
            let together = hashes.filter(|hash| group(*hash) == 0).map(second).collect::<Vec<_>>();
            // About 100 flows over 1024 groups: 10 in one of them would be far beyond chance.
            assert!(together.len() > 20, "{}", together.len());
            let fullest = groups(together.into_iter()).into_iter().max();
            assert!(fullest < Some(10), "seed {seed}: {fullest:?}");
        }
    }
}
