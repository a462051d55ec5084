//! `cargo xtask demo`: builds the agent and replaces this process by its demo.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::setup::{self, Purpose};
use crate::workspace::{self, Profile};
use crate::{build, command};

/// Builds the agent and replaces this process by `minimizer demo`. Uses sudo unless root runs it.
pub fn run(arguments: &[OsString]) -> Result<()> {
    setup::ensure(Purpose::Demo)?;
    build::release()?;
    let agent = workspace::program("minimizer", Profile::Release);
    let agent = agent.to_str().context("the path of the repository is not UTF-8")?;
    let mut demo = command::as_root(agent)
        .context("the demo loads a kernel program: run it as root, or install sudo")?;
    demo.arg("demo").args(arguments);
    command::announce(&demo);
    Err(demo.exec()).with_context(|| format!("cannot start {agent}"))
}
