//! Differences between recipients, and between the fields that each of them gets.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Differences, Effect};
use crate::policy::field::Field;
use crate::policy::join::is_derivable;
use crate::policy::joins::Pair;
use crate::policy::model::{Destination, Mitigations, Policy, Recipient, Sources};
use crate::policy::transform::Transform;
use crate::policy::words;

/// Finds recipients that come or go, and what changes for the others.
pub fn diff(differences: &mut Differences, before: &[Recipient], after: &[Recipient]) {
    for recipient in after {
        let about = format!("recipient {}", recipient.name);
        match before.iter().find(|other| other.name == recipient.name) {
            Some(before) => one(differences, &about, before, recipient),
            None => {
                let fields: Vec<_> = recipient.fields.keys().map(|field| field.name()).collect();
                let purpose = &recipient.purpose;
                differences.add(
                    Effect::Wider,
                    about,
                    format!("is new, to `{purpose}`: {}", fields.join(", ")),
                );
            }
        }
    }
    for recipient in before {
        if !after.iter().any(|other| other.name == recipient.name) {
            differences.add(
                Effect::Narrower,
                format!("recipient {}", recipient.name),
                "receives nothing any more",
            );
        }
    }
}

/// Finds what changes of whose records can be joined, and which promises of that come or go.
pub fn pairs(differences: &mut Differences, before: &Policy, after: &Policy) {
    let former = before.pairs();
    for pair in after.pairs() {
        let is_same = |other: &&Pair| other.recipients.iter().all(|name| pair.recipients.contains(name));
        let Some(other) = former.iter().find(is_same).filter(|other| other.verdict != pair.verdict) else {
            continue;
        };
        let way = if pair.verdict < other.verdict { Effect::Wider } else { Effect::Narrower };
        let about = format!("records of {}", pair.recipients.join(" and "));
        differences.add(way, about, format!("{} -> {}", other.verdict, pair.verdict));
    }
    let has = |policy: &Policy, [one, other]: &[String; 2]| {
        policy.unlinkable.iter().any(|pair| pair.contains(one) && pair.contains(other))
    };
    for (way, from, to, change) in [
        (Effect::Wider, before, after, "it is no longer refused that their records can be joined"),
        (Effect::Narrower, after, before, "it is refused that their records can be joined"),
    ] {
        for pair in from.unlinkable.iter().filter(|pair| !has(to, pair)) {
            differences.add(way, format!("unlinkable, {}", pair.join(" and ")), change);
        }
    }
}

fn one(differences: &mut Differences, about: &str, before: &Recipient, after: &Recipient) {
    differences.approved(format!("{about}, purpose"), &before.purpose, &after.purpose);
    // No limit is longer than every limit.
    let unlimited = |retention: Option<Duration>| retention.unwrap_or(Duration::MAX);
    differences.grown(
        format!("{about}, retention"),
        &unlimited(before.retention),
        &unlimited(after.retention),
        |time| if *time == Duration::MAX { "no limit".to_owned() } else { words::duration(*time) },
    );
    let threshold = |threshold: Option<u32>| Reverse(threshold.unwrap_or(0));
    differences.grown(
        format!("{about}, k_threshold"),
        &threshold(before.k_threshold),
        &threshold(after.k_threshold),
        |threshold| if threshold.0 == 0 { "none".to_owned() } else { threshold.0.to_string() },
    );
    let counted = |sources: Sources| if sources == Sources::All { "all sources" } else { "domestic sources" };
    if after.k_threshold.is_some() && before.counted != after.counted {
        let way = Effect::between(after.counted == Sources::All, before.counted == Sources::All);
        let change = format!("{} -> {}", counted(before.counted), counted(after.counted));
        differences.add(way, format!("{about}, k_counts"), change);
    }
    mitigations(differences, about, before.mitigations, after.mitigations);
    destinations(differences, about, before.destinations.as_deref(), after.destinations.as_deref());
    for field in Field::ALL {
        let (before, after) = (before.fields.get(field).copied(), after.fields.get(field).copied());
        if before == after {
            continue;
        }
        let way = Effect::between(is_derivable(after, before), is_derivable(before, after));
        let say =
            |transform: Option<Transform>| transform.map_or_else(|| "nothing".to_owned(), words::remains);
        differences.add(way, format!("{about}, {field}"), format!("{} -> {}", say(before), say(after)));
    }
}

/// Less that is held back is wider.
fn mitigations(differences: &mut Differences, about: &str, before: Mitigations, after: Mitigations) {
    // 0 and 1 hold nothing back.
    let least = |mitigations: Mitigations| mitigations.min_packets.max(1);
    for (key, was, is) in
        [("min_packets", least(before) - 1, least(after) - 1), ("k_noise", before.k_noise, after.k_noise)]
    {
        let more = u32::from(key == "min_packets");
        let say = |number: &Reverse<u32>| {
            if number.0 == 0 { "none".to_owned() } else { (number.0 + more).to_string() }
        };
        differences.grown(format!("{about}, {key}"), &Reverse(was), &Reverse(is), say);
    }
    let (was, is) = (Reverse(before.established_only), Reverse(after.established_only));
    let say =
        |only: &Reverse<bool>| if only.0 { "flows with both directions" } else { "all flows" }.to_owned();
    differences.grown(format!("{about}, established_only"), &was, &is, say);
}

fn destinations(
    differences: &mut Differences,
    about: &str,
    before: Option<&[Destination]>,
    after: Option<&[Destination]>,
) {
    let about = format!("{about}, destinations");
    match (before, after) {
        (None, None) => {}
        (None, Some(_)) => {
            differences.add(Effect::Narrower, about, "records go only where the policy says, not anywhere");
        }
        (Some(_), None) => {
            differences.add(Effect::Wider, about, "records may go anywhere, not only where the policy says");
        }
        (Some(before), Some(after)) => {
            let only = |these: &[Destination], others: &[Destination]| -> Vec<String> {
                these.iter().filter(|one| !others.contains(one)).map(ToString::to_string).collect()
            };
            differences.examples(Effect::Wider, &about, "added", only(after, before));
            differences.examples(Effect::Narrower, &about, "removed", only(before, after));
        }
    }
}
