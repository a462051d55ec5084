//! Every developer verb as one command: `cargo xtask VERB`.

#![forbid(unsafe_code)]

mod attack;
mod bench;
mod build;
mod command;
mod demo;
mod fuzz;
mod kernels;
mod report;
mod setup;
mod soak;
mod test;
mod verify_object;
mod workspace;

// The recipe belongs to the agent's build script, which cannot depend on a crate that needs the agent.
#[path = "../../minimizer/build/kernel_program.rs"]
mod kernel_program;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Every task of a developer or a CI machine in this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Installs what the other verbs need. Each of them calls it by itself.
    Setup(setup::Arguments),
    /// Builds the agent, with the kernel program inside, in release mode.
    Build,
    /// Builds the agent and runs `minimizer demo` with the given arguments.
    Demo {
        /// Arguments of `minimizer demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs every check and every test.
    Test(test::Arguments),
    /// Checks what the kernel program in the agent can do, and that it comes from this source.
    VerifyObject(verify_object::Arguments),
    /// Runs the fuzzers of the parser, with sanitizers.
    Fuzz(fuzz::Arguments),
    /// Runs the agent under random faults around it, and checks its ledgers.
    Soak(soak::Arguments),
    /// Plays adversaries against random policies, and compares what they reach with what the policies say.
    Attack(attack::Arguments),
    /// Builds the benches in release mode and runs them with the given arguments.
    Bench {
        /// Arguments of the bench.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments)?,
        Verb::Build => build::run()?,
        Verb::Demo { arguments } => demo::run(&arguments)?,
        Verb::Test(arguments) => return test::run(&arguments),
        Verb::VerifyObject(arguments) => return verify_object::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments)?,
        Verb::Soak(arguments) => soak::run(&arguments)?,
        Verb::Attack(arguments) => attack::run(&arguments)?,
        Verb::Bench { arguments } => bench::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
