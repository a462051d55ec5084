//! What becomes of addresses in a recipient's view.
//!
//! The kernel knew the class of each address but does not store it, so the view works it out from what was stored. Sometimes
//! both classes are possible: a truncated address whose prefix covers addresses of both, or a pseudonym where both classes get
//! one. Then the recipient gets only what either class would give it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use minimizer_common::permutation::Permutation;
use minimizer_common::plan::{IPV4_PSEUDONYM, IPV4_PSEUDONYM_BITS, IPV6_PSEUDONYM};
use minimizer_common::tuple::Tuple;
use minimizer_ebpf::policy::permutation::{self, Number, number_of_pseudonym, permuted};
use minimizer_ebpf::policy::siphash;

use crate::kernel::permutation::derive;
use crate::policy::class::Class;
use crate::policy::classes::{Classes, rest};
use crate::policy::field::Field;
use crate::policy::ranks::{NO_RANKS, Purpose, Ranks};
use crate::policy::transform::{AddressTransform, PrefixScheme, Transform};
use crate::records::keys::{KeyError, PseudonymKey, RecipientKeys};
use crate::records::prefix_preserving::PrefixPreserving;
use crate::support::sys::secret::{Secret, SharedKey};
use crate::support::traces::without_traces;

const CLASSES: [Class; 2] = [Class::Foreign, Class::Domestic];

/// What happens to the addresses of one field, by class.
#[derive(Clone, Copy, Debug)]
struct Rule {
    collected: [AddressTransform; 2],
    wanted: [AddressTransform; 2],
}

/// What happens to all addresses.
pub(super) struct Addresses {
    /// By IP version, then by side.
    rules: [[Rule; 2]; 2],
    classes: Arc<Classes>,
    ranks: Option<Arc<Ranks>>,
    recipient: PseudonymKey,
    /// Of IPv4 pseudonyms, if there are any.
    recipient_permutation: Option<Secret<Permutation>>,
    /// The same of the epoch, if the kernel stores addresses that become pseudonyms here.
    epoch_permutation: Option<Secret<Permutation>>,
    /// Keys of the schemes that the recipient gets.
    permutations: Vec<(PrefixScheme, Secret<[u8; 32]>)>,
    /// Dropped last: an epoch that is over says that its keys are destroyed.
    epoch: SharedKey,
}

/// Prefix-preserving permutations while a batch is looked at. They are worth as much as their keys, and lie on the stack.
pub(super) struct Permuted {
    /// In the order of [`SCHEMES`].
    permutations: [Option<PrefixPreserving>; 2],
    /// Results by scheme, IP version and address, kept because each costs 32 or 128 AES blocks.
    known: HashMap<(PrefixScheme, bool, u128), u128>,
}

const SCHEMES: [PrefixScheme; 2] = [PrefixScheme::Ipcrypt, PrefixScheme::CryptoPan];

const FIELDS: [[Field; 2]; 2] = [
    [Field::SourceIPv4Address, Field::DestinationIPv4Address],
    [Field::SourceIPv6Address, Field::DestinationIPv6Address],
];

impl Addresses {
    pub(super) fn new(
        wanted: &BTreeMap<Field, Transform>,
        collected: &BTreeMap<Field, Transform>,
        epoch: SharedKey,
        keys: RecipientKeys,
        classes: Arc<Classes>,
        ranks: Option<Arc<Ranks>>,
    ) -> Result<Self, KeyError> {
        let rules = FIELDS.map(|sides| {
            sides.map(|field| Rule { collected: by_class(collected, field), wanted: by_class(wanted, field) })
        });
        let is_used = |scheme: PrefixScheme| {
            let of = |class| move |transform: &Transform| transform.of_class(class);
            let uses = |class| {
                wanted.values().map(of(class)).any(|it| it == AddressTransform::PrefixPreserving(scheme))
            };
            CLASSES.into_iter().any(uses)
        };
        let keys_of = SCHEMES.into_iter().zip([keys.ipcrypt, keys.crypto_pan]);
        let permutations = keys_of.filter(|(scheme, _)| is_used(*scheme)).collect();
        let makes = |collected: AddressTransform, wanted: AddressTransform| {
            wanted == AddressTransform::Pseudonym && collected != AddressTransform::Pseudonym
        };
        let [ipv4, _] = &rules;
        let wants = ipv4.iter().any(|rule| rule.wanted.contains(&AddressTransform::Pseudonym));
        let makes =
            ipv4.iter().any(|rule| (0..2).any(|class| makes(rule.collected[class], rule.wanted[class])));
        let of = |key: &[u64; 2], purpose| permutation_of(key, purpose).map_err(KeyError::Memory);
        let recipient_permutation = wants.then(|| of(&keys.pseudonym, &NO_RANKS)).transpose()?;
        let purpose = ranks.as_deref().map_or(&NO_RANKS, Ranks::purpose);
        let epoch_permutation = makes.then(|| of((*epoch).as_ref(), purpose)).transpose()?;
        let recipient = keys.pseudonym;
        Ok(Self {
            rules,
            classes,
            ranks,
            recipient,
            permutations,
            recipient_permutation,
            epoch_permutation,
            epoch,
        })
    }

