//! `cargo xtask test`: every check and every test, with a closing table.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::report::{Report, Tally};
use crate::setup::{self, Purpose};
use crate::{command, kernels, verify_object, workspace};

/// Names a folder of captures, which no repository has, for [`CORPUS_TEST`].
const CORPUS: &str = "PCAP_CORPUS";
const CORPUS_TEST: &str = "captures_of_the_corpus";

/// Command line of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run only these steps, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,
    /// Run only the checks on other kernels, in emulated machines; the same as `--only kernels`.
    #[arg(long)]
    kernels: bool,
    #[command(flatten)]
    machines: kernels::Choice,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// rustfmt.
    Formatting,
    /// clippy on everything that runs on the host; warnings are errors.
    Lints,
    /// clippy on the kernel program, for the kernel's target.
    KernelLints,
    /// cargo-deny: licences, sources, banned crates.
    Dependencies,
    /// cargo-machete: crates in manifests that no source uses.
    UnusedDependencies,
    /// typos.
    Spelling,
    /// Every test of the workspace.
    Tests,
    /// The checks of `cargo xtask verify-object`, on the agent that the tests ran.
    Object,
    /// The program on older and newer kernels, in emulated machines.
    Kernels,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Formatting => "formatting",
            Self::Lints => "lints",
            Self::KernelLints => "kernel lints",
            Self::Dependencies => "dependencies",
            Self::UnusedDependencies => "unused dependencies",
            Self::Spelling => "spelling",
            Self::Tests => "tests",
            Self::Object => "kernel object",
            Self::Kernels => "kernels",
        }
    }

    fn run(self, arguments: &Arguments) -> Result<Tally> {
        match self {
            Self::Formatting => check(&mut workspace::cargo(["fmt", "--all", "--check"])),
            Self::Lints => {
                let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"];
                check(&mut workspace::cargo(lints))
            }
            Self::KernelLints => kernel_lints(),
            Self::Dependencies => {
                // A check of advisories would clone their database from the network on every run.
                let mut deny = Command::new(workspace::tool("cargo-deny"));
                check(deny.current_dir(workspace::root()).args(["check", "licenses", "bans", "sources"]))
            }
            Self::UnusedDependencies => {
                check(Command::new(workspace::tool("cargo-machete")).current_dir(workspace::root()))
            }
            Self::Spelling => {
                let typos = workspace::tool_environment().join("bin/typos");
                check(Command::new(typos).current_dir(workspace::root()))
            }
            Self::Tests => tests(),
            Self::Object => verify_object::tested(),
            Self::Kernels => kernels::run(&arguments.machines),
        }
    }
}

/// Runs the requested steps, or all of them by default. Fails if a check failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut report = Report::default();
    let mut steps = arguments.only.clone();
    if arguments.kernels {
        steps.push(Step::Kernels);
    }
    // The step for emulated machines makes its own preparations, because it may be skipped.
    if steps != [Step::Kernels] {
        report.step("setup", || setup::ensure(Purpose::Test).map(|()| Tally::ONE));
    }
    for step in Step::value_variants() {
        if steps.is_empty() || steps.contains(step) {
            report.step(step.name(), || step.run(arguments));
        }
    }
    println!("{}", report.table());
    Ok(if report.total().failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(command: &mut Command) -> Result<Tally> {
    command::run(command).map(|()| Tally::ONE)
}

fn kernel_lints() -> Result<Tally> {
    let mut clippy = workspace::cargo(["clippy", "--package", "minimizer-ebpf", "--features", "program"]);
    clippy
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--quiet"])
        .args(["--", "-Dwarnings"])
        // Building `core` is a nightly feature, which the pinned toolchain unlocks by this variable.
        .env("RUSTC_BOOTSTRAP", "1");
    check(&mut clippy)
}

/// Runs every test of the workspace as root, and adds up the reports of the test programs.
///
/// A test is ignored when something that it needs was missing at its build. This step runs such tests, too: what is still
/// missing makes them fail.
fn tests() -> Result<Tally> {
    let mut tests = workspace::cargo(["test", "--workspace", "--no-fail-fast", "--", "--include-ignored"]);
    let mut tally = Tally::default();
    if env::var_os(CORPUS).is_none() {
        eprintln!("\n*** skipped: {CORPUS_TEST}: {CORPUS} names no folder of captures\n");
        tests.args(["--skip", CORPUS_TEST]);
        tally.skipped += 1;
    }
    tests.env("PATH", workspace::search_path_value()?);
    run_as_root(&mut tests)?;
    command::announce(&tests);
    let mut running = tests.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = running.stdout.take().context("the output of cargo is not a pipe")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what cargo prints")?;
        println!("{line}");
        tally = [tally].into_iter().chain(result_line(&line)).sum();
    }
    let status = running.wait().context("cannot wait for cargo")?;
    if !status.success() && tally.failed == 0 {
        bail!("`cargo test` failed before its tests could: {status}");
    }
    Ok(tally)
}

/// The numbers in the last line of a test program: `test result: ok. 12 passed; 0 failed; …`.
fn result_line(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        counts.split(';').find_map(|count| count.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

/// Runs one test of its own name for as long as its settings say. In `cargo xtask test` it is short.
pub fn run_long(test: &str, settings: &[(&str, String)]) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    let mut cargo = workspace::cargo(["test", "--workspace", "--test", test, "--"]);
    cargo.args(["--include-ignored", "--nocapture"]).envs(settings.iter().map(|(name, value)| (name, value)));
    cargo.env("PATH", workspace::search_path_value()?);
    run_as_root(&mut cargo)?;
    command::run(&mut cargo)
}

/// Lets cargo start the built programs through sudo, unless root runs this. The test programs load kernel
/// programs; the compiler should not run as root.
pub fn run_as_root(cargo: &mut Command) -> Result<()> {
    if command::is_root() {
        return Ok(());
    }
    let sudo = workspace::find_program("sudo")
        .context("this loads kernel programs: run it as root, or install sudo")?;
    let path = workspace::search_path_value()?;
    let path = path.to_str().context("PATH is not UTF-8")?;
    let runner = format!("{} --preserve-env env PATH={path}", sudo.display());
    // One variable for every likely host target. Cargo reads only the one for its own.
    for target in ["X86_64_UNKNOWN_LINUX_GNU", "AARCH64_UNKNOWN_LINUX_GNU"] {
        cargo.env(format!("CARGO_TARGET_{target}_RUNNER"), &runner);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::result_line;
    use crate::report::Tally;

    #[test]
    fn results_of_test_programs_are_read() {
        let line =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(result_line(line), Some(Tally { passed: 12, failed: 0, skipped: 1 }));
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(line), Some(Tally { passed: 3, failed: 2, skipped: 0 }));
        assert_eq!(result_line("test cases ... ok"), None);
    }
}
