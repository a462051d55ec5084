//! Which classes the addresses of a prefix have. The prefixes of the scope become ranges of alternating
//! class.

use crate::policy::class::Class;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;

/// The classes of all addresses. An address that is never collected is in no record; here it has the class of
/// the addresses around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    ipv4: Ranges,
    ipv6: Ranges,
}

/// First addresses of ranges, left-aligned and in order. Ranges alternate: foreign up to the first of these
/// addresses, domestic from it on, foreign from the second on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    domestic_from: Vec<u128>,
}

impl Classes {
    /// The classes of a scope.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        let ranges = |ipv6| {
            let prefixes = scope.prefixes.iter().filter(|(prefix, _)| prefix.ipv6 == ipv6);
            let mut prefixes =
                prefixes.filter(|(_, class)| *class != Class::Never).copied().collect::<Vec<_>>();
            // A prefix comes before the prefixes inside it.
            prefixes.sort_unstable();
            Ranges::new(&prefixes)
        };
        Self { ipv4: ranges(false), ipv6: ranges(true) }
    }

    /// Whether an address of the class is among those that share `bits` leading bits with this left-aligned
    /// one.
    #[must_use]
    pub(crate) fn may_be(&self, ipv6: bool, address: u128, bits: u8, class: Class) -> bool {
        let ranges = if ipv6 { &self.ipv6 } else { &self.ipv4 };
        ranges.have(address, rest(bits), class == Class::Domestic)
    }
}

/// The bits behind a prefix of this length.
pub(crate) fn rest(bits: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

impl Ranges {
    fn new(prefixes: &[(Prefix, Class)]) -> Self {
        let mut ranges = Self::default();
        // Last address and class of each prefix around the current one.
        let mut around = vec![(u128::MAX, Class::Foreign)];
        let leave = |ranges: &mut Self, around: &mut Vec<(u128, Class)>, before: Option<u128>| {
            while let [.., (_, outer), (last, _)] = around[..]
                && before.is_none_or(|next| last < next)
            {
                around.pop();
                if let Some(first) = last.checked_add(1) {
                    ranges.go_on(first, outer);
                }
            }
        };
        for (prefix, class) in prefixes {
            let first = u128::from_be_bytes(prefix.octets);
            leave(&mut ranges, &mut around, Some(first));
            ranges.go_on(first, *class);
            around.push((first | rest(prefix.bits), *class));
        }
        leave(&mut ranges, &mut around, None);
        ranges
    }

    /// Sets the class from this address on, and removes what was set from the same address on.
    fn go_on(&mut self, from: u128, class: Class) {
        if self.domestic_from.last() == Some(&from) {
            self.domestic_from.pop();
        }
        let domestic = self.domestic_from.len() % 2 == 1;
        if domestic != (class == Class::Domestic) {
            self.domestic_from.push(from);
        }
    }

    fn have(&self, address: u128, rest: u128, domestic: bool) -> bool {
        let (first, last) = (address & !rest, address | rest);
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
        Classes::new(&Scope { prefixes: prefixes.to_vec(), directions: Vec::new() })
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
    fn without_a_scope_all_is_foreign() {
        assert!(Classes::default().may_be(true, 1, 0, Class::Foreign));
        assert!(!Classes::default().may_be(true, 1, 0, Class::Domestic));
    }
}
