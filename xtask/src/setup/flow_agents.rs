//! Flow agents of other projects, with which the bench compares on a veth pair, where the machine can get
//! them.

use anyhow::Result;

use super::apt;
use super::unpacked::{FLOW_AGENTS, Unpacked};
use crate::workspace;

/// Prints what is missing and installs it. The bench continues without what cannot be installed.
pub fn offer() {
    let missing: Vec<_> = FLOW_AGENTS.iter().filter(|agent| agent.is_missing()).collect();
    if missing.is_empty() && workspace::find_program("ethtool").is_some() {
        return;
    }
    eprintln!("setup: for `bench --live` this is missing and will be installed:");
    let mut absent: Vec<_> = missing.iter().flat_map(|agent| agent.absent_libraries()).collect();
    // The bench uses it to prepare a veth pair for them.
    absent.extend(workspace::find_program("ethtool").is_none().then_some("ethtool"));
    absent.sort_unstable();
    absent.dedup();
    if !absent.is_empty() {
        eprintln!("  Debian packages  {}", absent.join(" "));
    }
    for Unpacked { package, reason, .. } in &missing {
        eprintln!("  into target/     {package:<18} {reason}");
    }
    if let Err(error) = install(&absent, &missing) {
        eprintln!("setup: {error:#}");
        eprintln!("setup: not installed; the bench goes on without");
    }
}

fn install(absent: &[&str], missing: &[&Unpacked]) -> Result<()> {
    apt::refresh_lists(absent)?;
    // If apt is given a package that is present, it upgrades the package and everything that depends on it.
    if !absent.is_empty() {
        apt::install(absent)?;
    }
    missing.iter().try_for_each(|agent| agent.install())
}
