//! Pseudonyms of the kernel, made by definition.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hasher as _;
use std::rc::Rc;

use minimizer::policy::class::Class;
use minimizer::policy::model::Scope;
use rand::rngs::ChaCha20Rng;
use rand::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher24;

const LAST: u32 = (1 << 28) - 1;

/// What pseudonyms of IPv4 addresses are made of, under a policy and a key.
struct Ipv4 {
    /// The domestic blocks of 256 addresses; empty if they have no ranks.
    ranked: Vec<u32>,
    /// Eight tables, one after the other.
    entries: Vec<u16>,
    odd: u32,
}

type Domestic = Vec<(u32, u32)>;

type Made = HashMap<(Domestic, [u64; 2]), Rc<Ipv4>>;

thread_local! {
    /// Those of the last policies and keys.
    static MADE: RefCell<Made> = RefCell::default();
}

impl Ipv4 {
    /// Those of the blocks of some stretches, each told by its first block and their number.
    fn new(domestic: &Domestic, key: [u64; 2]) -> Self {
        let blocks: BTreeSet<_> =
            domestic.iter().flat_map(|(first, count)| *first..*first + *count).collect();
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
        let odd = numbers.next_u32() | 1;
        let entries = octets.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]) & 0x3fff);
        let ranked = if has_ranks { blocks.into_iter().collect() } else { Vec::new() };
        Self { ranked, entries: entries.collect(), odd }
    }

    fn of(scope: Option<&Scope>, key: [u64; 2]) -> Rc<Self> {
        let prefixes = scope.into_iter().flat_map(|scope| &scope.prefixes);
        let domestic = prefixes
            .filter(|(prefix, class)| !prefix.ipv6 && *class == Class::Domestic)
            .map(|(prefix, _)| {
                let [a, b, c, ..] = prefix.octets;
                (u32::from_be_bytes([0, a, b, c]), 1 << 24_u8.saturating_sub(prefix.bits))
            })
            .collect::<Domestic>();
        MADE.with_borrow_mut(|made| {
            if made.len() > 32 {
                made.clear();
            }
            let made = made.entry((domestic, key));
            Rc::clone(made.or_insert_with_key(|(domestic, key)| Rc::new(Self::new(domestic, *key))))
        })
    }

    /// Eight rounds in which each half of 28 bits changes the other by a random table; half-way the tweak changes both.
    fn permuted(&self, number: u32, tweak: u32) -> u32 {
        let (mut left, mut right) = (number / (1 << 14), number % (1 << 14));
        for (round, table) in self.entries.chunks_exact(1 << 14).enumerate() {
            if round == 4 {
                (left, right) = (left ^ (tweak / (1 << 14)), right ^ (tweak % (1 << 14)));
            }
            (left, right) = (right, left ^ u32::from(table[usize::try_from(right).expect("14 bits")]));
        }
        left * (1 << 14) + right
    }

    /// The rank among the domestic addresses is permuted, or else the last 28 bits, which the first four change half-way. With other
    /// ranks the tables are others.
    fn number(&self, address: u32) -> u32 {
        let (number, tweak) = match self.ranked.binary_search(&(address >> 8)) {
            Ok(rank) => (u32::try_from(rank).expect("few") << 8 | address & 0xff, 0),
            Err(_) => (address % (1 << 28), (address / (1 << 28) + 1).wrapping_mul(self.odd) % (1 << 28)),
        };
        match self.permuted(number, tweak) {
            LAST => self.permuted(LAST, 0),
            other => other,
        }
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
        let number = Ipv4::of(scope, key).number(u32::from_be_bytes([a, b, c, d]));
        pseudonym[..4].copy_from_slice(&(0xf000_0000 | number).to_be_bytes());
    }
    pseudonym
}
