//! `cargo xtask bench`: what the program costs, measured on this machine.

use std::ffi::OsString;

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::{command, test, workspace};

/// Builds and runs the bench.
pub fn run(arguments: &[OsString]) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let mut bench = workspace::cargo(["run", "--release", "--package", "tests", "--bin", "bench", "--"]);
    bench.args(arguments);
    test::run_as_root(&mut bench)?;
    command::run(&mut bench)
}
