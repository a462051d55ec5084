//! Pseudonyms of the kernel, made by definition.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hasher as _;

use minimizer::policy::class::Class;
use minimizer::policy::model::Scope;
use rand::rngs::ChaCha20Rng;
use rand::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher24;

/// Eight rounds in which each half of 28 bits changes the other by a random table; of the rank among the domestic addresses, or of
/// a hash. With other ranks the tables are others.
fn ipv4_number(scope: Option<&Scope>, address: u32, key: [u64; 2]) -> u32 {
    const LAST: u32 = (1 << 28) - 1;
    let blocks = scope.map_or_else(BTreeSet::new, |scope| {
        let domestic =
            scope.prefixes.iter().filter(|(prefix, class)| !prefix.ipv6 && *class == Class::Domestic);
        domestic
            .flat_map(|(prefix, _)| {
                let [a, b, c, ..] = prefix.octets;
                let first = u32::from_be_bytes([0, a, b, c]);
                first..first + (1 << 24_u8.saturating_sub(prefix.bits))
            })
            .collect()
    });
    let has_ranks = (1..1 << 20).contains(&blocks.len());
    let mut purpose = *b"IPv4 pseudonyms ";
    if has_ranks {
        let mut hasher = Sha256::new_with_prefix(purpose);
        for first in
            blocks.iter().filter(|block| !block.checked_sub(1).is_some_and(|it| blocks.contains(&it)))
        {
            let count =
                (*first..).zip(blocks.range(first..)).take_while(|(one, other)| one == *other).count();
            hasher.update(first.to_be_bytes());
            hasher.update(u32::try_from(count).expect("few").to_be_bytes());
        }
        purpose.copy_from_slice(&hasher.finalize()[..16]);
    }
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&key[0].to_le_bytes());
    seed[8..16].copy_from_slice(&key[1].to_le_bytes());
    seed[16..].copy_from_slice(&purpose);
    let mut numbers = ChaCha20Rng::from_seed(seed);
    let mut octets = vec![0; 8 * (1 << 14) * 2];
    numbers.fill_bytes(&mut octets);
    let multiplier = numbers.next_u64() | 1;
    let entries = octets.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]) & 0x3fff);
    let entries = entries.collect::<Vec<_>>();
    let permuted = |number: u32| {
        let (mut left, mut right) = (number / (1 << 14), number % (1 << 14));
        for table in entries.chunks_exact(1 << 14) {
            (left, right) = (right, left ^ u32::from(table[usize::try_from(right).expect("14 bits")]));
        }
        left * (1 << 14) + right
    };
    let rank = blocks.iter().position(|block| *block == address >> 8);
    let number = match rank.filter(|_| has_ranks) {
        Some(rank) => u32::try_from(rank).expect("few") << 8 | address & 0xff,
        None => {
            let hash = u32::try_from(u64::from(address).wrapping_mul(multiplier) >> 36).expect("28 bits");
            if hash == LAST { 0 } else { hash }
        }
    };
    match permuted(number) {
        LAST => permuted(LAST),
        other => other,
    }
}

/// The pseudonym of an address.
pub(super) fn pseudonym(scope: Option<&Scope>, ipv6: bool, octets: [u8; 16], key: [u64; 2]) -> [u8; 16] {
    let mut pseudonym = [0; 16];
    if ipv6 {
        let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
        hasher.write(&octets);
        pseudonym[..8].copy_from_slice(b"\xfdminimiz");
        pseudonym[8..].copy_from_slice(&hasher.finish().to_le_bytes());
    } else {
        let [a, b, c, d, ..] = octets;
        let number = known_ipv4_number(scope, u32::from_be_bytes([a, b, c, d]), key);
        pseudonym[..4].copy_from_slice(&(0xf000_0000 | number).to_be_bytes());
    }
    pseudonym
}

/// Numbers of addresses under a scope and a key.
#[derive(Default)]
struct Known {
    scope: Option<Scope>,
    key: [u64; 2],
    numbers: HashMap<u32, u32>,
}

thread_local! {
    /// Those of the last scope and key: the tables are the same for all of them, and take long.
    static KNOWN: RefCell<Known> = RefCell::default();
}

fn known_ipv4_number(scope: Option<&Scope>, address: u32, key: [u64; 2]) -> u32 {
    KNOWN.with_borrow_mut(|known| {
        if known.scope.as_ref() != scope || known.key != key {
            *known = Known { scope: scope.cloned(), key, numbers: HashMap::new() };
        }
        *known.numbers.entry(address).or_insert_with(|| ipv4_number(scope, address, key))
    })
}
