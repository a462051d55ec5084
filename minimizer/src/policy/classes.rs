//! Which classes the addresses of a prefix have. The prefixes of the scope become ranges of alternating
//! class.

use std::borrow::Cow;

use crate::policy::class::Class;
use crate::policy::embedded;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::translation::Translation;

/// The classes of all addresses. An address that is never collected, or special, is in no record; here it has the class of
/// the addresses around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    ipv4: Ranges<u32>,
    ipv6: Ranges<u128>,
}

/// First addresses of ranges, left-aligned and in order. Ranges alternate: foreign up to the first of these
/// addresses, domestic from it on, foreign from the second on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges<Address> {
    domestic_from: Vec<Address>,
}

impl Classes {
    /// The classes of a scope, with the network's own translations.
    #[must_use]
    pub fn new(scope: &Scope, translations: &[Translation]) -> Self {
        let mut prefixes = Vec::with_capacity(embedded::count(&scope.prefixes, translations));
        embedded::each(&scope.prefixes, translations, |prefix, class| {
            if matches!(class, Class::Foreign | Class::Domestic) {
                prefixes.push((prefix, class));
            }
        });
        prefixes.sort_unstable();
        Self::of(&prefixes)
    }

    /// The classes of addresses if these prefixes decide alone.
    #[must_use]
    pub fn of(prefixes: &[(Prefix, Class)]) -> Self {
        let mut prefixes = Cow::Borrowed(prefixes);
        // A prefix comes before the prefixes inside it.
        if !prefixes.is_sorted() {
            prefixes.to_mut().sort_unstable();
        }
        let (ipv4, ipv6) = prefixes.split_at(prefixes.partition_point(|(prefix, _)| !prefix.ipv6));
        Self { ipv4: Ranges::new(ipv4, ipv4_address), ipv6: Ranges::new(ipv6, |address| address) }
    }

    /// Octets of memory.
    #[must_use]
    pub fn octets(&self) -> usize {
        size_of_val(self.ipv4.domestic_from.as_slice()) + size_of_val(self.ipv6.domestic_from.as_slice())
    }

    /// Whether an address of the class is among those that share `bits` leading bits with this left-aligned
    /// one.
    #[must_use]
    pub(crate) fn may_be(&self, ipv6: bool, address: u128, bits: u8, class: Class) -> bool {
        let (first, last) = (address & !rest(bits), address | rest(bits));
        let domestic = class == Class::Domestic;
        if ipv6 {
            return self.ipv6.have(first, last, domestic);
        }
        let [first, last] = [first, last].map(ipv4_address);
        self.ipv4.have(first, last, domestic)
    }
}

