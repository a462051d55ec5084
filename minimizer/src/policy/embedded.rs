//! IPv4 addresses inside of IPv6 addresses, and what the prefixes of a scope say of all addresses.
//!
//! A prefix of the IPv4 addresses of a scope counts also behind each prefix of IPv6 whose addresses carry an IPv4 address. So
//! the longest prefix decides here, too. Special ranges fill what the scope does not list.

use std::borrow::Cow;

use crate::policy::class::Class;
use crate::policy::prefixes::Prefix;
use crate::policy::special::RANGES;
use crate::policy::translation::{Translation, WELL_KNOWN};

/// The prefixes of a scope, as it lists them, sorted, and all translations.
struct Listed<'scope> {
    prefixes: Cow<'scope, [(Prefix, Class)]>,
    translations: Vec<Translation>,
    /// The special ranges that the scope does not list, and that are no translation.
    special: Vec<Prefix>,
}

impl<'scope> Listed<'scope> {
    fn new(prefixes: &'scope [(Prefix, Class)], own: &[Translation]) -> Self {
        let mut prefixes = Cow::Borrowed(prefixes);
        // The check of a policy has sorted them.
        if !prefixes.is_sorted() {
            prefixes.to_mut().sort_unstable();
        }
        let mut listed = Self { prefixes, translations: all(own), special: Vec::new() };
        let is_translation =
            |range: &Prefix| listed.translations.iter().any(|translation| translation.prefix.covers(range));
        let ranges = RANGES.iter().map(|range| range.prefix);
        listed.special = ranges.filter(|range| !is_translation(range) && !listed.names(range, 0)).collect();
        listed
    }

    /// The prefixes of IPv4 inside of this one that are longer.
    fn inside(&self, common: &Prefix) -> &[(Prefix, Class)] {
        let first = self.prefixes.partition_point(|(prefix, _)| prefix <= common);
        let rest = &self.prefixes[first..];
        &rest[..rest.partition_point(|(prefix, _)| common.covers(prefix))]
    }

    /// The classes that the scope gives to this very prefix: one, or two of which one is never.
    fn of(&self, prefix: &Prefix) -> impl Iterator<Item = Class> {
        let first = self.prefixes.partition_point(|(other, _)| other < prefix);
        let same = self.prefixes[first..].iter().take_while(move |(other, _)| other == prefix);
        same.map(|(_, class)| *class)
    }

    /// Whether the scope gives this very prefix a class.
    fn has(&self, prefix: &Prefix) -> bool {
        self.of(prefix).next().is_some()
    }

    /// Whether the scope gives a class to a prefix of at least `bits` bits that covers this one.
    fn names(&self, prefix: &Prefix, bits: u8) -> bool {
        (bits..=prefix.bits).any(|bits| self.has(&prefix.shortened(bits)))
    }

    /// The class that all addresses of an IPv4 prefix have, but for longer prefixes and those that are never collected.
    fn class(&self, ipv4: &Prefix) -> Class {
        let is_other = |class: &Class| *class != Class::Never;
        let longest = (0..=ipv4.bits).rev().find_map(|bits| self.of(&ipv4.shortened(bits)).find(is_other));
        let is_special = || self.special.iter().any(|range| range.covers(ipv4));
        longest.unwrap_or_else(|| if is_special() { Class::Special } else { Class::Foreign })
    }

    /// Whether addresses of an IPv4 prefix are never collected, all of them.
    fn is_never(&self, ipv4: &Prefix) -> bool {
        (0..=ipv4.bits).any(|bits| self.of(&ipv4.shortened(bits)).any(|class| class == Class::Never))
    }

    /// Whether the scope lists prefixes inside of this one.
    fn has_inside(&self, prefix: &Prefix) -> bool {
        let first = self.prefixes.partition_point(|(other, _)| other < prefix);
        self.prefixes.get(first).is_some_and(|(other, _)| prefix.covers(other))
    }