    /// The permutations that the recipient gets. To be called, and the result dropped, below [`without_traces`].
    pub(super) fn permuting(&self) -> Permuted {
        let permutations = SCHEMES.map(|scheme| {
            let key = self.permutations.iter().find(|(of, _)| *of == scheme);
            key.map(|(scheme, key)| PrefixPreserving::new(*scheme, key))
        });
        Permuted { permutations, known: HashMap::new() }
    }

    /// The address words of a tuple, as the recipient gets them.
    pub(super) fn of(&self, tuple: &Tuple, permuted: &mut Permuted) -> [u64; 4] {
        let [ipv4, ipv6] = &self.rules;
        if tuple.tags().is_ipv6() {
            let (source, destination) = tuple.ipv6();
            let mut words = [0; 4];
            for (pair, (rule, octets)) in
                words.chunks_exact_mut(2).zip(ipv6.iter().zip([source, destination]))
            {
                let viewed = self.viewed(*rule, true, u128::from_be_bytes(octets), permuted);
                pair.copy_from_slice(&to_words(viewed));
            }
            return words;
        }
        let (source, destination) = tuple.ipv4();
        let mut octets = [0; 8];
        for (half, (rule, octets)) in octets.chunks_exact_mut(4).zip(ipv4.iter().zip([source, destination])) {
            let address = u128::from(u32::from_be_bytes(octets)) << 96;
            half.copy_from_slice(&self.viewed(*rule, false, address, permuted).to_be_bytes()[..4]);
        }
        [u64::from_ne_bytes(octets), 0, 0, 0]
    }

    /// Whether the source of a tuple is certainly domestic, by what was stored of it.
    pub(super) fn has_domestic_source(&self, tuple: &Tuple) -> bool {
        let [ipv4, ipv6] = &self.rules;
        let (rule, is_ipv6, address) = if tuple.tags().is_ipv6() {
            (ipv6[0], true, u128::from_be_bytes(tuple.ipv6().0))
        } else {
            (ipv4[0], false, from_ipv4(tuple.ipv4().0))
        };
        let rule = Rule { wanted: [AddressTransform::Omitted, AddressTransform::Exact], ..rule };
        rule.decide(&self.classes, is_ipv6, address).0 != AddressTransform::Omitted
    }

    /// One left-aligned address, as the recipient gets it.
    fn viewed(&self, rule: Rule, ipv6: bool, address: u128, permuted: &mut Permuted) -> u128 {
        let (transform, is_pseudonym) = rule.decide(&self.classes, ipv6, address);
        match transform {
            AddressTransform::Omitted => 0,
            AddressTransform::Pseudonym if ipv6 => {
                let stored =
                    if is_pseudonym { address } else { ipv6_pseudonym((*self.epoch).as_ref(), address) };
                ipv6_pseudonym(&self.recipient, stored)
            }
            AddressTransform::Pseudonym => {
                let address = u32::from_be_bytes(ipv4_octets(address));
                let number = if is_pseudonym {
                    Some(number_of_pseudonym(address.to_be()))
                } else {
                    let numbered =
                        |keys: &Secret<Permutation>| ipv4_number(keys, self.ranks.as_deref(), address);
                    self.epoch_permutation.as_ref().map(numbered)
                };
                let pseudonym = number.zip(self.recipient_permutation.as_ref()).map(|(number, keys)| {
                    let permuted = permutation::permuted(keys, Number::of_rank(number));
                    from_ipv4(permutation::pseudonym(permuted).to_ne_bytes())
                });
                pseudonym.unwrap_or(0)
            }
            // Nobody can turn a pseudonym back into the address.
            _ if is_pseudonym => 0,
            AddressTransform::Exact => address,
            AddressTransform::Truncated { bits } => address & !rest(bits),
            AddressTransform::PrefixPreserving(scheme) => {
                let Permuted { permutations, known } = permuted;
                let index = usize::from(scheme == PrefixScheme::CryptoPan);
                let permutation = permutations[index].as_ref().expect("the recipient gets it");
                *known.entry((scheme, ipv6, address)).or_insert_with(|| permute(permutation, ipv6, address))
            }
        }
    }
}

