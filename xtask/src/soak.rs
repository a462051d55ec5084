//! `cargo xtask soak`: the agent under everything that goes wrong around it, at random, for as long as is asked.

use anyhow::Result;

use crate::test;

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
    let settings = [
        ("MINIMIZER_SOAK_SECONDS", arguments.seconds.to_string()),
        ("MINIMIZER_SOAK_SEED", arguments.seed.to_string()),
    ];
    test::run_long("soak", &settings)
}
