//! The class of every address under a scope, and which addresses change their class between two scopes.

use crate::policy::class::Class;
use crate::policy::classes::rest;
use crate::policy::embedded;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::translation::Translation;

/// The classes of all addresses of both IP versions, those that are never collected included. Addresses that are judged by an IPv4
/// address in them have the class [`Class::Embedded`].
pub struct Space {
    /// IPv4, then IPv6.
    versions: [Ranges; 2],
}

/// First addresses of ranges, left-aligned and in order, with the class from there on. The first range begins with address 0.
type Ranges = Vec<(u128, Class)>;

/// Addresses that have another class than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Their class before.
    pub before: Class,
    /// Their class now.
    pub after: Class,
    /// The fewest prefixes that cover them: IPv4 first, in order.
    pub prefixes: Vec<Prefix>,
}

impl Space {
    /// The classes of a scope, with the network's own translations.
    #[must_use]
    pub fn new(scope: &Scope, translations: &[Translation]) -> Self {
        Self::without(scope, translations, &[])
    }

    /// The classes of a scope, with the network's own translations, where nothing is collected of these prefixes, whatever the scope
    /// lists: they are special.
    #[must_use]
    pub fn without(scope: &Scope, translations: &[Translation], reserved: &[Prefix]) -> Self {
        let mut judged = embedded::judged(&scope.prefixes, translations);
        let is_inside = |prefix: &Prefix| reserved.iter().any(|reserved| reserved.covers(prefix));
        judged.retain(|(prefix, class)| *class == Class::Never || !is_inside(prefix));
        judged.extend(reserved.iter().map(|prefix| (*prefix, Class::Special)));
        Self::of(&judged)
    }

    /// The classes of addresses if these prefixes decide alone.
    #[must_use]
    pub fn of(prefixes: &[(Prefix, Class)]) -> Self {
        Self { versions: [false, true].map(|ipv6| ranges(prefixes, ipv6)) }
    }

    /// The addresses that have another class in `after`, by their two classes.
    #[must_use]
    pub fn moved(&self, after: &Self) -> Vec<Moved> {
        let mut all: Vec<Moved> = Vec::new();
        for (ipv6, (before, after)) in
            [false, true].into_iter().zip(self.versions.iter().zip(&after.versions))
        {
            for (first, last, was, is) in differing(before, after) {
                let position = all.iter().position(|moved| (moved.before, moved.after) == (was, is));
                let position = position.unwrap_or_else(|| {
                    all.push(Moved { before: was, after: is, prefixes: Vec::new() });
                    all.len() - 1
                });
                cover(first, last, ipv6, &mut all[position].prefixes);
            }
        }
        all.sort_by_key(|moved| (moved.before, moved.after));
        all
    }
}

fn ranges(prefixes: &[(Prefix, Class)], ipv6: bool) -> Ranges {
    let mut prefixes: Vec<_> = prefixes.iter().copied().filter(|(prefix, _)| prefix.ipv6 == ipv6).collect();
    // A prefix comes before the prefixes inside it.
    prefixes.sort_unstable();
    let mut ranges: Ranges = vec![(0, Class::Foreign)];
    // Last address and class of each prefix around the current one.
    let mut around = vec![(u128::MAX, Class::Foreign)];
    for (prefix, class) in prefixes {
        let first = u128::from_be_bytes(prefix.octets);
        leave(&mut ranges, &mut around, Some(first));
        // What is never collected stays so inside of it.
        let class = match around.last() {
            Some((_, Class::Never)) => Class::Never,
            _ => class,
        };
        go_on(&mut ranges, first, class);
        around.push((first | rest(prefix.bits), class));
    }
    leave(&mut ranges, &mut around, None);
    ranges
}

/// Leaves the prefixes that end before this address.
fn leave(ranges: &mut Ranges, around: &mut Vec<(u128, Class)>, before: Option<u128>) {
    while let [.., (_, outer), (last, _)] = around[..]
        && before.is_none_or(|next| last < next)
    {
        around.pop();
        if let Some(first) = last.checked_add(1) {
            go_on(ranges, first, outer);
        }
    }
}

/// Sets the class from this address on.
fn go_on(ranges: &mut Ranges, from: u128, class: Class) {
    if ranges.last().is_some_and(|(first, _)| *first == from) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, last)| *last != class) {
        ranges.push((from, class));
    }
}

/// The ranges (first, last) of addresses with different classes, and the classes.
fn differing(before: &Ranges, after: &Ranges) -> Vec<(u128, u128, Class, Class)> {
    let mut borders: Vec<_> = before.iter().chain(after).map(|(first, _)| *first).collect();
    borders.sort_unstable();
    borders.dedup();
    let class = |ranges: &Ranges, address: u128| {
        let begun = ranges.partition_point(|(first, _)| *first <= address);
        ranges[begun.saturating_sub(1)].1
    };
    let mut all: Vec<(u128, u128, Class, Class)> = Vec::new();
    for (position, first) in borders.iter().enumerate() {
        let last = borders.get(position + 1).map_or(u128::MAX, |next| next - 1);
        let (was, is) = (class(before, *first), class(after, *first));
        if was == is {
            continue;
        }
        match all.last_mut() {
            Some(range) if (range.2, range.3) == (was, is) && range.1.checked_add(1) == Some(*first) => {
                range.1 = last;
            }
            _ => all.push((*first, last, was, is)),
        }
    }
    all
}

