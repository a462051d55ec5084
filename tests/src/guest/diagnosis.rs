//! `doctor` on this kernel: nothing keeps the agent from working, and what is missing is named.

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::doctor::{self, Verdict};
use minimizer::kernel::features::Kernel;

/// Name of the check that judges multi-buffer XDP.
const MULTI_BUFFER: &str = "multi-buffer xdp";

/// Prints the diagnosis and compares it with what was found out for the program.
///
/// # Errors
/// When the diagnosis says that the agent does not work, or not what the kernel lacks.
pub fn check(kernel: Kernel) -> Result<String> {
    let diagnosis = doctor::examine(&[])?;
    diagnosis.write_table(&mut std::io::stdout().lock())?;
    ensure!(!diagnosis.has_failed(), "the agent would not work here");
    let judged = diagnosis.checks.iter().find(|check| check.check == MULTI_BUFFER);
    let verdict = judged.context("multi-buffer XDP is not judged")?.verdict;
    let expected = if kernel.multi_buffer { Verdict::Pass } else { Verdict::Warn };
    ensure!(verdict == expected, "multi-buffer XDP: {}", verdict.name());
    let lacking = diagnosis.checks.iter().filter(|check| check.verdict != Verdict::Pass);
    let lacking: Vec<_> = lacking.map(|check| format!("{} ({})", check.check, check.evidence)).collect();
    Ok(format!("warns of {}", if lacking.is_empty() { "nothing".to_owned() } else { lacking.join("; ") }))
}
