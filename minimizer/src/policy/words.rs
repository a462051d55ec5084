//! Transforms, times and prefixes in words, for people who decide and for inspectors.

use std::time::Duration;

use super::transform::{AddressTransform, CONTROL_BITS, Listed, PrefixScheme, Transform};
use crate::policy::class::Class;
use crate::policy::indicators::Indicator;

/// Who can turn back what takes a key.
pub const HOLDER: &str = "holder of the key";
/// Most of one unit that a person reads at a glance; days are counted on.
const AT_A_GLANCE: u128 = 120;

/// A duration in the largest unit that divides it, or in several if there would be too many of it.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units =
        [("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000), ("millisecond", 1)];
    let said = |number: u128, name: &str| match number {
        1 => format!("1 {name}"),
        _ => format!("{number} {name}s"),
    };
    let whole = units.iter().find(|(_, unit)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit));
    match whole {
        Some((name @ "day", unit)) => said(milliseconds / unit, name),
        Some((name, unit)) if milliseconds / unit <= AT_A_GLANCE => said(milliseconds / unit, name),
        Some(_) => {
            let mut rest = milliseconds;
            let mut parts = Vec::new();
            for (name, unit) in units {
                if rest >= unit {
                    parts.push(said(rest / unit, name));
                    rest %= unit;
                }
            }
            list(&parts)
        }
        None => "0 milliseconds".to_owned(),
    }
}

/// The time between drains, or its bounds.
#[must_use]
pub fn interval((min, max): (Duration, Duration)) -> String {
    if min == max { duration(min) } else { format!("{} to {}", duration(min), duration(max)) }
}

/// A number and its noun.
#[must_use]
pub fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

/// Joins words with commas and a final "and".
#[must_use]
pub fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [words @ .., last] => format!("{} and {last}", words.join(", ")),
    }
}

/// The first so many of these, and how many more there are.
#[must_use]
pub fn examples(mut all: Vec<String>, most: usize) -> String {
    let more = all.len().saturating_sub(most);
    all.truncate(most);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    all.join(", ") + &more
}

/// What remains of an address.
#[must_use]
pub fn address_remains(transform: AddressTransform) -> String {
    match transform {
        AddressTransform::Omitted => "nothing".to_owned(),
        AddressTransform::Exact => "as it is".to_owned(),
        AddressTransform::Truncated { bits } => format!("first {bits} bits"),
        AddressTransform::Pseudonym => "pseudonym".to_owned(),
        AddressTransform::PrefixPreserving(PrefixScheme::Ipcrypt) => "common prefixes (ipcrypt)".to_owned(),
        AddressTransform::PrefixPreserving(PrefixScheme::CryptoPan) => {
            "common prefixes (Crypto-PAn)".to_owned()
        }
    }
}

/// What remains of a field.
#[must_use]
pub fn remains(transform: Transform) -> String {
    match transform {
        Transform::Exact => "as it is".to_owned(),
        Transform::Address { foreign, domestic } if foreign == domestic => address_remains(foreign),
        Transform::Address { foreign, domestic } => {
            format!("foreign {}, domestic {}", address_remains(foreign), address_remains(domestic))
        }
        Transform::PortClasses => "class: 0, 1024 or 49152".to_owned(),
        Transform::ServicePorts { below } => format!("if below {below}, else 0"),
        Transform::ListedPorts { below, listed } => format!("if below {below}{}, else 0", or(listed)),
        Transform::StoredPorts { below, listed } => {
            format!("if below {below}{}, else its class", listed.map(or).unwrap_or_default())
        }
        Transform::ControlBits { mask } => {
            let names: Vec<_> =
                CONTROL_BITS.iter().filter(|(_, bit)| mask & bit != 0).map(|(name, _)| *name).collect();
            names.join(", ")
        }
        Transform::Coarsened { unit } => format!("rounded down to {}", duration(unit)),
        Transform::Log2 => "down to a power of two".to_owned(),
    }
}

fn or(listed: Listed) -> String {
    let ports: Vec<_> = listed.ports().iter().map(u16::to_string).collect();
    format!(" or {}", ports.join(", "))
}

/// The technique by its name in RFC 6235, section 4, which has none for a keyed hash. Pseudonyms of IPv4 addresses are
/// permutations instead.
#[must_use]
pub const fn technique(transform: Transform) -> &'static str {
    match transform {
        Transform::Exact => "none",
        // Both classes have the same transform when this is called.
        Transform::Address { foreign, .. } => match foreign {
            AddressTransform::Omitted => "black marker",
            AddressTransform::Exact => "none",
            AddressTransform::Truncated { .. } => "truncation",
            AddressTransform::Pseudonym => "keyed hash",
            AddressTransform::PrefixPreserving(_) => "structured permutation",
        },
        Transform::PortClasses
        | Transform::ServicePorts { .. }
        | Transform::ListedPorts { .. }
        | Transform::StoredPorts { .. }
        | Transform::Log2 => "binning",
        Transform::ControlBits { .. } | Transform::Coarsened { .. } => "precision degradation",
    }
}

/// Who can find the original value.
#[must_use]
pub const fn reversible_by(transform: Transform) -> &'static str {
    match transform {
        Transform::Exact | Transform::Address { foreign: AddressTransform::Exact, .. } => "is not hidden",
        Transform::Address {
            foreign: AddressTransform::Pseudonym | AddressTransform::PrefixPreserving(_),
            ..
        } => HOLDER,
        _ => "nobody",
    }
}

/// The name of a direction.
#[must_use]
pub fn direction((source, destination): (Class, Class)) -> String {
    format!("{source}-{destination}")
}

/// When an indicator ends.
#[must_use]
pub fn expiry(indicator: &Indicator) -> String {
    indicator.expires.map_or_else(|| "never".to_owned(), |expires| expires.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn durations_are_in_units_that_a_person_reads() {
        for (milliseconds, words) in [
            (10, "10 milliseconds"),
            (1000, "1 second"),
            (90_000, "90 seconds"),
            (3_600_000, "1 hour"),
            (30 * 86_400_000, "30 days"),
            (400 * 86_400_000, "400 days"),
            (2_630_016_000, "30 days, 10 hours, 33 minutes and 36 seconds"),
            (3_601_000, "1 hour and 1 second"),
        ] {
            assert_eq!(super::duration(Duration::from_millis(milliseconds)), words);
        }
    }

    #[test]
    fn lists_read_like_sentences() {
        let list =
            |words: &[&str]| super::list(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }
}
