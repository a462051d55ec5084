//! Differences between recipients, and between the fields that each of them gets.

use std::time::Duration;

use super::{Differences, Effect};
use crate::policy::field::Field;
use crate::policy::join::is_derivable;
use crate::policy::model::Recipient;
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

fn one(differences: &mut Differences, about: &str, before: &Recipient, after: &Recipient) {
    differences.changed(format!("{about}, purpose"), &before.purpose, &after.purpose);
    // No limit is longer than every limit.
    let unlimited = |retention: Option<Duration>| retention.unwrap_or(Duration::MAX);
    differences.grown(
        format!("{about}, retention"),
        &unlimited(before.retention),
        &unlimited(after.retention),
        |time| if *time == Duration::MAX { "no limit".to_owned() } else { words::duration(*time) },
    );
    let threshold = |threshold: Option<u32>| std::cmp::Reverse(threshold.unwrap_or(0));
    differences.grown(
        format!("{about}, k_threshold"),
        &threshold(before.k_threshold),
        &threshold(after.k_threshold),
        |threshold| if threshold.0 == 0 { "none".to_owned() } else { threshold.0.to_string() },
    );
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
