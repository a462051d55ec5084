//! IPv4 addresses inside of IPv6 addresses, and what the prefixes of a scope say of all addresses.
//!
//! A prefix of the IPv4 addresses of a scope counts also behind each prefix of IPv6 whose addresses carry an IPv4 address. So
//! the longest prefix decides here, too. Special ranges fill what the scope does not list.

use std::borrow::Cow;

use crate::policy::class::Class;
use crate::policy::prefixes::Prefix;
use crate::policy::special::{self, RANGES};

/// Prefixes whose addresses carry an IPv4 address in the bits behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// The prefix.
    pub prefix: Prefix,
    /// What it is for.
    pub purpose: &'static str,
    /// The RFC that says so.
    pub rfc: u16,
}

/// The embeddings of every network, in order.
pub const WELL_KNOWN: [Embedding; 3] = [
    embedding([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4-mapped", 4291),
    NAT64,
    embedding([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4", 3056),
];

/// NAT64 under the prefix of every network.
const NAT64: Embedding = embedding([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], NAT64_BITS, "NAT64", 6052);

/// The length of a NAT64 prefix: the IPv4 address is in the last 32 bits. RFC 6052 permits others, in which it is elsewhere.
pub const NAT64_BITS: u8 = 96;

const fn embedding(groups: [u16; 8], bits: u8, purpose: &'static str, rfc: u16) -> Embedding {
    Embedding { prefix: Prefix { ipv6: true, octets: special::octets(groups), bits }, purpose, rfc }
}

/// The prefixes of a scope, as it lists them, sorted.
struct Listed<'scope> {
    prefixes: Cow<'scope, [(Prefix, Class)]>,
    embeddings: Vec<Prefix>,
}

impl<'scope> Listed<'scope> {
    fn new(prefixes: &'scope [(Prefix, Class)]) -> Self {
        let mut prefixes = Cow::Borrowed(prefixes);
        // The check of a policy has sorted them.
        if !prefixes.is_sorted() {
            prefixes.to_mut().sort_unstable();
        }
        let own = prefixes.iter().filter(|(_, class)| *class == Class::Embedded).map(|(prefix, _)| *prefix);
        let mut embeddings: Vec<_> = WELL_KNOWN.iter().map(|embedding| embedding.prefix).chain(own).collect();
        embeddings.sort_unstable();
        embeddings.dedup();
        Self { prefixes, embeddings }
    }

    /// The prefixes with a class of their own.
    fn classed(&self) -> impl Iterator<Item = (Prefix, Class)> {
        self.prefixes.iter().copied().filter(|(_, class)| *class != Class::Embedded)
    }

    /// Those of IPv4.
    fn ipv4(&self) -> impl Iterator<Item = (Prefix, Class)> {
        let ipv4 = self.prefixes.partition_point(|(prefix, _)| !prefix.ipv6);
        self.prefixes[..ipv4].iter().copied()
    }

    /// Whether the scope gives this very prefix a class.
    fn has(&self, prefix: &Prefix) -> bool {
        let first = self.prefixes.partition_point(|(other, _)| other < prefix);
        let mut same = self.prefixes[first..].iter().take_while(|(other, _)| other == prefix);
        same.any(|(_, class)| *class != Class::Embedded)
    }

    /// Whether the scope gives a class to a prefix of at least `bits` bits that covers this one.
    fn names(&self, prefix: &Prefix, bits: u8) -> bool {
        (bits..=prefix.bits).any(|bits| self.has(&prefix.shortened(bits)))
    }

    /// The special ranges that the scope does not list, and that are no embedding.
    fn special(&self) -> impl Iterator<Item = Prefix> {
        let is_embedding = |prefix: &Prefix| self.embeddings.iter().any(|embedding| embedding.covers(prefix));
        RANGES
            .iter()
            .map(|range| range.prefix)
            .filter(move |prefix| !is_embedding(prefix) && !self.names(prefix, 0))
    }

    /// Whether the scope lists prefixes inside of this one.
    fn has_inside(&self, prefix: &Prefix) -> bool {
        let first = self.prefixes.partition_point(|(other, _)| other < prefix);
        self.prefixes.get(first).is_some_and(|(other, _)| prefix.covers(other))
    }
}

/// The IPv6 prefix of the addresses that carry those of an IPv4 prefix.
#[must_use]
pub fn form(embedding: &Prefix, ipv4: &Prefix) -> Prefix {
    let mut octets = embedding.octets;
    let first = usize::from(embedding.bits / 8);
    octets[first..first + 4].copy_from_slice(&ipv4.octets[..4]);
    Prefix { ipv6: true, octets, bits: embedding.bits + ipv4.bits }
}

/// The embeddings under a scope that lists these prefixes, in order.
#[must_use]
pub fn embeddings(listed: &[(Prefix, Class)]) -> Vec<Prefix> {
    Listed::new(listed).embeddings
}

/// The embeddings that are of NAT64, in order.
#[must_use]
pub fn nat64(listed: &[(Prefix, Class)]) -> Vec<Prefix> {
    let is_nat64 =
        |prefix: &Prefix| *prefix == NAT64.prefix || WELL_KNOWN.iter().all(|known| known.prefix != *prefix);
    embeddings(listed).into_iter().filter(is_nat64).collect()
}

/// The most prefixes that [`each`] makes of these.
#[must_use]
pub fn count(listed: &[(Prefix, Class)]) -> usize {
    let own = listed.iter().filter(|(_, class)| *class == Class::Embedded).count();
    let ipv4 = listed.iter().filter(|(prefix, _)| !prefix.ipv6).count();
    listed.len() + RANGES.len() + (WELL_KNOWN.len() + own) * (ipv4 + RANGES.len() + 1)
}

/// Gives every prefix that decides a class, with the class: the longest one that covers an address decides, except that
/// [`Class::Never`] always wins. None is [`Class::Embedded`].
pub fn each(listed: &[(Prefix, Class)], mut add: impl FnMut(Prefix, Class)) {
    let listed = Listed::new(listed);
    listed.classed().for_each(|(prefix, class)| add(prefix, class));
    listed.special().for_each(|prefix| add(prefix, Class::Special));
    let everything = Prefix { ipv6: false, octets: [0; 16], bits: 0 };
    for embedding in &listed.embeddings {
        let has_inside = listed.has_inside(embedding);
        // Of two listings of one prefix, that as IPv6 decides, unless the other is never.
        let mut add_form = |ipv4: &Prefix, class: Class| {
            let form = form(embedding, ipv4);
            if class == Class::Never || !has_inside || !listed.has(&form) {
                add(form, class);
            }
        };
        if !listed.has(&everything) {
            add_form(&everything, Class::Foreign);
        }
        listed.ipv4().for_each(|(prefix, class)| add_form(&prefix, class));
        for prefix in listed.special().filter(|prefix| !prefix.ipv6) {
            if !listed.names(&form(embedding, &prefix), embedding.bits) {
                add_form(&prefix, Class::Special);
            }
        }
    }
}

/// The prefixes of a scope with the special ranges that it does not list and with its embeddings, as [`Class::Embedded`]: all
/// that tells how an address is judged, without what IPv4 prefixes mean inside of IPv6 addresses.
#[must_use]
pub fn judged(listed: &[(Prefix, Class)]) -> Vec<(Prefix, Class)> {
    let listed = Listed::new(listed);
    let embeddings = listed.embeddings.iter().copied().filter(|prefix| !listed.has(prefix));
    let mut all: Vec<_> = listed
        .classed()
        .chain(listed.special().map(|prefix| (prefix, Class::Special)))
        .chain(embeddings.map(|prefix| (prefix, Class::Embedded)))
        .collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::{Class, Prefix, count, each, form};

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).expect("a prefix")
    }

    /// The class of an address: the longest prefix decides.
    fn class(listed: &[(&str, Class)], address: &str) -> Class {
        let listed: Vec<_> = listed.iter().map(|(text, class)| (prefix(text), *class)).collect();
        let mut all = Vec::new();
        each(&listed, |prefix, class| all.push((prefix, class)));
        assert!(all.len() <= count(&listed), "{} of {}", all.len(), count(&listed));
        let (ipv6, octets) = match address.parse().expect("an address") {
            std::net::IpAddr::V4(address) => (false, address.to_ipv6_mapped().octets()),
            std::net::IpAddr::V6(address) => (true, address.octets()),
        };
        let mut address = Prefix { ipv6, octets, bits: if ipv6 { 128 } else { 32 } };
        if !ipv6 {
            address.octets = [0; 16];
            address.octets[..4].copy_from_slice(&octets[12..]);
        }
        let covering = || all.iter().filter(|(prefix, _)| prefix.covers(&address));
        if covering().any(|(_, class)| *class == Class::Never) {
            return Class::Never;
        }
        covering().max_by_key(|(prefix, _)| prefix.bits).map_or(Class::Foreign, |(_, class)| *class)
    }

    #[test]
    fn forms_have_the_ipv4_address_behind_the_embedding() {
        for (embedding, ipv4, expected) in [
            ("64:ff9b::/96", "203.0.113.0/24", "64:ff9b::cb00:7100/120"),
            ("2002::/16", "203.0.113.0/24", "2002:cb00:7100::/40"),
            ("2002::/16", "203.0.113.7", "2002:cb00:7107::/48"),
            ("2001:db8:64::/96", "0.0.0.0/0", "2001:db8:64::/96"),
        ] {
            assert_eq!(form(&prefix(embedding), &prefix(ipv4)), prefix(expected));
        }
    }

    #[test]
    fn an_embedded_address_has_the_class_of_its_ipv4_address() {
        let listed = [
            ("203.0.113.0/24", Class::Domestic),
            ("203.0.113.128/25", Class::Foreign),
            ("203.0.113.192/26", Class::Never),
            ("2001:db8::/32", Class::Domestic),
            ("2001:db8:64::/96", Class::Embedded),
            ("64:ff9b:1:9::/96", Class::Embedded),
        ];
        for (last, expected) in [(1, Class::Domestic), (129, Class::Foreign), (200, Class::Never)] {
            assert_eq!(class(&listed, &format!("203.0.113.{last}")), expected);
            let form = format!("cb00:71{last:02x}");
            for address in [
                format!("64:ff9b::{form}"),
                format!("64:ff9b:1:9::{form}"),
                format!("2001:db8:64::{form}"),
                format!("2002:{form}::1"),
                format!("::ffff:{form}"),
            ] {
                assert_eq!(class(&listed, &address), expected, "{address}");
            }
        }
        for (address, expected) in [
            ("64:ff9b::198.51.100.1", Class::Foreign),
            ("64:ff9b::10.0.0.1", Class::Special),
            ("64:ff9b:1::203.0.113.1", Class::Special),
            ("2001:db8:64::198.51.100.1", Class::Foreign),
            ("2001:db8:64::10.0.0.1", Class::Special),
            ("2001:db8:64:1::1", Class::Domestic),
            ("2002:a00:1::1", Class::Special),
            ("2002:c633:6401::1", Class::Foreign),
            ("::ffff:224.0.0.1", Class::Special),
            ("fd00::1", Class::Special),
        ] {
            assert_eq!(class(&listed, address), expected, "{address}");
        }
    }

    #[test]
    fn what_is_listed_is_not_special() {
        let listed = [
            ("100.64.0.0/10", Class::Foreign),
            ("10.0.0.0/8", Class::Domestic),
            ("10.9.0.0/16", Class::Never),
            ("192.168.7.0/24", Class::Domestic),
            ("ff00::/8", Class::Foreign),
            ("2001::/32", Class::Never),
            ("64:ff9b::7f00:0/104", Class::Foreign),
            ("2002::/16", Class::Domestic),
        ];
        for (address, expected) in [
            ("100.64.1.1", Class::Foreign),
            ("10.1.1.1", Class::Domestic),
            ("10.9.1.1", Class::Never),
            ("192.168.7.1", Class::Domestic),
            ("192.168.8.1", Class::Special),
            ("172.16.0.1", Class::Special),
            ("ff02::1", Class::Foreign),
            ("2001::1", Class::Never),
            ("64:ff9b::100.64.1.1", Class::Foreign),
            ("64:ff9b::10.1.1.1", Class::Domestic),
            ("64:ff9b::10.9.1.1", Class::Never),
            ("64:ff9b::127.0.0.1", Class::Foreign),
            ("64:ff9b::192.168.8.1", Class::Special),
            // The policy lists 6to4 as a whole.
            ("2002:c0a8:801::1", Class::Domestic),
            ("2002:6440:1::1", Class::Foreign),
            ("2002:a09:1::1", Class::Never),
        ] {
            assert_eq!(class(&listed, address), expected, "{address}");
        }
        let all = [("0.0.0.0/0", Class::Domestic), ("::/0", Class::Domestic)];
        for (address, expected) in [
            ("10.0.0.1", Class::Domestic),
            ("fe80::1", Class::Domestic),
            ("64:ff9b::10.0.0.1", Class::Domestic),
            ("2002:c633:6401::1", Class::Domestic),
        ] {
            assert_eq!(class(&all, address), expected, "{address}");
        }
    }
}
