//! From the model of a policy file to a policy. It refuses whatever the agent could not keep, with the reason
//! and the fix.

mod inputs;
mod recipient;
mod scope;
mod transform;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use minimizer_common::tunnel::{Tunnel, Tunnels};
use toml::value::Datetime;

use super::file::{MandateFile, PolicyFile, PseudonymsFile, SelectorsFile};
use super::indicators;
use super::joins::Verdict;
use crate::policy::indicators::Indicator;
use crate::policy::mandate::Mandate;
use crate::policy::model::Policy;
use crate::support::toml::{At, Document, Finding, Findings};
use crate::support::units;
use inputs::Inputs;
pub(super) use inputs::sha256;

/// Digests of the files that a policy names, by the name in the policy.
type Digests = BTreeMap<String, String>;

/// How long a key of pseudonyms lasts if the policy does not say.
const EPOCH_DEFAULT: Duration = Duration::from_hours(24);
const EPOCH_MIN: Duration = Duration::from_mins(1);
const EPOCH_MAX: Duration = Duration::from_hours(366 * 24);
/// Longest name.
const NAME_CHARACTERS_MAX: usize = 64;

/// Checks the text of a policy whose files are relative to `folder`.
///
/// # Errors
/// Everything that is wrong with it; only the first fault if it does not fit the model.
pub fn check(text: &str, name: String, folder: &Path) -> Result<Policy, Findings> {
    let mut document = Document::new(name, text);
    let file: PolicyFile = document.read()?;
    let mut inputs = Inputs::new(folder);
    check_name(&mut document, &file.name, "policy");
    let mandate = file.mandate.as_ref().and_then(|mandate| check_mandate(&mut document, mandate));
    let scope = file.scope.as_ref().map(|at| scope::check(&mut document, &mut inputs, at));
    let selectors = file.selectors.as_ref().map(|at| check_selectors(&mut document, &mut inputs, at));
    let tunnels = check_tunnels(&mut document, &file.tunnels);
    let pseudonym_epoch = check_epoch(&mut document, file.pseudonyms.as_ref());
    let context = recipient::Context { has_scope: scope.is_some(), has_selectors: selectors.is_some() };
    let recipients = recipient::check(&mut document, &file.recipients, context);
    let mut policy = Policy {
        name: file.name.get().clone(),
        description: file.description,
        mandate,
        scope,
        selectors,
        tunnels,
        pseudonym_epoch,
        recipients,
        unlinkable: Vec::new(),
        digest: sha256(text.as_bytes()),
        inputs: inputs.digests(),
    };
    policy.unlinkable = check_unlinkable(&mut document, &policy, &file.unlinkable);
    document.finish()?;
    Ok(policy)
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

fn check_mandate(document: &mut Document<'_>, at: &At<MandateFile>) -> Option<Mandate> {
    let mandate = at.get();
    let id = check_said(document, &mandate.id, "id");
    let purpose = check_said(document, &mandate.purpose, "purpose");
    let legal_basis = check_said(document, &mandate.legal_basis, "legal_basis");
    let valid_from = match &mandate.valid_from {
        Some(moment) => check_moment(document, moment),
        None => {
            document.refuse(at, "the mandate does not say from when it is valid: add `valid_from`");
            None
        }
    };
    let valid_until = match &mandate.valid_until {
        Some(moment) => check_moment(document, moment),
        None => {
            document.refuse(
                at,
                "the mandate has no end, and one without would never be looked at again: add `valid_until`",
            );
            None
        }
    };
    let (valid_from, valid_until) = (valid_from?, valid_until?);
    if valid_until <= valid_from {
        let end = mandate.valid_until.as_ref()?;
        document.refuse(
            end,
            format!("the mandate ends before it begins ({valid_from}): `valid_until` must be later"),
        );
        return None;
    }
    Some(Mandate { id, purpose, legal_basis, valid_from, valid_until })
}

fn check_moment(document: &mut Document<'_>, at: &At<Datetime>) -> Option<Timestamp> {
    let text = at.get().to_string();
    if at.get().offset.is_none() || at.get().date.is_none() {
        document.refuse(
            at,
            format!(
                "`{text}` is a different moment in each time zone: write a date, a time and the offset from UTC, like \
                 2026-04-01T00:00:00+09:00"
            ),
        );
        return None;
    }
    let moment = text.parse();
    if moment.is_err() {
        let is_last = at.get().date.is_some_and(|date| date.year == 9999);
        let fault = if is_last {
            format!(
                "is later than {}, the last moment that the agent can compare with its clock: a mandate ends, and is \
                 looked at again then, so write the day of its end",
                Timestamp::MAX
            )
        } else {
            "is no moment that the agent can compare with its clock: write one like 2026-04-01T00:00:00+09:00"
                .to_owned()
        };
        document.refuse(at, format!("`{text}` {fault}"));
    }
    moment.ok()
}

fn check_selectors(
    document: &mut Document<'_>,
    inputs: &mut Inputs<'_>,
    at: &At<SelectorsFile>,
) -> Vec<Indicator> {
    let selectors = at.get();
    let mut indicators = Vec::new();
    if selectors.files.is_empty() && selectors.indicators.is_empty() {
        document.refuse(
            at,
            "the selectors name no indicator, so that nothing would be collected: add `files` or `indicators`, or \
             remove the section to collect every packet in scope",
        );
    }
    for file in &selectors.files {
        let Some(text) = inputs.read(document, file) else { continue };
        for (line, indicator) in indicators::lines(&text) {
            match indicator {
                Ok(indicator) => indicators.push(indicator),
                Err(error) => document.also(Finding {
                    file: inputs.place(file.get()),
                    line,
                    column: 0,
                    message: error.to_string(),
                }),
            }
        }
    }
    for text in &selectors.indicators {
        match Indicator::parse(text.get()) {
            Ok(indicator) => indicators.push(indicator),
            Err(error) => document.refuse(text, error.to_string()),
        }
    }
    indicators
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
