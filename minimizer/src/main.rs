//! The `minimizer` command.

#![deny(unsafe_code)]
// `print!` and `eprint!` wait for the reader, and panic when it is gone: use `writeln!` or `tracing`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use clap::{CommandFactory as _, Parser as _};
use minimizer::agent::error::AgentError;
use minimizer::commands::cli::{self, Cli, Verb};
use minimizer::commands::demo::DemoError;
use minimizer::commands::options::SettingsError;
use minimizer::commands::policy::{self, PolicyVerbError};
use minimizer::commands::policy_choice::PolicyChoice;
use minimizer::commands::reload::ReloadError;
use minimizer::commands::run::RunError;
use minimizer::commands::text::{self, Output};
use minimizer::commands::top::TopError;
use minimizer::commands::{cli_docs, demo, doctor, reload, replay, run, top};
use minimizer::serve::http::WebConfigError;
use minimizer::serve::ledger_file::{LedgerFile, LedgerOrigin};
use minimizer::serve::status;
use minimizer::support::privilege::{self, PrivilegeError, Task};
use minimizer::support::{log, panics, traces};

/// Wrong usage, as clap says it.
const EXIT_USAGE: u8 = 2;
/// Bad configuration (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    // Dropped last: whatever is logged until then is written, as far as the reader takes it.
    let Ok(_log) = log::start() else { return ExitCode::FAILURE };
    panics::log_them();
    if let Err(error) = traces::hide_memory() {
        log::failed(format!("cannot keep the memory of this process to itself: {error}"));
        return ExitCode::FAILURE;
    }
    let result = match panics::answered(|| act(Cli::parse().verb)) {
        None => return ExitCode::from(panics::EXIT_CODE),
        Some(result) => result,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `minimizer man | head`: whoever closed the output has read enough.
        Err(error) if is_output_closed(&error) => ExitCode::FAILURE,
        Err(error) => {
            log::failed(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn act(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Run(args) => run::run(&args).map_err(Into::into),
        Verb::Demo(args) => demo(&args),
        Verb::Replay(args) => replay(&args),
        Verb::Status(args) => status(&args),
        Verb::Top(args) => top::top(&args).map_err(Into::into),
        Verb::Reload(args) => reload(&args),
        Verb::Doctor(args) => doctor(&args),
        Verb::Policy(verb) => policy::policy(&verb, &mut io::stdout().lock()).map_err(Into::into),
        Verb::Completions { shell } => {
            cli_docs::completions(Cli::command(), shell, &mut io::stdout().lock()).map_err(Into::into)
        }
        Verb::Man => cli_docs::man(Cli::command(), &mut io::stdout().lock()).map_err(Into::into),
    }
}

/// Whether all that a verb had to do was to print, and its output was closed. `run` and `demo` do more and say so.
fn is_output_closed(error: &anyhow::Error) -> bool {
    let output = match error.downcast_ref() {
        Some(PolicyVerbError::Output(error)) => Some(error),
        _ => error.downcast_ref::<io::Error>(),
    };
    output.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// 1 at run time, 2 for wrong usage, 70 after a panic, 77 without privilege, 78 for bad configuration.
fn exit_code(error: &anyhow::Error) -> u8 {
    let run_error = match error.downcast_ref() {
        Some(DemoError::Run(error)) => Some(error),
        Some(DemoError::Agent(AgentError::Mandate(_))) => return EXIT_CONFIGURATION,
        Some(DemoError::Agent(AgentError::Panicked)) => return panics::EXIT_CODE,
        _ => error.downcast_ref(),
    };
    match run_error {
        Some(RunError::Privilege(_)) => return PrivilegeError::EXIT_CODE,
        Some(RunError::Panicked(_) | RunError::Agent(AgentError::Panicked)) => return panics::EXIT_CODE,
        Some(RunError::Settings(SettingsError::NoInterface)) => return EXIT_USAGE,
        Some(
            RunError::Settings(_)
            | RunError::Policy(_)
            | RunError::Key(_)
            | RunError::Mandate(_)
            | RunError::TimeMark(_)
            | RunError::Web(WebConfigError::Read { .. } | WebConfigError::Refused(_))
            | RunError::Sink(_)
            | RunError::Rollback(_)
            | RunError::Agent(AgentError::Mandate(_)),
        ) => return EXIT_CONFIGURATION,
        _ => {}
    }
    let is_privilege = matches!(error.downcast_ref(), Some(PolicyVerbError::Privilege(_)));
    let is_withheld = matches!(error.downcast_ref(), Some(TopError::Withheld(_)));
    if is_privilege || is_withheld || error.is::<PrivilegeError>() {
        return PrivilegeError::EXIT_CODE;
    }
    let is_policy = error.downcast_ref().is_some_and(PolicyVerbError::is_configuration);
    let is_refused = matches!(error.downcast_ref(), Some(ReloadError::Refused { .. }));
    if is_policy || is_refused { EXIT_CONFIGURATION } else { 1 }
}

fn demo(args: &cli::Demo) -> anyhow::Result<()> {
    privilege::check(Task::Demo)?;
    Ok(demo::demo(args)?)
}

fn replay(args: &cli::Replay) -> anyhow::Result<()> {
    let choice = PolicyChoice::new(&args.policy, None).map_err(RunError::Policy)?;
    let compiled = choice.compile().map_err(RunError::Policy)?;
    let keyring = choice.keyring().map_err(RunError::Key)?;
    privilege::check(Task::Replay)?;
    let replayed = replay::replay(&args.capture, &compiled, keyring, choice.recipient())?;
    let mut out = BufWriter::new(io::stdout().lock());
    match args.output {
        Output::Json => {
            text::json_lines(&mut out, &replayed.records, replayed.fields)?;
            if let Some((residual, fields)) = replayed.residual {
                text::json_lines(&mut out, &[residual], fields)?;
            }
        }
        Output::Table => {
            text::table(&mut out, &replayed.records, replayed.fields)?;
            writeln!(out)?;
            text::ledger(&mut out, &replayed.ledger)?;
        }
    }
    out.flush()?;
    if let Some(path) = &args.ledger {
        let origin = LedgerOrigin::new(&compiled.policy, replayed.program_tag);
        LedgerFile::new(path)?.write(&origin, &replayed.ledger)?;
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

fn reload(args: &cli::Reload) -> anyhow::Result<()> {
    let in_force = reload::reload(args.listen)?;
    writeln!(io::stdout().lock(), "in force: {}", in_force.line())?;
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
