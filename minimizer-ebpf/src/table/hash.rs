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

/// The position of a narrow slot: its bits are those of an offset in the table, and name the half at which probing starts.
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

/// The product for a word. The upper half of the word need not be removed from the first factor: it adds a number that does not
/// depend on the first key, and the first key alone makes words of different upper halves collide no more often than by chance.
#[inline(always)]
fn pair(keys: &[u64; HASH_KEYS], first: usize, word: u64) -> u64 {
    key(keys, first).wrapping_add(word).wrapping_mul(key(keys, first + 1).wrapping_add(word >> 32))
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

    use minimizer_common::generation::{GROUP_HALVES, GROUP_SHIFT};
    use minimizer_common::settings::HASH_KEYS;
    use minimizer_common::slot::{Count, Narrow, Wide};
    use minimizer_common::tuple::{Tags, Tuple};

    use super::second;
    use crate::table::group;

    const ONE: Count = Count { octets: 100, control_bits: 2, first: 3, last: 4 };

    fn ipv4(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u32 {
        super::narrow(keys, &Narrow::ipv4(tuple, &ONE))
    }

    /// IPv6 of which a policy keeps 48 bits of each address.
    fn ipv6_prefix(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u32 {
        super::narrow(keys, &Narrow::ipv6(tuple, &ONE))
    }

    fn wide(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u32 {
        super::wide(keys, &Wide::of(tuple, &ONE))
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

    fn check_parts(hash: fn(&[u64; HASH_KEYS], &Tuple) -> u32, base: &Tuple, others: &[Tuple]) {
        for seed in 0..50 {
            let keys = keys(seed);
            for other in others {
                assert_ne!(hash(&keys, base), hash(&keys, other), "seed {seed}: {other:?}");
            }
        }
    }

    #[test]
    fn every_part_of_a_wide_tuple_changes_the_hash() {
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
            Tuple::new([1, 2, 3, 4], (5, 6), base.tags().with_vlan(1).with_vlan(2), 7, 8),
            Tuple::new([1, 2, 3, 4], (5, 6), base.tags(), 8, 8),
            Tuple::new([1, 2, 3, 4], (5, 6), base.tags(), 7, 7),
        ];
        check_parts(wide, &base, &others);
    }

    #[test]
    fn every_part_of_an_ipv4_tuple_changes_the_hash() {
        let base = Tuple::new([1 | 2 << 32, 0, 0, 0], (5, 6), Tags::NONE, 7, 8);
        let others = [
            Tuple::new([9 | 2 << 32, 0, 0, 0], (5, 6), base.tags(), 7, 8),
            Tuple::new([1 | 9 << 32, 0, 0, 0], (5, 6), base.tags(), 7, 8),
            Tuple::new([2 | 1 << 32, 0, 0, 0], (5, 6), base.tags(), 7, 8),
            Tuple::new([1 | 2 << 32, 0, 0, 0], (6, 5), base.tags(), 7, 8),
            Tuple::new([1 | 2 << 32, 0, 0, 0], (5, 6), base.tags().with_interface(1), 7, 8),
            Tuple::new([1 | 2 << 32, 0, 0, 0], (5, 6), base.tags().with_vlan(0), 7, 8),
            Tuple::new([1 | 2 << 32, 0, 0, 0], (5, 6), base.tags().with_vlan(1), 7, 8),
            Tuple::new([1 | 2 << 32, 0, 0, 0], (5, 6), base.tags(), 8, 8),
            Tuple::new([1 | 2 << 32, 0, 0, 0], (5, 6), base.tags(), 7, 7),
            Tuple { selector: 1, ..base },
        ];
        check_parts(ipv4, &base, &others);
    }

    #[test]
    fn every_part_of_a_narrow_ipv6_tuple_changes_the_hash() {
        const LAST: u64 = 1 << (Narrow::IPV6_ADDRESS_BITS - 1);
        let of = |source, destination, ports, tags: Tags, protocol| {
            Tuple::new([source, 0, destination, 0], ports, tags.with_ipv6(), protocol, 0)
        };
        let base = of(1, 2, (5, 6), Tags::NONE, 7);
        let others = [
            of(9, 2, (5, 6), Tags::NONE, 7),
            of(1 | LAST, 2, (5, 6), Tags::NONE, 7),
            of(1, 9, (5, 6), Tags::NONE, 7),
            of(1, 2 | 1 << 16, (5, 6), Tags::NONE, 7),
            of(1, 2 | LAST, (5, 6), Tags::NONE, 7),
            of(2, 1, (5, 6), Tags::NONE, 7),
            of(1, 2, (6, 5), Tags::NONE, 7),
            of(1, 2, (5, 6), Tags::NONE.with_interface(1), 7),
            of(1, 2, (5, 6), Tags::NONE, 8),
        ];
        check_parts(ipv6_prefix, &base, &others);
    }

    /// Otherwise the packets of a flow would go to different groups.
    #[test]
    fn what_a_packet_counts_does_not_change_the_hash() {
        let tuple = Tuple::new([1 | 2 << 32, 0, 0, 0], (5, 6), Tags::NONE, 7, 8);
        let counts = [
            Count { octets: 101, ..ONE },
            Count { octets: (1 << 18) - 1, ..ONE },
            Count { control_bits: 0xfff, ..ONE },
            Count { first: 0xffff, ..ONE },
            Count { last: 0xffff, ..ONE },
        ];
        for seed in 0..50 {
            let keys = keys(seed);
            for count in &counts {
                let four = super::narrow(&keys, &Narrow::ipv4(&tuple, count));
                assert_eq!(four, ipv4(&keys, &tuple), "seed {seed}: {count:?}");
                let six = super::narrow(&keys, &Narrow::ipv6(&tuple, count));
                assert_eq!(six, ipv6_prefix(&keys, &tuple), "seed {seed}: {count:?}");
                let six = super::wide(&keys, &Wide::of(&tuple, count));
                assert_eq!(six, wide(&keys, &tuple), "seed {seed}: {count:?}");
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
            counts[(hash >> GROUP_SHIFT) as usize % GROUPS] += 1;
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
                    wide(&keys, &Tuple::new([1, 2, 3, flow << shift], (1, 2), Tags::NONE.with_ipv6(), 6, 0))
                };
                let halves = |hash: &dyn Fn(u64) -> u32| {
                    let mut halves = [0_u64; GROUP_HALVES];
                    (0..FLOWS).for_each(|flow| halves[group::narrow_half(hash(flow), 0)] += 1);
                    halves.into_iter().max()
                };
                // Mean 256. More than 400 in any of 16 halves is beyond chance.
                assert!(halves(&four) < Some(400), "halves of IPv4, seed {seed}, shift {shift}");
                assert!(halves(&six) < Some(400), "halves of IPv6, seed {seed}, shift {shift}");
                if shift < 40 {
                    let prefix = |flow: u64| {
                        let flow = (flow << shift) & ((1 << Narrow::IPV6_ADDRESS_BITS) - 1);
                        ipv6_prefix(&keys, &Tuple::new([1, 0, flow, 0], (1, 2), Tags::NONE.with_ipv6(), 6, 0))
                    };
                    assert!(fullest(&prefix) <= Some(MOST), "prefixes of IPv6, seed {seed}, shift {shift}");
                }
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
        let group = |hash: u32| (hash >> GROUP_SHIFT) as usize % GROUPS;
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
