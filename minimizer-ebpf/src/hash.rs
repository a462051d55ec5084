//! The keyed hash that spreads tuples over the groups of the flow table.
//!
//! Pair-multiply-shift (Lemire and Kaser, "Strongly universal string hashing is fast"): with 64-bit
//! keys drawn at random the upper 32 bits of `Σ (k₂ᵢ + x₂ᵢ)(k₂ᵢ₊₁ + x₂ᵢ₊₁)` over 32-bit words are
//! strongly universal, so that whoever does not know the keys makes any two tuples collide with
//! probability 2⁻³² and no better. An IPv4 tuple costs three multiplications.

use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tuple::Tuple;

use crate::untraced;

/// Where an IPv4 tuple lies: its low bits name the group, its top bits the first way to look at.
#[inline(always)]
#[must_use]
pub fn ipv4(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u32 {
    upper_half(sum_ipv4(keys, tuple))
}

/// Where an IPv6 tuple lies; see [`ipv4`].
#[inline(always)]
#[must_use]
pub fn ipv6(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u32 {
    let sum = sum_ipv4(keys, tuple)
        .wrapping_add(pair(keys, 5, tuple.addresses[1]))
        .wrapping_add(pair(keys, 7, tuple.addresses[2]))
        .wrapping_add(pair(keys, 9, tuple.addresses[3]));
    upper_half(sum)
}

/// Where a tuple with no room in its first group may lie: another mix of the same hash.
#[inline(always)]
#[must_use]
pub const fn second(position: u32) -> u32 {
    // Any odd constant will do: the secret is in `position`.
    const MIX: u32 = 0x9e37_79b1;
    (position ^ position >> 15).wrapping_mul(MIX)
}

/// The strongly universal half of a sum.
#[inline(always)]
fn upper_half(sum: u64) -> u32 {
    untraced((sum >> 32) as u32)
}

#[inline(always)]
fn sum_ipv4(keys: &[u64; HASH_KEYS], tuple: &Tuple) -> u64 {
    pair(keys, 0, tuple.addresses[0])
        .wrapping_add(pair(keys, 2, tuple.transport))
        .wrapping_add(single(keys, 4, tuple.kind))
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
