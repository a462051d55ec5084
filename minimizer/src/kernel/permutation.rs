//! The permutation of IPv4 pseudonyms under a key.

use minimizer_common::permutation::{LAST, Permutation};
use minimizer_ebpf::policy::permutation::{Number, by_tables};
use rand::rngs::ChaCha20Rng;
use rand::{Rng as _, SeedableRng as _};
use zerocopy::IntoBytes as _;

use crate::policy::ranks::Purpose;

/// Derives a permutation from a key, in its place: ChaCha20 (RFC 8439) under the key and the purpose gives its tables and what changes addresses without a rank.
/// It leaves traces of the key on the stack.
pub fn derive(permutation: &mut Permutation, key: &[u64; 2], purpose: &Purpose) {
    let mut seed = [0; 32];
    let (first, second) = seed.split_at_mut(16);
    for (octets, word) in first.chunks_exact_mut(8).zip(key) {
        octets.copy_from_slice(&word.to_le_bytes());
    }
    second.copy_from_slice(purpose);
    let mut numbers = ChaCha20Rng::from_seed(seed);
    numbers.fill_bytes(permutation.tables.as_mut_bytes());
    permutation.tweak = numbers.next_u32() | 1;
    permutation.instead_of_last = by_tables(permutation, Number::of_rank(LAST));
}

#[cfg(test)]
mod tests {
    use minimizer_common::permutation::{LAST, Permutation};
    use minimizer_ebpf::policy::permutation::{Number, permuted};

    use super::derive;
    use crate::policy::ranks::NO_RANKS;
    use crate::support::sys::secret::Secret;

    #[test]
    fn another_key_or_purpose_gives_another_permutation_and_the_same_ones_the_same() {
        let of = |key, purpose| {
            let mut permutation = Secret::<Permutation>::zeroed().expect("memory");
            derive(&mut permutation, &key, &purpose);
            (0..1000)
                .chain([LAST - 1])
                .map(|rank| permuted(&permutation, Number::of_rank(rank)))
                .collect::<Vec<_>>()
        };
        let one = of([1, 2], NO_RANKS);
        assert_eq!(one, of([1, 2], NO_RANKS));
        for other in [of([1, 3], NO_RANKS), of([1, 2], *b"other prefixes..")] {
            assert!(one.iter().zip(other).filter(|(one, other)| **one == *other).count() < 3);
        }
    }
}
