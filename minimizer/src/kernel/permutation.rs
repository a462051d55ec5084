//! The permutation of IPv4 pseudonyms under a key.

use minimizer_common::permutation::{LAST, Permutation};
use minimizer_ebpf::policy::permutation::by_tables;
use rand::rngs::ChaCha20Rng;
use rand::{Rng as _, SeedableRng as _};
use zerocopy::IntoBytes as _;

/// Separates these numbers from whatever else is made of the key.
const PURPOSE: [u8; 16] = *b"IPv4 pseudonyms ";

/// Derives a permutation from a key, in its place: ChaCha20 (RFC 8439) under the key and a purpose gives its tables and its hash.
/// It leaves traces of the key on the stack.
pub fn derive(permutation: &mut Permutation, key: &[u64; 2]) {
    let mut seed = [0; 32];
    let (first, second) = seed.split_at_mut(16);
    for (octets, word) in first.chunks_exact_mut(8).zip(key) {
        octets.copy_from_slice(&word.to_le_bytes());
    }
    second.copy_from_slice(&PURPOSE);
    let mut numbers = ChaCha20Rng::from_seed(seed);
    numbers.fill_bytes(permutation.tables.as_mut_bytes());
    permutation.multiplier = numbers.next_u64() | 1;
    permutation.instead_of_last = by_tables(permutation, LAST);
}

#[cfg(test)]
mod tests {
    use minimizer_common::permutation::{LAST, Permutation};
    use minimizer_ebpf::policy::permutation::permuted;

    use super::derive;
    use crate::support::sys::secret::Secret;

    #[test]
    fn another_key_gives_another_permutation_and_the_same_key_the_same() {
        let of = |key| {
            let mut permutation = Secret::<Permutation>::zeroed().expect("memory");
            derive(&mut permutation, &key);
            (0..1000).chain([LAST - 1]).map(|number| permuted(&permutation, number)).collect::<Vec<_>>()
        };
        assert_eq!(of([1, 2]), of([1, 2]));
        let both = of([1, 2]).into_iter().zip(of([1, 3]));
        assert!(both.filter(|(one, other)| one == other).count() < 3);
    }
}