    /// Gives the prefixes of a translation that decide a class.
    fn forms(&self, translation: &Translation, mut add: impl FnMut(Prefix, Class)) {
        let has_inside = self.has_inside(&translation.prefix);
        // Of two listings of one prefix, that as IPv6 decides, unless the other is never.
        let mut add = |form: Prefix, class: Class| {
            if class == Class::Never || !has_inside || !self.has(&form) {
                add(form, class);
            }
        };
        let common = &translation.ipv4;
        let around = (translation.prefix, self.class(common));
        if self.is_never(common) {
            add(translation.prefix, Class::Never);
        }
        let special = self.special.iter().filter(|range| *range != common && common.covers(range));
        let special = special.filter_map(|range| Some((*range, translation.form(range)?)));
        let special = special.filter(|(_, form)| !self.names(form, translation.prefix.bits));
        let before_zeroes = translation.before_zeroes();
        if translation.is_whole() && before_zeroes.is_none() {
            add(around.0, around.1);
            let listed = self.inside(common).iter();
            listed
                .filter_map(|(ipv4, class)| Some((translation.form(ipv4)?, *class)))
                .for_each(|(form, class)| add(form, class));
            special.for_each(|(_, form)| add(form, Class::Special));
            return;
        }
        let special: Vec<_> = special.map(|(range, _)| (range, Class::Special)).collect();
        let inside = || self.inside(common).iter().chain(&special).copied();
        let mut forms = vec![around];
        for (ipv4, class) in inside() {
            // Addresses that cannot be told apart have the class of the one that is protected most.
            let is_told = ipv4.bits <= common.bits + translation.carried;
            if is_told || class != Class::Foreign {
                forms.extend(translation.form(&ipv4).map(|form| (form, class)));
            }
        }
        // Where bits that must be zero are not, nobody knows the IPv4 address.
        if let Some(bits) = before_zeroes {
            let mut parts: Vec<_> =
                inside().filter(|(ipv4, _)| ipv4.bits > bits).map(|(ipv4, _)| ipv4.shortened(bits)).collect();
            parts.dedup();
            for part in parts {
                if let Some([whole, with_zeroes]) = translation.around_zeroes(&part)
                    && !self.names(&whole, translation.prefix.bits)
                {
                    forms.extend([(whole, Class::Special), (with_zeroes, self.class(&part))]);
                }
            }
        }
        // The last of those with one form stays.
        forms.sort_unstable_by_key(|(form, class)| (*form, protection(*class)));
        let last =
            |next: Option<&(Prefix, Class)>, form: &Prefix| next.is_none_or(|(other, _)| other != form);
        for (position, (form, class)) in forms.iter().enumerate() {
            if last(forms.get(position + 1), form) {
                add(*form, *class);
            }
        }
    }
}

/// How much a class protects: never most.
const fn protection(class: Class) -> u8 {
    match class {
        Class::Foreign | Class::Embedded => 0,
        Class::Domestic => 1,
        Class::Special => 2,
        Class::Never => 3,
    }
}

/// The translations of every network and a network's own, in order.
#[must_use]
pub fn all(own: &[Translation]) -> Vec<Translation> {
    let mut all: Vec<_> = WELL_KNOWN.iter().chain(own).copied().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The most prefixes that [`each`] makes of these.
#[must_use]
pub fn count(prefixes: &[(Prefix, Class)], own: &[Translation]) -> usize {
    let listed = Listed::new(prefixes, own);
    let forms = listed.translations.iter().map(|translation| {
        let inside = listed.inside(&translation.ipv4).len() + RANGES.len();
        let each = if translation.before_zeroes().is_some() { 3 } else { 1 };
        2 + each * inside
    });
    prefixes.len() + RANGES.len() + forms.sum::<usize>()
}

/// Gives every prefix that decides a class, with the class: the longest one that covers an address decides, except that
/// [`Class::Never`] always wins. None is [`Class::Embedded`].
pub fn each(prefixes: &[(Prefix, Class)], own: &[Translation], mut add: impl FnMut(Prefix, Class)) {
    let listed = Listed::new(prefixes, own);
    listed.prefixes.iter().for_each(|(prefix, class)| add(*prefix, *class));
    listed.special.iter().for_each(|range| add(*range, Class::Special));
    listed.translations.iter().for_each(|translation| listed.forms(translation, &mut add));
}

/// The prefixes of a scope with the special ranges that it does not list and with the translations, as [`Class::Embedded`]: all
/// that tells how an address is judged, without what IPv4 prefixes mean inside of IPv6 addresses.
#[must_use]
pub fn judged(prefixes: &[(Prefix, Class)], own: &[Translation]) -> Vec<(Prefix, Class)> {
    let listed = Listed::new(prefixes, own);
    let translations = listed.translations.iter().map(|translation| translation.prefix);
    let mut all: Vec<_> = listed
        .prefixes
        .iter()
        .copied()
        .chain(listed.special.iter().map(|range| (*range, Class::Special)))
        .chain(translations.filter(|prefix| !listed.has(prefix)).map(|prefix| (prefix, Class::Embedded)))
        .collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests;
