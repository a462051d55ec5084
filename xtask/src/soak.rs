//! `cargo xtask soak`: the agent under everything that goes wrong around it, at random, for as long as is asked.

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::{command, test, workspace};

/// Command line of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// How long it runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    seconds: u32,
    /// What happens follows from it, but not when.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Runs the verb. It is the test of the same name, which is short in `cargo xtask test`.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    let mut soak = workspace::cargo(["test", "--workspace", "--test", "soak", "--"]);
    soak.args(["--include-ignored", "--nocapture"]);
    soak.env("MINIMIZER_SOAK_SECONDS", arguments.seconds.to_string());
    soak.env("MINIMIZER_SOAK_SEED", arguments.seed.to_string());
    soak.env("PATH", workspace::search_path_value()?);
    test::run_as_root(&mut soak)?;
    command::run(&mut soak)
}