impl Rule {
    /// What the recipient gets of a stored address, and whether what is stored is a pseudonym.
    fn decide(self, classes: &Classes, ipv6: bool, address: u128) -> (AddressTransform, bool) {
        let Self { collected, wanted } = self;
        let is_pseudonym = collected.map(|transform| transform == AddressTransform::Pseudonym);
        if wanted[0] == wanted[1] && is_pseudonym[0] == is_pseudonym[1] {
            return (wanted[0], is_pseudonym[0]);
        }
        // Pseudonyms lie in ranges that no host uses, so whatever looks like one is one.
        let pseudonym = is_pseudonym != [false; 2] && looks_pseudonymous(ipv6, address);
        let mut transform = None;
        for (index, class) in CLASSES.into_iter().enumerate() {
            let possible = if pseudonym {
                is_pseudonym[index]
            } else {
                may_be(collected[index], classes, ipv6, address, class)
            };
            if possible {
                transform = Some(transform.map_or(wanted[index], |other| less(other, wanted[index])));
            }
        }
        (transform.unwrap_or(AddressTransform::Omitted), pseudonym)
    }
}

/// Whether the kernel may have stored this for an address of the class. It is not a pseudonym.
fn may_be(collected: AddressTransform, classes: &Classes, ipv6: bool, address: u128, class: Class) -> bool {
    let length = if ipv6 { 128 } else { 32 };
    let bits = match collected {
        AddressTransform::Pseudonym => return false,
        AddressTransform::Omitted => 0,
        AddressTransform::Truncated { bits } => bits,
        AddressTransform::Exact | AddressTransform::PrefixPreserving(_) => length,
    };
    address & rest(bits) == 0 && classes.may_be(ipv6, address, bits, class)
}

/// The transform that gives no more than either of the two.
fn less(one: AddressTransform, other: AddressTransform) -> AddressTransform {
    use AddressTransform::{Exact, Omitted, PrefixPreserving, Pseudonym, Truncated};
    match (one, other) {
        _ if one == other => one,
        (Exact, less) | (less, Exact) => less,
        (Truncated { bits: one }, Truncated { bits: other }) => Truncated { bits: one.min(other) },
        (PrefixPreserving(_), Pseudonym) | (Pseudonym, PrefixPreserving(_)) => Pseudonym,
        _ => Omitted,
    }
}

fn by_class(fields: &BTreeMap<Field, Transform>, field: Field) -> [AddressTransform; 2] {
    match fields.get(&field) {
        None => [AddressTransform::Omitted; 2],
        Some(Transform::Address { foreign, domestic }) => [*foreign, *domestic],
        Some(_) => [AddressTransform::Exact; 2],
    }
}

/// Whether an address looks like a pseudonym. 255.255.255.255 does not: it is the one address of 240.0.0.0/4 that packets
/// carry.
fn looks_pseudonymous(ipv6: bool, address: u128) -> bool {
    let octets = address.to_be_bytes();
    if ipv6 {
        return octets.starts_with(&IPV6_PSEUDONYM);
    }
    let unused = IPV4_PSEUDONYM_BITS - 24;
    octets[0] >> unused == IPV4_PSEUDONYM[0] >> unused && octets[..4] != [255; 4]
}

fn to_words(address: u128) -> [u64; 2] {
    let octets = address.to_be_bytes();
    let (first, second) = octets.split_at(8);
    [first, second].map(|octets| u64::from_ne_bytes(octets.try_into().unwrap_or_default()))
}

fn ipv4_octets(address: u128) -> [u8; 4] {
    let [a, b, c, d, ..] = address.to_be_bytes();
    [a, b, c, d]
}

fn from_ipv4(octets: [u8; 4]) -> u128 {
    u128::from(u32::from_be_bytes(octets)) << 96
}

/// The pseudonym of an IPv6 address.
pub(super) fn ipv6_pseudonym(key: &[u64; 2], address: u128) -> u128 {
    let [k0, k1] = *key;
    let [first, second] = to_words(address);
    let (first, second) = siphash::ipv6_pseudonym(k0, k1, first, second);
    u128::from(u64::from_be(first)) << 64 | u128::from(u64::from_be(second))
}

/// The number of the pseudonym that an IPv4 address has under the key of the epoch, as the kernel program makes it.
pub(super) fn ipv4_number(keys: &Permutation, ranks: Option<&Ranks>, address: u32) -> u32 {
    let rank = ranks.and_then(|ranks| ranks.rank(address));
    permuted(keys, rank.map_or_else(|| Number::of_address(keys, address.to_be()), Number::of_rank))
}

/// The permutation under a key, for a purpose.
pub(super) fn permutation_of(key: &[u64; 2], purpose: &Purpose) -> io::Result<Secret<Permutation>> {
    let mut permutation = Secret::<Permutation>::zeroed()?;
    without_traces(|| derive(&mut permutation, key, purpose));
    Ok(permutation)
}

fn permute(permutation: &PrefixPreserving, ipv6: bool, address: u128) -> u128 {
    if ipv6 {
        u128::from_be_bytes(permutation.ipv6(address.to_be_bytes()))
    } else {
        from_ipv4(permutation.ipv4(ipv4_octets(address)))
    }
}
