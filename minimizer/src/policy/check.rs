//! From the model of a policy file to a policy. It refuses whatever the agent could not keep, with the reason
//! and the fix.

mod acknowledged;
mod inputs;
mod mandate;
mod mitigations;
mod recipient;
mod scope;
mod selectors;
mod threshold;
mod transform;
mod translations;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use minimizer_common::tunnel::{Tunnel, Tunnels};

use super::file::{IntervalBounds, IntervalFile, PolicyFile, PseudonymsFile};
use super::joins::Verdict;
use crate::policy::model::{Commitments, Policy, Scope};
use crate::support::digest::sha256;
use crate::support::toml::{At, Document, Findings};
use crate::support::units;
use acknowledged::{Acknowledged, EVERY_COMMUNICATION};
use inputs::Inputs;

/// Digests of the files that a policy names, by the name in the policy.
type Digests = BTreeMap<String, String>;

/// How long a key of pseudonyms lasts if the policy does not say.
const EPOCH_DEFAULT: Duration = Duration::from_hours(24);
const EPOCH_MIN: Duration = Duration::from_mins(1);
const EPOCH_MAX: Duration = Duration::from_hours(366 * 24);
/// The shortest and the longest time between drains that the agent can keep.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Longest name.
const NAME_CHARACTERS_MAX: usize = 64;

/// Checks the text of a policy whose files are relative to `folder`.
///
/// # Errors
/// Everything that is wrong with it; only the first fault if it does not fit the model.
pub fn check(text: &str, name: String, folder: &Path) -> Result<Policy, Findings> {
    let (policy, beyond) = check_beyond(text, name, folder)?;
    if beyond.0.is_empty() { Ok(policy) } else { Err(beyond) }
}

/// Checks the text of a policy as [`check`] does, and returns a policy also where it permits more than is allowed, with what
/// this is. Nobody may put such a policy in force.
///
/// # Errors
/// Everything that is wrong with it otherwise.
pub fn check_beyond(text: &str, name: String, folder: &Path) -> Result<(Policy, Findings), Findings> {
    let mut document = Document::new(name, text);
    let file: PolicyFile = document.read()?;
    let mut inputs = Inputs::new(folder);
    let mut acknowledged = Acknowledged::new(&file.acknowledged);
    let mut commitments = Commitments::default();
    check_name(&mut document, &file.name, "policy");
    check_serials(&mut document, &file, &mut commitments);
    commitments.interval = file.interval.as_ref().and_then(|at| check_interval(&mut document, at));
    let mandate =
        file.mandate.as_ref().and_then(|mandate| mandate::check(&mut document, mandate, &mut commitments));
    let (scope, translations) =
        file.scope.as_ref().map(|at| scope::check(&mut document, &mut inputs, &mut acknowledged, at)).unzip();
    let translations: Vec<_> = translations.unwrap_or_default();
    if let (Some(mandate), None) = (&file.mandate, &scope) {
        acknowledged.demand(
            &mut document,
            mandate.span().start,
            EVERY_COMMUNICATION,
            "the policy has a mandate and no [scope], so that communications between domestic parties are collected: \
             add a scope",
        );
    }
    let selectors = file.selectors.as_ref().map(|at| {
        commitments.domestic_target = at
            .get()
            .domestic_target
            .as_ref()
            .map(|reason| check_said(&mut document, reason, "domestic_target"));
        selectors::check(&mut document, &mut inputs, &mut acknowledged, at, scope.as_ref(), &translations)
    });
    let tunnels = check_tunnels(&mut document, &file.tunnels);
    let tunnel_endpoints =
        file.scope.as_ref().map(|at| scope::tunnel_endpoints(&mut document, at)).unwrap_or_default();
    let pseudonym_epoch = check_epoch(&mut document, file.pseudonyms.as_ref());
    let context = recipient::Context {
        has_scope: scope.is_some(),
        has_selectors: selectors.is_some(),
        is_one_way: scope.as_ref().is_some_and(Scope::is_one_way),
        interval: commitments.interval,
        max_retention: commitments.max_retention,
    };
    let recipients = recipient::check(&mut document, &file.recipients, context, &mut acknowledged);
    commitments.acknowledged = acknowledged.finish(&mut document);
    let (inputs, unpinned) = inputs.finish();
    commitments.unpinned = unpinned;
    let mut policy = Policy {
        name: file.name.get().clone(),
        description: file.description,
        mandate,
        scope,
        selectors,
        tunnels,
        tunnel_endpoints,
        translations,
        pseudonym_epoch,
        recipients,
        unlinkable: Vec::new(),
        digest: sha256(text.as_bytes()),
        inputs,
        commitments,
    };
    policy.unlinkable = check_unlinkable(&mut document, &policy, &file.unlinkable);
    let beyond = Findings(document.finish_beyond()?);
    Ok((policy, beyond))
}

