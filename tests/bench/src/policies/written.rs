//! A policy of the bench as a file, which another build reads, too.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use minimizer::policy::class::Class;
use minimizer::policy::indicators::protocol_name;
use minimizer::policy::model::Policy;
use minimizer::policy::transform::{AddressTransform, Transform};

/// Writes a policy into a folder, and returns its path. The file says the same as the policy.
///
/// # Errors
/// When it cannot be written, or says something else.
pub fn write(policy: &Policy, folder: &Path) -> anyhow::Result<String> {
    let mut text = format!("name = \"{}\"\n", policy.name);
    if let Some(scope) = &policy.scope {
        let of = |class| scope.prefixes.iter().filter(move |(_, other)| *other == class);
        let prefixes: String = of(Class::Domestic).map(|(prefix, _)| format!("{prefix}\n")).collect();
        fs::write(folder.join("prefixes"), prefixes)?;
        let foreign = of(Class::Foreign).map(|(prefix, _)| format!("\"{prefix}\""));
        let directions = scope.directions.iter().map(|(from, to)| format!("\"{from}-{to}\""));
        writeln!(text, "[scope]\ndomestic_files = [\"prefixes\"]")?;
        writeln!(text, "foreign = [{}]", foreign.collect::<Vec<_>>().join(", "))?;
        writeln!(text, "directions = [{}]", directions.collect::<Vec<_>>().join(", "))?;
        writeln!(text, "domestic_domestic = \"communications between domestic parties are collected\"")?;
    }
    if let Some(selectors) = &policy.selectors {
        let mut lines = String::new();
        for indicator in selectors {
            let prefix = indicator.prefix.context("the bench's indicators are of hosts")?;
            let protocol = indicator.protocol.map(protocol_name).unwrap_or_default();
            writeln!(lines, "{} - {prefix} {protocol}", indicator.id)?;
        }
        fs::write(folder.join("indicators"), lines)?;
        writeln!(text, "[selectors]\nfiles = [\"indicators\"]")?;
    }
    for recipient in &policy.recipients {
        let (name, purpose) = (&recipient.name, &recipient.purpose);
        writeln!(text, "[[recipients]]\nname = \"{name}\"\npurpose = \"{purpose}\"\n[recipients.fields]")?;
        for (field, transform) in &recipient.fields {
            let transform = match transform {
                Transform::Exact => "\"exact\"".to_owned(),
                Transform::Coarsened { unit } => format!("{{ coarsen = \"{}ms\" }}", unit.as_millis()),
                Transform::Address {
                    foreign: AddressTransform::Exact,
                    domestic: AddressTransform::Pseudonym,
                } => "{ foreign = \"exact\", domestic = \"pseudonym\" }".to_owned(),
                Transform::Address {
                    foreign: AddressTransform::Pseudonym,
                    domestic: AddressTransform::Pseudonym,
                } => "\"pseudonym\"".to_owned(),
                Transform::Address {
                    foreign: AddressTransform::Truncated { bits },
                    domestic: AddressTransform::Truncated { bits: other },
                } if bits == other => format!("{{ truncate = {bits} }}"),
                other => bail!("the bench does not write {other:?}"),
            };
            writeln!(text, "{} = {transform}", field.name())?;
        }
    }
    let path = folder.join("policy.toml").to_str().context("a path is text")?.to_owned();
    fs::write(&path, text)?;
    // It selects domestic parties, for which this build wants a reason that an earlier one does not know.
    let (read, _) = Policy::load_earlier(&path)?;
    let of = |policy: &Policy| {
        let fields = policy.recipients.iter().map(|recipient| recipient.fields.clone()).collect::<Vec<_>>();
        let mut scope = policy.scope.clone();
        if let Some(scope) = &mut scope {
            scope.prefixes.sort_unstable();
            scope.directions.sort_unstable();
        }
        (scope, policy.selectors.clone(), policy.pseudonym_epoch, fields)
    };
    ensure!(of(&read) == of(policy), "{path} says something else than the policy");
    Ok(path)
}
