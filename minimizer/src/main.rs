//! The `minimizer` command.

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use clap::{CommandFactory as _, Parser as _};
use minimizer::cli::{self, Cli, Verb};
use minimizer::demo::DemoError;
use minimizer::policy::{Policy, PolicyError};
use minimizer::privilege::{self, PrivilegeError, Task};
use minimizer::report::{self, Output};
use minimizer::run::{RunError, write_ledger};
use minimizer::{cli_docs, demo, doctor, replay, run, status};

/// Bad configuration (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args).map_err(Into::into),
        Verb::Demo(args) => demo(&args),
        Verb::Replay(args) => replay(&args),
        Verb::Status(args) => status(&args),
        Verb::Doctor(args) => doctor(&args),
        Verb::Completions { shell } => {
            cli_docs::completions(Cli::command(), shell, &mut io::stdout().lock()).map_err(Into::into)
        }
        Verb::Man => cli_docs::man(Cli::command(), &mut io::stdout().lock()).map_err(Into::into),
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
    if error.is::<PrivilegeError>() || matches!(error.downcast_ref(), Some(RunError::Privilege(_))) {
        return PrivilegeError::EXIT_CODE;
    }
    let is_policy = error.is::<PolicyError>()
        || matches!(error.downcast_ref(), Some(RunError::Policy(_)))
        || matches!(error.downcast_ref(), Some(DemoError::Policy(_)));
    if is_policy { EXIT_CONFIGURATION } else { 1 }
}

fn demo(args: &cli::Demo) -> anyhow::Result<()> {
    privilege::check(Task::Demo)?;
    Ok(demo::demo(args)?)
}

fn replay(args: &cli::Replay) -> anyhow::Result<()> {
    let policy = Policy::named(&args.policy.policy, &args.policy.tunnels)?;
    privilege::check(Task::Replay)?;
    let replayed = replay::replay(&args.capture, policy)?;
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

fn status(args: &cli::Status) -> anyhow::Result<()> {
    let report = status::ask(args.listen)?;
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        Output::Table => out.write_all(report.table().as_bytes())?,
    }
    Ok(())
}

fn doctor(args: &cli::Doctor) -> anyhow::Result<()> {
    let diagnosis = doctor::examine(&args.interfaces)?;
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => diagnosis.write_json(&mut out)?,
        Output::Table => diagnosis.write_table(&mut out)?,
    }
    if diagnosis.has_failed() {
        bail!("this host lacks what the agent needs: see the checks that failed, each with its fix");
    }
    Ok(())
}
