//! SipHash-2-4 of IPv6 addresses, and the pseudonyms made of it.
//!
//! Aumasson and Bernstein, "SipHash: a fast short-input PRF". Kernel program and agent compute the same
//! pseudonym for the same address under the same key. An address is two words, its octets in memory
//! order. The code has only scalars and no loop: it then needs no stack, and each function can be a function
//! of its own in the kernel.

use minimizer_common::plan::IPV6_PSEUDONYM;

/// The four words of state.
#[derive(Clone, Copy)]
struct State(u64, u64, u64, u64);

impl State {
    #[inline(always)]
    const fn new(k0: u64, k1: u64) -> Self {
        // "somepseudorandomlygeneratedbytes"
        Self(
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        )
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self(a, b, c, d) = self;
        let a = a.wrapping_add(b);
        let c = c.wrapping_add(d);
        let b = b.rotate_left(13) ^ a;
        let d = d.rotate_left(16) ^ c;
        let a = a.rotate_left(32).wrapping_add(d);
        let c = c.wrapping_add(b);
        let d = d.rotate_left(21) ^ a;
        let b = b.rotate_left(17) ^ c;
        Self(a, b, c.rotate_left(32), d)
    }

    /// Takes in eight octets, with two rounds.
    #[inline(always)]
    const fn word(self, word: u64) -> Self {
        let Self(a, b, c, d) = self;
        let Self(a, b, c, d) = Self(a, b, c, d ^ word).round().round();
        Self(a ^ word, b, c, d)
    }

    /// Ends with four more rounds and returns the hash.
    #[inline(always)]
    const fn finish(self) -> u64 {
        let Self(a, b, c, d) = self;
        let Self(a, b, c, d) = Self(a, b, c ^ 0xff, d).round().round().round().round();
        a ^ b ^ c ^ d
    }
}

/// The last word: the octets that fill no whole word, and the count of all octets in the topmost octet.
#[inline(always)]
const fn last(octets: u64, rest: u64) -> u64 {
    octets << 56 | rest
}

/// SipHash-2-4 of the sixteen octets of an IPv6 address. A function of its own: its state would cost
/// the caller stack, and the verifier more than the call.
#[inline(never)]
#[must_use]
pub const fn ipv6(k0: u64, k1: u64, first: u64, second: u64) -> u64 {
    State::new(k0, k1).word(first.to_le()).word(second.to_le()).word(last(16, 0)).finish()
}

/// The pseudonym of an IPv6 address: its hash behind [`IPV6_PSEUDONYM`].
#[inline(always)]
#[must_use]
pub const fn ipv6_pseudonym(k0: u64, k1: u64, first: u64, second: u64) -> (u64, u64) {
    (u64::from_ne_bytes(IPV6_PSEUDONYM), ipv6(k0, k1, first, second).to_le())
}

#[cfg(test)]
pub(super) mod tests {
    use super::{State, ipv6, ipv6_pseudonym, last};

    const K0: u64 = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
    const K1: u64 = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15]);

    /// SipHash-2-4 of any number of octets.
    fn of(k0: u64, k1: u64, octets: &[u8]) -> u64 {
        let mut state = State::new(k0, k1);
        let words = octets.chunks_exact(8);
        let rest = words.remainder().iter().rev().fold(0, |rest: u64, octet| rest << 8 | u64::from(*octet));
        for word in words {
            state = state.word(u64::from_le_bytes(word.try_into().expect("eight octets")));
        }
        state.word(last(octets.len() as u64 & 0xff, rest)).finish()
    }

    /// The key is 00 to 0f, the message 00 to n-1. The hashes come from the authors' reference
    /// implementation.
    const VECTORS: &[(u8, [u8; 8])] = &[
        (0, [0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72]),
        (4, [0xb7, 0x87, 0x71, 0x27, 0xe0, 0x94, 0x27, 0xcf]),
        (8, [0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93]),
        (13, [0x90, 0x3d, 0x84, 0xc0, 0x27, 0x56, 0xea, 0x14]),
        (16, [0xdb, 0x9b, 0xc2, 0x57, 0x7f, 0xcc, 0x2a, 0x3f]),
        (37, [0x81, 0x39, 0x62, 0x29, 0xf0, 0x90, 0x79, 0x02]),
    ];

    #[test]
    fn the_authors_vectors() {
        for (length, hash) in VECTORS {
            let message = (0..*length).collect::<std::vec::Vec<_>>();
            assert_eq!(of(K0, K1, &message).to_le_bytes(), *hash, "{length} octets");
        }
        let [first, second] = [
            u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7]),
            u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15]),
        ];
        assert_eq!(ipv6(K0, K1, first, second).to_le_bytes(), VECTORS[4].1);
    }

    /// Xorshift: arbitrary numbers, the same in every run of a seed other than zero.
    pub fn arbitrary(mut number: u64) -> impl FnMut() -> u64 {
        move || {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            number
        }
    }

    #[test]
    fn addresses_hash_as_their_octets_do() {
        let mut next = arbitrary(1);
        for _ in 0..1000 {
            let [k0, k1, first, second] = [next(), next(), next(), next()];
            let octets = first.to_ne_bytes();
            let mut sixteen = [0; 16];
            sixteen[..8].copy_from_slice(&octets);
            sixteen[8..].copy_from_slice(&second.to_ne_bytes());
            assert_eq!(ipv6(k0, k1, first, second), of(k0, k1, &sixteen));
        }
    }

    #[test]
    fn pseudonyms_have_their_shape() {
        let (prefix, hash) = ipv6_pseudonym(
            K0,
            K1,
            u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7]),
            u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15]),
        );
        assert_eq!(prefix.to_ne_bytes(), *b"\xfdminimiz");
        assert_eq!(hash.to_ne_bytes(), VECTORS[4].1);
    }
}
