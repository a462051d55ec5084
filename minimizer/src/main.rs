//! The `minimizer` command.

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use minimizer::cli::{self, Cli, Verb};
use minimizer::policy::{Policy, PolicyError};
use minimizer::report::{self, Output};
use minimizer::run::{RunError, write_ledger};
use minimizer::{demo, replay, run};

/// Bad configuration (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args).map_err(Into::into),
        Verb::Demo(args) => demo::demo(&args).map_err(Into::into),
        Verb::Replay(args) => replay(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("minimizer: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 1 at run time, 77 without privilege, 78 for bad configuration; clap exits with 2 by itself.
fn exit_code(error: &anyhow::Error) -> u8 {
    let is_policy = error.is::<PolicyError>() || matches!(error.downcast_ref(), Some(RunError::Policy(_)));
    if is_policy { EXIT_CONFIGURATION } else { 1 }
}

fn replay(args: &cli::Replay) -> anyhow::Result<()> {
    Policy::named(&args.policy.policy)?;
    let replayed = replay::replay(&args.capture)?;
    let mut out = BufWriter::new(io::stdout().lock());
    match args.output {
        Output::Json => report::json_lines(&mut out, &replayed.records)?,
        Output::Table => {
            report::table(&mut out, &replayed.records)?;
            writeln!(out)?;
            report::ledger(&mut out, &replayed.ledger)?;
        }
    }
    out.flush()?;
    if let Some(path) = &args.ledger {
        write_ledger(path, &replayed.ledger)?;
    }
    match replayed.error {
        Some(error) => Err(error.into()),
        None if replayed.ledger.is_balanced() => Ok(()),
        None => Err(RunError::Unbalanced.into()),
    }
}
