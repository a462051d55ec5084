//! `cargo xtask build`: builds the agent, with the kernel program inside, in release mode.

use anyhow::Result;

use crate::command;
use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};

/// Installs what is missing and builds the agent.
pub fn run() -> Result<()> {
    setup::ensure(Purpose::Build)?;
    release()?;
    eprintln!("built {}", workspace::program("minimizer", Profile::Release).display());
    Ok(())
}

/// Builds the agent.
pub fn release() -> Result<()> {
    command::run(&mut workspace::cargo(["build", "--release", "--package", "minimizer"]))
}

/// Builds every program of the workspace with the features that the tests use, so that cargo builds nothing
/// twice.
pub fn tested() -> Result<()> {
    command::run(&mut workspace::cargo(["build", "--workspace", "--bins", "--test", "cli"]))
}
