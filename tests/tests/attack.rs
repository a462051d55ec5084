//! The adversaries against a few policies; `cargo xtask attack` plays them against as many as are asked for.

use std::env;

use anyhow::{Result, ensure};
use tests::attack::attack;

fn number(variable: &str, otherwise: u64) -> Result<u64> {
    Ok(env::var(variable).ok().map_or(Ok(otherwise), |number| number.parse())?)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn no_adversary_reaches_more_than_the_policy_says() -> Result<()> {
    let policies = number("MINIMIZER_ATTACK_POLICIES", 10)?;
    let report = attack(number("MINIMIZER_ATTACK_SEED", 1)?, policies)?;
    println!("{report}");
    // An adversary that reaches nothing anywhere would not notice what it could reach.
    for (attack, class) in [
        ("by fields, counts and times", "told as joinable"),
        ("by what a party does in an epoch", "told as joinable by counts"),
        ("by one contact that it knows", "pseudonyms"),
        ("number in the destination port", "told"),
        ("number in intervals, by presence", "pseudonyms"),
        ("number in intervals, by presence", "min_packets, as many"),
        ("number in intervals, by presence", "established_only, answered"),
        ("epochs by the same name", "addresses as they are"),
        ("collected, in scope", "tunnel between endpoints"),
        ("collected, in scope", "NAT64 of a host abroad"),
    ] {
        let rates = report.rates(attack, class);
        // Few policies that somebody chooses may have nothing of the kind.
        ensure!(rates.is_some() || policies < 10, "nobody attacked {attack} ({class})");
        let Some((rate, chance)) = rates else { continue };
        ensure!(rate > 10.0 * chance, "{attack} ({class}): {rate}, where chance is {chance}");
    }
    // A question is answered by yes or no.
    for attack in ["was there somebody else?", "was there somebody else? By a count"] {
        let rates = report.rates(attack, "all sources count");
        ensure!(rates.is_some() || policies < 10, "nobody asked: {attack}");
        ensure!(rates.is_none_or(|(rate, _)| rate > 0.7), "{attack} is answered: {rates:?}");
    }
    ensure!(report.failures().is_empty(), "{}", report.failures().join("\n"));
    Ok(())
}