/// Reads the serial numbers. A policy that allows a lower number has a number itself.
fn check_serials(document: &mut Document<'_>, file: &PolicyFile, commitments: &mut Commitments) {
    for serial in [&file.serial, &file.allow_serial].into_iter().flatten() {
        if *serial.get() == 0 {
            document.refuse(serial, "serial numbers begin with 1: write 1 or more");
        }
    }
    commitments.serial = file.serial.as_ref().map(|serial| *serial.get());
    commitments.allow_serial = file.allow_serial.as_ref().map(|serial| *serial.get());
    if let Some(allowed) = &file.allow_serial
        && commitments.serial.is_none_or(|serial| *allowed.get() >= serial)
    {
        document.refuse(
            allowed,
            "this is not lower than the policy's own `serial`, and higher ones are allowed anyway: write a lower one, or \
             remove it",
        );
    }
}

/// The shortest and the longest time between drains.
fn check_interval(document: &mut Document<'_>, at: &At<IntervalFile>) -> Option<(Duration, Duration)> {
    let allowed = "allowed are \"100ms\" to \"60s\", like \"10s\"";
    let mut time = |text: &str| match units::time(text) {
        Ok(interval) if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) => Some(interval),
        Ok(_) => {
            document.refuse(at, format!("`{text}` is no time between drains: {allowed}"));
            None
        }
        Err(error) => {
            document.refuse(at, format!("{error}; as a time between drains, {allowed}"));
            None
        }
    };
    let (min, max) = match at.get() {
        IntervalFile::Fixed(text) => {
            let interval = time(text)?;
            (interval, interval)
        }
        IntervalFile::Bounds(IntervalBounds { min, max }) => {
            let (min, max) = (time(min), time(max));
            (min?, max?)
        }
    };
    if min > max {
        document.refuse(at, "`min` is above `max`, so that no time is allowed: exchange them");
        return None;
    }
    Some((min, max))
}

/// Pairs of recipients whose records nobody can join.
fn check_unlinkable(
    document: &mut Document<'_>,
    policy: &Policy,
    pairs: &[At<Vec<String>>],
) -> Vec<[String; 2]> {
    let mut checked = Vec::new();
    for at in pairs {
        let Ok([one, other]) = <&[String; 2]>::try_from(at.get().as_slice()) else {
            document.refuse(at, "it takes two recipients to join records: write pairs, like [\"a\", \"b\"]");
            continue;
        };
        let of = |name: &str| policy.recipients.iter().find(|recipient| recipient.name == name);
        match (of(one), of(other)) {
            _ if one == other => {
                document.refuse(at, format!("`{one}` has its own records: write two recipients"))
            }
            (Some(first), Some(second)) => {
                let pair = policy.pair(first, second);
                if pair.verdict != Verdict::NotJoinable {
                    document.refuse(at, format!("{pair}"));
                }
                checked.push([one.clone(), other.clone()]);
            }
            (first, _) => {
                let missing = if first.is_none() { one } else { other };
                document.refuse(at, format!("`{missing}` is no recipient of this policy"));
            }
        }
    }
    checked
}

/// Names become parts of file names, of metrics and of key domains.
fn check_name(document: &mut Document<'_>, name: &At<String>, of: &str) {
    let text = name.get();
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric())
        || !text.chars().all(is_allowed)
        || text.len() > NAME_CHARACTERS_MAX
    {
        document.refuse(
            name,
            format!(
                "`{text}` is no name of a {of}: allowed are up to {NAME_CHARACTERS_MAX} letters, digits, `.`, `_` and \
                 `-`, with a letter or digit first"
            ),
        );
    }
}

/// A text that must not be empty.
fn check_said(document: &mut Document<'_>, text: &At<String>, key: &str) -> String {
    if text.get().trim().is_empty() {
        document.refuse(text, format!("`{key}` says nothing: write it in a few words"));
    }
    text.get().trim().to_owned()
}

fn check_tunnels(document: &mut Document<'_>, names: &[At<String>]) -> Tunnels {
    names.iter().fold(Tunnels::NONE, |tunnels, name| {
        match Tunnel::ALL.iter().find(|tunnel| tunnel.name() == name.get()) {
            Some(tunnel) => tunnels.with(*tunnel),
            None => {
                let known: Vec<_> = Tunnel::ALL.iter().map(|tunnel| tunnel.name()).collect();
                document
                    .refuse(name, format!("`{}` is no tunnel: allowed are {}", name.get(), known.join(", ")));
                tunnels
            }
        }
    })
}

fn check_epoch(document: &mut Document<'_>, pseudonyms: Option<&PseudonymsFile>) -> Duration {
    let Some(pseudonyms) = pseudonyms else { return EPOCH_DEFAULT };
    let text = pseudonyms.epoch.get();
    let allowed = "allowed are whole seconds from \"1m\" to \"366 days\", like \"24h\"";
    let message = match units::time(text) {
        Ok(epoch) if (EPOCH_MIN..=EPOCH_MAX).contains(&epoch) && epoch.subsec_nanos() == 0 => return epoch,
        Ok(_) => format!("`{text}` is no epoch: {allowed}"),
        Err(error) => format!("{error}; as an epoch, {allowed}"),
    };
    document.refuse(&pseudonyms.epoch, message);
    EPOCH_DEFAULT
}

#[cfg(test)]
mod tests;
