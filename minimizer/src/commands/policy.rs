//! `policy`: check, explain, compare and describe policies, without touching the kernel; only `risk` runs the program.

mod risk;
mod signing;

use std::io::{self, Write};

use jiff::Timestamp;
use schemars::schema_for;
use serde::Serialize;
use thiserror::Error;
use tracing::warn;

use crate::commands::cli::{DEFAULT_INTERVAL, Format, PolicyVerb, SchemaOf};
use crate::commands::config::ConfigFile;
use crate::policy::builtin::PolicyError;
use crate::policy::compile::CompiledPolicy;
use crate::policy::compile::memory::PolicyMemory;
use crate::policy::diff::Effect;
use crate::policy::file::PolicyFile;
use crate::policy::interval::UnfitInterval;
use crate::policy::model::Policy;
use crate::policy::tables::TableError;
use crate::policy::words;
use crate::support::privilege::{self, PrivilegeError, Task};
use risk::RiskError;
use signing::SigningError;

/// Why `policy` failed.
#[derive(Debug, Error)]
pub enum PolicyVerbError {
    /// A policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The policy's prefixes and indicators do not fit into the kernel's tables.
    #[error("the policy is refused: {0}")]
    Tables(#[from] TableError),
    /// The policy allows no such time between drains.
    #[error(transparent)]
    Interval(#[from] UnfitInterval),
    /// Signing or verifying failed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// This process may not run the program.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// A capture says nothing of the policy.
    #[error(transparent)]
    Risk(#[from] RiskError),
    /// The output cannot be written.
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
}

impl PolicyVerbError {
    /// Whether a policy, a key or a signature is at fault, rather than the output.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        !matches!(
            self,
            Self::Output(_)
                | Self::Privilege(_)
                | Self::Risk(RiskError::Replay(_))
                | Self::Signing(SigningError::Output(_))
        )
    }
}

/// Runs the verb and writes its answer to `out`.
///
/// # Errors
/// See [`PolicyVerbError`].
pub fn policy(verb: &PolicyVerb, out: &mut impl Write) -> Result<(), PolicyVerbError> {
    match verb {
        PolicyVerb::Check { policy } => {
            let compiled = CompiledPolicy::compile(Policy::load(policy, &[])?)?;
            check(&compiled, out)?;
        }
        PolicyVerb::Explain { policy, tunnels, output } => {
            let explanation = Policy::load(policy, tunnels)?.explain();
            match output {
                Format::Text => write!(out, "{explanation}")?,
                Format::Json => json(out, &explanation)?,
            }
        }
        PolicyVerb::Risk { policy, capture, interval, output } => {
            let policy = Policy::load(policy, &[])?;
            let interval = policy.interval(*interval, DEFAULT_INTERVAL)?;
            privilege::check(Task::Replay)?;
            let risk = risk::risk(&policy, capture, interval)?;
            match output {
                Format::Text => write!(out, "{risk}")?,
                Format::Json => json(out, &risk)?,
            }
        }
        PolicyVerb::Schema { of: SchemaOf::Policy } => json(out, &schema_for!(PolicyFile))?,
        PolicyVerb::Schema { of: SchemaOf::Agent } => json(out, &schema_for!(ConfigFile))?,
        PolicyVerb::Keygen { name, out: file } => signing::keygen(name, file.as_deref(), out)?,
        PolicyVerb::Pin { policy } => signing::pin(policy, out)?,
        PolicyVerb::Sign { policy, key } => signing::sign(policy, key, out)?,
        PolicyVerb::Verify { policy, key } => signing::verify(policy, key, out)?,
        PolicyVerb::Diff { before, after, output } => {
            let (earlier, beyond) = Policy::load_earlier(before)?;
            if let Some(beyond) = beyond {
                warn!("{before} would be refused now, and is only compared: {beyond}");
            }
            let differences = earlier.diff(&Policy::load(after, &[])?);
            match output {
                Format::Json => json(out, &differences)?,
                Format::Text if differences.is_empty() => {
                    writeln!(out, "no difference in what they mean")?;
                }
                Format::Text => {
                    for difference in &differences {
                        writeln!(out, "{difference}")?;
                    }
                    let wider =
                        differences.iter().filter(|difference| difference.way == Effect::Wider).count();
                    let all = words::count(differences.len(), "difference", "differences");
                    writeln!(out, "{all}, {wider} of them wider")?;
                }
            }
        }
    }
    Ok(())
}

const MIB: f64 = (1 << 20) as f64;

fn check(compiled: &CompiledPolicy, out: &mut impl Write) -> io::Result<()> {
    let policy = &compiled.policy;
    writeln!(out, "ok: {}, SHA-256 {}", policy.name, policy.digest)?;
    let prefixes = policy.scope.as_ref().map_or(0, |scope| scope.prefixes.len());
    let indicators = policy.selectors.as_ref().map_or(0, Vec::len);
    writeln!(
        out,
        "{}, {} collected, {}, {}",
        words::count(policy.recipients.len(), "recipient", "recipients"),
        words::count(compiled.collected.fields.len(), "field", "fields"),
        words::count(prefixes, "prefix", "prefixes"),
        words::count(indicators, "line of indicators", "lines of indicators"),
    )?;
    for caution in policy.cautions(Timestamp::now()) {
        writeln!(out, "CAUTION: {caution}")?;
    }
    policy.pairs().iter().try_for_each(|pair| writeln!(out, "{pair}"))?;
    let PolicyMemory { kernel, agent, loading } = compiled.memory;
    if prefixes + indicators > 0 || policy.has_pseudonyms_of(false) || policy.has_pseudonyms_of(true) {
        let [kernel, agent, loading] = [kernel, agent, loading].map(|octets| octets as f64 / MIB);
        writeln!(
            out,
            "memory: {kernel:.1} MiB in the kernel and {agent:.1} MiB in the agent; {loading:.1} MiB in the agent while it \
             is read, and twice the kernel's during a reload"
        )?;
    }
    policy.inputs.iter().try_for_each(|(name, digest)| writeln!(out, "{name}: SHA-256 {digest}"))
}

fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}
