//! Differences in what policies commit themselves to: serial numbers, limits, words, and files with a pin.

use std::time::Duration;

use super::{Differences, Effect};
use crate::policy::model::{Commitments, Policy};
use crate::policy::words;

/// Finds what changes in the commitments.
pub fn diff(differences: &mut Differences, before: &Policy, after: &Policy) {
    let (was, is) = (&before.commitments, &after.commitments);
    serials(differences, was, is);
    for sentence in is.acknowledged.iter().filter(|sentence| !was.acknowledged.contains(sentence)) {
        differences.add(Effect::Wider, "acknowledged", format!("says now: {sentence}"));
    }
    for sentence in was.acknowledged.iter().filter(|sentence| !is.acknowledged.contains(sentence)) {
        differences.add(Effect::Narrower, "acknowledged", format!("no longer says: {sentence}"));
    }
    interval(differences, was.interval, is.interval);
    if before.mandate.is_some() && after.mandate.is_some() {
        for (about, was, is, unset) in [
            ("mandate, max_period", was.max_period, is.max_period, "a year"),
            ("mandate, max_retention", was.max_retention, is.max_retention, "no limit"),
        ] {
            let size = |limit: Option<Duration>| match limit {
                None if about.ends_with("period") => Duration::from_hours(366 * 24),
                limit => limit.unwrap_or(Duration::MAX),
            };
            let say = |limit: Option<Duration>| limit.map_or_else(|| unset.to_owned(), words::duration);
            if size(was) != size(is) {
                let way = Effect::between(size(was) < size(is), size(is) < size(was));
                differences.add(way, about, format!("{} -> {}", say(was), say(is)));
            }
        }
    }
    match (&was.domestic_target, &is.domestic_target) {
        (Some(_), None) => differences.add(Effect::Narrower, "domestic_target", "no reason any more"),
        (None, Some(reason)) => {
            differences.add(
                Effect::Wider,
                "domestic_target",
                format!("an indicator may be one domestic party: {reason}"),
            );
        }
        (was, is) => differences.approved(
            "domestic_target",
            was.as_deref().unwrap_or_default(),
            is.as_deref().unwrap_or_default(),
        ),
    }
    files(differences, before, after);
}

fn serials(differences: &mut Differences, was: &Commitments, is: &Commitments) {
    let say = |serial: Option<u64>| serial.map_or_else(|| "none".to_owned(), |serial| serial.to_string());
    if was.serial != is.serial {
        let way = if is.serial < was.serial { Effect::Wider } else { Effect::Changed };
        differences.add(way, "serial", format!("{} -> {}", say(was.serial), say(is.serial)));
    }
    // A lower number lets the agent go back further.
    let reach = |serial: Option<u64>| std::cmp::Reverse(serial.unwrap_or(u64::MAX));
    differences.grown("allow_serial", &reach(was.allow_serial), &reach(is.allow_serial), |serial| {
        say(Some(serial.0).filter(|serial| *serial != u64::MAX))
    });
}

/// More sources make a record in a longer interval, and times tell more in a shorter one.
fn interval(
    differences: &mut Differences,
    was: Option<(Duration, Duration)>,
    is: Option<(Duration, Duration)>,
) {
    let bounds = |interval: Option<(Duration, Duration)>| interval.unwrap_or((Duration::ZERO, Duration::MAX));
    if was == is {
        return;
    }
    let ((was_min, was_max), (is_min, is_max)) = (bounds(was), bounds(is));
    let was_less = is_min <= was_min && was_max <= is_max;
    let is_less = was_min <= is_min && is_max <= was_max;
    let say = |interval: Option<(Duration, Duration)>| {
        interval.map_or_else(|| "as agent.toml says".to_owned(), words::interval)
    };
    // One that is neither inside of the other lets through what the other does not.
    let way = if is_less && !was_less { Effect::Narrower } else { Effect::Wider };
    differences.add(way, "interval", format!("{} -> {}", say(was), say(is)));
}

/// A file that is no longer pinned, or that is new and has no pin, may say anything after the policy was approved.
fn files(differences: &mut Differences, before: &Policy, after: &Policy) {
    for (name, digest) in &after.inputs {
        let (was_pinned, is_pinned) =
            (!before.commitments.unpinned.contains(name), !after.commitments.unpinned.contains(name));
        let about = format!("file {name}");
        match before.inputs.get(name) {
            None if is_pinned => {
                differences.add(Effect::Changed, about, format!("is read, with the pin {digest}"))
            }
            None => differences.add(Effect::Wider, about, "is read, and has no pin: add its `sha256`"),
            Some(_) if was_pinned && !is_pinned => {
                differences.add(Effect::Wider, about, "its pin is removed: it may say anything later");
            }
            Some(_) if !was_pinned && is_pinned => {
                differences.add(Effect::Narrower, about, format!("is pinned to {digest}"));
            }
            Some(old) if old != digest => {
                let way = if is_pinned { Effect::Changed } else { Effect::Wider };
                let unpinned = if is_pinned { "" } else { ", and has no pin" };
                differences.add(way, about, format!("is another{unpinned}: {old} -> {digest}"));
            }
            Some(_) => {}
        }
    }
    for name in before.inputs.keys().filter(|name| !after.inputs.contains_key(*name)) {
        differences.add(Effect::Changed, format!("file {name}"), "is no longer read");
    }
}
