//! The keyed hash that spreads tuples over the groups of the flow table.
//!
//! Pair-multiply-shift (Lemire and Kaser, "Strongly universal string hashing is fast"): with 64-bit
//! keys drawn at random the upper 32 bits of `Σ (k₂ᵢ + x₂ᵢ)(k₂ᵢ₊₁ + x₂ᵢ₊₁)` over 32-bit words are
//! strongly universal, so that whoever does not know the keys makes any two tuples collide with
//! probability 2⁻³² and no better. An IPv4 tuple costs three multiplications.

use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tuple::Tuple;

/// Hashes an IPv4 tuple; only the upper 32 bits may be used.
#[inline(always)]
#[must_use]
pub fn ipv4(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u64 {
    pair(keys, 0, tuple.addresses[0])
        .wrapping_add(pair(keys, 2, tuple.transport))
        .wrapping_add(single(keys, 4, tuple.kind))
}

/// Hashes an IPv6 tuple; only the upper 32 bits may be used.
#[inline(always)]
#[must_use]
pub fn ipv6(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u64 {
    ipv4(keys, tuple)
        .wrapping_add(pair(keys, 5, tuple.addresses[1]))
        .wrapping_add(pair(keys, 7, tuple.addresses[2]))
        .wrapping_add(pair(keys, 9, tuple.addresses[3]))
}

/// Where a tuple with no room in its first group may lie: another mix of the same hash.
#[inline(always)]
#[must_use]
pub const fn second(hash: u64) -> u64 {
    // Any odd constant will do: the secret is in `hash`.
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    (hash ^ hash >> 32).wrapping_mul(MIX)
}

#[inline(always)]
const fn pair(keys: &[u64; HASH_KEYS], first: usize, word: u64) -> u64 {
    let low = word & 0xffff_ffff;
    let high = word >> 32;
    keys[first].wrapping_add(low).wrapping_mul(keys[first + 1].wrapping_add(high))
}

#[inline(always)]
const fn single(keys: &[u64; HASH_KEYS], first: usize, half: u16) -> u64 {
    keys[first].wrapping_mul(half as u64)
}