/// Adds the fewest prefixes that cover the addresses from the first to the last.
fn cover(mut first: u128, last: u128, ipv6: bool, prefixes: &mut Vec<Prefix>) {
    loop {
        // The shortest prefix that begins here and does not end later.
        let mut bits: u8 = if ipv6 { 128 } else { 32 };
        while bits > 0 && first & rest(bits - 1) == 0 && first | rest(bits - 1) <= last {
            bits -= 1;
        }
        prefixes.push(Prefix { ipv6, octets: first.to_be_bytes(), bits });
        match (first | rest(bits)).checked_add(1) {
            Some(next) if next <= last => first = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Moved, Space};
    use crate::policy::class::Class::{self, Domestic, Embedded, Foreign, Never, Special};
    use crate::policy::model::Scope;
    use crate::policy::prefixes::Prefix;
    use crate::policy::translation::Translation;

    fn prefixes(listed: &[(&str, Class)]) -> Vec<(Prefix, Class)> {
        listed.iter().map(|(text, class)| (Prefix::parse(text).expect("a prefix"), *class)).collect()
    }

    fn space(listed: &[(&str, Class)]) -> Space {
        Space::of(&prefixes(listed))
    }

    #[test]
    fn special_ranges_and_embedded_addresses_move_when_they_are_listed() {
        let scope = |listed: &[(&str, Class)]| {
            let (own, listed): (Vec<_>, Vec<_>) =
                prefixes(listed).into_iter().partition(|(_, class)| *class == Embedded);
            let own: Vec<_> = own.into_iter().map(|(prefix, _)| Translation::nat64(prefix)).collect();
            Space::new(&Scope { prefixes: listed, directions: Vec::new() }, &own)
        };
        for (listed, before, after) in [
            ("100.64.0.0/10", Special, Foreign),
            ("10.1.0.0/16", Special, Domestic),
            ("fe80::/10", Special, Never),
            ("2002::/16", Embedded, Foreign),
            ("64:ff9b:1::/96", Special, Embedded),
            ("2001:db8:64::/96", Foreign, Embedded),
        ] {
            let moved = scope(&[]).moved(&scope(&[(listed, after)]));
            let expected = Moved { before, after, prefixes: vec![Prefix::parse(listed).expect("a prefix")] };
            assert_eq!(moved, [expected], "{listed}");
        }
    }

    fn moved(before: &[(&str, Class)], after: &[(&str, Class)]) -> Vec<(Class, Class, Vec<String>)> {
        let said = |Moved { before, after, prefixes }| {
            (before, after, prefixes.iter().map(Prefix::to_string).collect())
        };
        space(before).moved(&space(after)).into_iter().map(said).collect()
    }

    fn one(before: Class, after: Class, prefixes: &[&str]) -> Vec<(Class, Class, Vec<String>)> {
        vec![(before, after, prefixes.iter().map(|text| (*text).to_owned()).collect())]
    }

    #[test]
    fn what_moves_is_told_by_its_addresses_and_not_by_how_they_are_listed() {
        let home = [("203.0.113.0/24", Domestic)];
        assert_eq!(moved(&home, &[("203.0.113.0/25", Domestic), ("203.0.113.128/25", Domestic)]), []);
        assert_eq!(
            moved(&home, &[("203.0.113.0/25", Domestic)]),
            one(Domestic, Foreign, &["203.0.113.128/25"])
        );
        let hole = [("203.0.113.0/24", Domestic), ("203.0.113.128/25", Foreign)];
        assert_eq!(moved(&home, &hole), one(Domestic, Foreign, &["203.0.113.128/25"]));
        assert_eq!(moved(&hole, &home), one(Foreign, Domestic, &["203.0.113.128/25"]));
        let inner = [("203.0.113.0/24", Domestic), ("203.0.113.192/26", Domestic)];
        assert_eq!(moved(&home, &inner), []);
        // A foreign prefix outside of domestic ones changes nothing.
        assert_eq!(moved(&home, &[("203.0.113.0/24", Domestic), ("203.0.0.0/16", Foreign)]), []);
    }

    #[test]
    fn never_wins_over_what_is_inside_and_outside() {
        let home = [("2001:db8::/32", Domestic)];
        let never = [("2001:db8::/32", Domestic), ("2001:db8::/33", Never), ("2001:db8::/48", Foreign)];
        assert_eq!(moved(&home, &never), one(Domestic, Never, &["2001:db8::/33"]));
        let all = [("::/0", Never)];
        assert_eq!(moved(&[], &all), one(Foreign, Never, &["::/0"]));
        assert_eq!(
            moved(&[], &[("255.255.255.255", Domestic)]),
            one(Foreign, Domestic, &["255.255.255.255/32"])
        );
    }

    #[test]
    fn ranges_that_are_no_prefix_are_covered_by_the_fewest() {
        let before = [("203.0.113.0/24", Domestic), ("203.0.113.0/32", Foreign)];
        let prefixes = ["203.0.113.1/32", "203.0.113.2/31", "203.0.113.4/30", "203.0.113.8/29"];
        let (rest, all) = (["203.0.113.16/28", "203.0.113.32/27", "203.0.113.64/26", "203.0.113.128/25"], []);
        assert_eq!(moved(&before, &all), one(Domestic, Foreign, &[prefixes, rest].concat()));
    }
}
