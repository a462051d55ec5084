//! Differences in which packets the policy collects: directions, prefixes, indicators.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Differences, Effect};
use crate::policy::class::Class;
use crate::policy::indicators::Indicator;
use crate::policy::join::is_address_derivable;
use crate::policy::model::{Policy, Scope};
use crate::policy::prefixes::Prefix;
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
            prefixes(differences, was, is, domestic_is(after, is));
        }
    }
}

fn directions(scope: &Scope) -> String {
    words::list(&scope.directions.iter().map(|direction| words::direction(*direction)).collect::<Vec<_>>())
}

/// The effect of an address becoming domestic. It narrows if fewer directions and less of the address remain,
/// widens if more of both, and changes otherwise.
fn domestic_is(policy: &Policy, scope: &Scope) -> Effect {
    use Class::{Domestic, Foreign};
    let allowed = |source, destination| scope.directions.contains(&(source, destination));
    let moves = [
        (allowed(Foreign, Foreign), allowed(Domestic, Foreign)),
        (allowed(Foreign, Domestic), allowed(Domestic, Domestic)),
        (allowed(Foreign, Foreign), allowed(Foreign, Domestic)),
        (allowed(Domestic, Foreign), allowed(Domestic, Domestic)),
    ];
    let transforms = policy.recipients.iter().flat_map(|recipient| recipient.fields.values());
    let of_classes: Vec<_> =
        transforms.map(|transform| (transform.of_class(Foreign), transform.of_class(Domestic))).collect();
    let narrows = moves.iter().all(|(before, after)| *before || !after)
        && of_classes.iter().all(|(foreign, domestic)| is_address_derivable(*foreign, *domestic));
    let widens = moves.iter().all(|(before, after)| *after || !before)
        && of_classes.iter().all(|(foreign, domestic)| is_address_derivable(*domestic, *foreign));
    Effect::between(widens, narrows)
}

fn opposite(way: Effect) -> Effect {
    match way {
        Effect::Wider => Effect::Narrower,
        Effect::Narrower => Effect::Wider,
        Effect::Changed => Effect::Changed,
    }
}

fn prefixes(differences: &mut Differences, before: &Scope, after: &Scope, domestic_is: Effect) {
    for (class, added) in [
        (Class::Domestic, domestic_is),
        (Class::Foreign, opposite(domestic_is)),
        (Class::Never, Effect::Narrower),
    ] {
        let of = |scope: &Scope| -> BTreeSet<Prefix> {
            scope.prefixes.iter().filter(|(_, of)| *of == class).map(|(prefix, _)| *prefix).collect()
        };
        let (before, after) = (of(before), of(after));
        let about = format!("{class} prefixes");
        let names = |prefixes: Vec<&Prefix>| prefixes.into_iter().map(ToString::to_string).collect();
        differences.examples(added, &about, "added", names(after.difference(&before).collect()));
        differences.examples(opposite(added), &about, "removed", names(before.difference(&after).collect()));
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
