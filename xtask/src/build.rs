//! `cargo xtask build`: the agent, with the kernel program in it, in release mode.

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::{command, workspace};

/// Installs what is missing and builds.
pub fn run() -> Result<()> {
    setup::ensure(Purpose::Build)?;
    release()?;
    eprintln!("built {}", workspace::agent().display());
    Ok(())
}

/// Builds the agent.
pub fn release() -> Result<()> {
    command::run(&mut workspace::cargo(["build", "--release", "--package", "minimizer"]))
}
