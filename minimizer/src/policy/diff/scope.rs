//! Differences in which packets the policy collects: directions, prefixes, indicators.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Differences, Effect, examples};
use crate::policy::class::Class;
use crate::policy::indicators::Indicator;
use crate::policy::model::{Policy, Scope};
use crate::policy::prefixes::Prefix;
use crate::policy::space::{Moved, Space};
use crate::policy::translation::Translation;
use crate::policy::words;

/// Finds what changes in the scope.
pub fn diff(differences: &mut Differences, before: &Policy, after: &Policy) {
    match (&before.scope, &after.scope) {
        (None, None) => {}
        (None, Some(scope)) => {
            let change = format!("only {} are collected, not everything", directions(scope));
            differences.add(Effect::Narrower, "scope", change);
        }
        (Some(scope), None) => {
            let change = format!("everything is collected, not only {}", directions(scope));
            differences.add(Effect::Wider, "scope", change);
        }
        (Some(was), Some(is)) => {
            for direction in is.directions.iter().filter(|direction| !was.directions.contains(direction)) {
                differences.add(
                    Effect::Wider,
                    format!("direction {}", words::direction(*direction)),
                    "is collected",
                );
            }
            for direction in was.directions.iter().filter(|direction| !is.directions.contains(direction)) {
                let about = format!("direction {}", words::direction(*direction));
                differences.add(Effect::Narrower, about, "is no longer collected");
            }
            moved(differences, [(was, before), (is, after)]);
            translations(differences, before, after);
        }
    }
}

fn directions(scope: &Scope) -> String {
    words::list(&scope.directions.iter().map(|direction| words::direction(*direction)).collect::<Vec<_>>())
}

/// Addresses that have another class. What a packet of them is called and whether it is collected follows from that, so that
/// each direction is told. Only addresses of which nothing is collected any more make the policy narrower.
fn moved(differences: &mut Differences, [(before, policy), (after, other)]: [(&Scope, &Policy); 2]) {
    let [from, to] = [(before, policy), (after, other)]
        .map(|(scope, policy)| Space::without(scope, &policy.translations, &policy.reserved()));
    for Moved { before: was, after: is, prefixes } in from.moved(&to) {
        let way = match (was, is) {
            (Class::Special, Class::Never) => Effect::Changed,
            (_, Class::Never) => Effect::Narrower,
            (Class::Foreign | Class::Domestic | Class::Embedded, Class::Special) => Effect::Narrower,
            _ => Effect::Wider,
        };
        let number = words::count(prefixes.len(), "prefix", "prefixes");
        let mut change = format!("{number} ({})", examples(prefixes.iter().map(Prefix::to_string).collect()));
        for other in [Class::Foreign, Class::Domestic] {
            for is_source in [true, false] {
                let packets = if is_source { "from them to" } else { "to them from" };
                let say = |scope: &Scope, class: Class| {
                    let direction = if is_source { (class, other) } else { (other, class) };
                    let collected =
                        if scope.directions.contains(&direction) { "collected" } else { "not collected" };
                    match class {
                        Class::Never => "never collected".to_owned(),
                        Class::Special => "special, or reserved for pseudonyms, and not collected".to_owned(),
                        Class::Embedded => "judged by the IPv4 address in it".to_owned(),
                        Class::Foreign | Class::Domestic => {
                            format!("{} and {collected}", words::direction(direction))
                        }
                    }
                };
                change += &format!(
                    "; packets {packets} {other} addresses: {} -> {}",
                    say(before, was),
                    say(after, is)
                );
            }
        }
        differences.add(way, format!("addresses that were {was} and are {is}"), change);
    }
}

/// Translations that are gone, new or of another form. Whichever way, addresses are judged by something else, which nobody has
/// approved.
fn translations(differences: &mut Differences, before: &Policy, after: &Policy) {
    let only = |one: &Policy, other: &Policy| -> Vec<Translation> {
        one.translations
            .iter()
            .filter(|translation| !other.translations.contains(translation))
            .copied()
            .collect()
    };
    for (all, change) in [
        (only(before, after), "its addresses are no longer judged by the IPv4 address in them"),
        (only(after, before), "its addresses are judged by the IPv4 address in them"),
    ] {
        for translation in all {
            differences.add(Effect::Wider, format!("translation {translation}"), change);
        }
    }
}

/// Finds what changes in the indicators.
pub fn selectors(differences: &mut Differences, before: Option<&[Indicator]>, after: Option<&[Indicator]>) {
    let about = "selectors";
    match (before, after) {
        (None, None) => {}
        (None, Some(indicators)) => {
            let number = words::count(indicators.len(), "indicator", "indicators");
            differences.add(Effect::Narrower, about, format!("only what matches is collected: {number}"));
        }
        (Some(_), None) => {
            differences.add(
                Effect::Wider,
                about,
                "are gone: every packet in scope is collected, whatever it matches",
            );
        }
        (Some(before), Some(after)) => {
            let (before, after) = (by_what(before), by_what(after));
            let only = |one: &Expiries, other: &Expiries| -> Vec<String> {
                one.keys()
                    .filter(|key| !other.contains_key(*key))
                    .map(|(id, what)| format!("{id} {what}"))
                    .collect()
            };
            differences.examples(Effect::Wider, about, "added", only(&after, &before));
            differences.examples(Effect::Narrower, about, "removed", only(&before, &after));
            let moved = |is_later: bool| -> Vec<String> {
                let both = after.iter().filter_map(|(key, is)| Some((key, before.get(key)?, is)));
                let moved = both.filter(|(_, was, is)| if is_later { was < is } else { is < was });
                moved.map(|((id, what), ..)| format!("{id} {what}")).collect()
            };
            differences.examples(Effect::Wider, about, "expire later", moved(true));
            differences.examples(Effect::Narrower, about, "expire earlier", moved(false));
        }
    }
}

/// The latest expiry, by number and by what the indicator looks for.
type Expiries = BTreeMap<(u64, String), Timestamp>;

fn by_what(indicators: &[Indicator]) -> Expiries {
    let mut expiries = Expiries::new();
    for indicator in indicators {
        // An indicator without an expiry ends later than every other.
        let expires = indicator.expires.unwrap_or(Timestamp::MAX);
        let latest = expiries.entry((indicator.id, indicator.what())).or_insert(expires);
        *latest = expires.max(*latest);
    }
    expiries
}
