//! `cargo xtask attack`: the adversaries of docs/THREATS.md against policies drawn at random.

use anyhow::Result;

use crate::test;

/// Command line of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many policies are attacked.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    policies: u32,
    /// The first policy follows from it, each other from the next number. Keys and orders are always fresh.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Runs the verb. It is the test of the same name, which attacks few policies in `cargo xtask test`.
pub fn run(arguments: &Arguments) -> Result<()> {
    let settings = [
        ("MINIMIZER_ATTACK_POLICIES", arguments.policies.to_string()),
        ("MINIMIZER_ATTACK_SEED", arguments.seed.to_string()),
    ];
    test::run_long("attack", &settings)
}