/// The bits behind a prefix of this length.
pub(crate) fn rest(bits: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

/// The four octets of a left-aligned address.
fn ipv4_address(address: u128) -> u32 {
    u32::try_from(address >> 96).unwrap_or(u32::MAX)
}

impl<Address: Copy + Ord> Ranges<Address> {
    /// The ranges of these prefixes. `narrow` makes an address of a left-aligned one.
    fn new(prefixes: &[(Prefix, Class)], narrow: impl Fn(u128) -> Address) -> Self {
        let mut ranges = Self { domestic_from: Vec::new() };
        // Last address and class of each prefix around the current one.
        let mut around = vec![(u128::MAX, Class::Foreign)];
        let leave = |ranges: &mut Self, around: &mut Vec<(u128, Class)>, before: Option<u128>| {
            while let [.., (_, outer), (last, _)] = around[..]
                && before.is_none_or(|next| last < next)
            {
                around.pop();
                if let Some(first) = last.checked_add(1) {
                    ranges.go_on(narrow(first), outer);
                }
            }
        };
        for (prefix, class) in
            prefixes.iter().filter(|(_, class)| matches!(class, Class::Foreign | Class::Domestic))
        {
            let first = u128::from_be_bytes(prefix.octets);
            leave(&mut ranges, &mut around, Some(first));
            ranges.go_on(narrow(first), *class);
            around.push((first | rest(prefix.bits), *class));
        }
        leave(&mut ranges, &mut around, None);
        ranges.domestic_from.shrink_to_fit();
        ranges
    }

    /// Sets the class from this address on, and removes what was set from the same address on.
    fn go_on(&mut self, from: Address, class: Class) {
        if self.domestic_from.last() == Some(&from) {
            self.domestic_from.pop();
        }
        let domestic = self.domestic_from.len() % 2 == 1;
        if domestic != (class == Class::Domestic) {
            self.domestic_from.push(from);
        }
    }

    /// Whether an address from the first to the last is domestic, or is not.
    fn have(&self, first: Address, last: Address, domestic: bool) -> bool {
        let begun = self.domestic_from.partition_point(|from| *from <= first);
        // If the next range begins before the last address, both classes occur.
        (begun % 2 == 1) == domestic || self.domestic_from.get(begun).is_some_and(|from| *from <= last)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::Classes;
    use crate::policy::class::Class;
    use crate::policy::model::Scope;
    use crate::policy::prefixes::Prefix;

    fn prefix(address: [u8; 4], bits: u8) -> Prefix {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&address);
        Prefix { ipv6: false, octets, bits }
    }

    fn classes(prefixes: &[(Prefix, Class)]) -> Classes {
        Classes::new(&Scope { prefixes: prefixes.to_vec(), directions: Vec::new() }, &[])
    }

    #[test]
    fn the_longest_prefix_decides() {
        let classes = classes(&[
            (prefix([10, 0, 0, 0], 8), Class::Domestic),
            (prefix([10, 1, 0, 0], 16), Class::Foreign),
            (prefix([10, 1, 255, 0], 24), Class::Domestic),
            (prefix([10, 2, 0, 0], 16), Class::Domestic),
            (prefix([10, 3, 0, 0], 16), Class::Never),
            (prefix([255, 0, 0, 0], 8), Class::Domestic),
            (prefix([0, 0, 0, 0], 32), Class::Domestic),
        ]);
        let class = |address: [u8; 4], bits| {
            let address = u128::from(u32::from(Ipv4Addr::from(address))) << 96;
            [Class::Foreign, Class::Domestic].map(|class| classes.may_be(false, address, bits, class))
        };
        const FOREIGN: [bool; 2] = [true, false];
        const DOMESTIC: [bool; 2] = [false, true];
        for (address, bits, expected) in [
            ([0, 0, 0, 0], 32, DOMESTIC),
            ([0, 0, 0, 1], 32, FOREIGN),
            ([9, 255, 255, 255], 32, FOREIGN),
            ([10, 0, 0, 0], 32, DOMESTIC),
            ([10, 0, 0, 0], 16, DOMESTIC),
            ([10, 0, 0, 0], 8, [true, true]),
            ([10, 1, 0, 0], 24, FOREIGN),
            ([10, 1, 0, 0], 16, [true, true]),
            ([10, 1, 255, 7], 32, DOMESTIC),
            ([10, 2, 0, 0], 15, DOMESTIC),
            ([10, 3, 0, 0], 16, DOMESTIC),
            ([11, 0, 0, 0], 32, FOREIGN),
            ([255, 255, 255, 255], 32, DOMESTIC),
            ([0, 0, 0, 0], 0, [true, true]),
        ] {
            assert_eq!(class(address, bits), expected, "{address:?}/{bits}");
        }
    }

    #[test]
    fn an_address_that_carries_a_domestic_one_is_domestic() {
        let classes = classes(&[(prefix([203, 0, 113, 0], 24), Class::Domestic)]);
        for (address, bits, expected) in [
            ("64:ff9b::203.0.113.7", 128, [false, true]),
            ("64:ff9b::203.0.114.7", 128, [true, false]),
            ("64:ff9b::203.0.113.7", 96, [true, true]),
            ("2002:cb00:7107::1", 48, [false, true]),
            ("2002:cb00:7107::1", 39, [true, true]),
            ("2001:db8::203.0.113.7", 128, [true, false]),
        ] {
            let number = u128::from(address.parse::<std::net::Ipv6Addr>().expect("an address"));
            let found =
                [Class::Foreign, Class::Domestic].map(|class| classes.may_be(true, number, bits, class));
            assert_eq!(found, expected, "{address}/{bits}");
        }
    }

    #[test]
    fn without_a_scope_all_is_foreign() {
        assert!(Classes::default().may_be(true, 1, 0, Class::Foreign));
        assert!(!Classes::default().may_be(true, 1, 0, Class::Domestic));
    }
}
