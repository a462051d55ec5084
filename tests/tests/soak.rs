//! The soak, for a minute; `cargo xtask soak` runs it for as long as is asked.

use std::env;
use std::time::Duration;

use anyhow::Result;
use tests::soak::soak;

fn number(variable: &str, otherwise: u64) -> Result<u64> {
    Ok(env::var(variable).ok().map_or(Ok(otherwise), |number| number.parse())?)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn ledgers_are_exact_or_say_that_they_are_not_whatever_happens_around_the_agent() -> Result<()> {
    let seconds = number("MINIMIZER_SOAK_SECONDS", 60)?;
    let report = soak(number("MINIMIZER_SOAK_SEED", 1)?, Duration::from_secs(seconds))?;
    println!("{report}");
    Ok(())
}
