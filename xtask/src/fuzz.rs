//! `cargo xtask fuzz`: runs the fuzzers with sanitizers, seeded with generated frames.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::setup::{self, Purpose};
use crate::{command, test, workspace};

/// Folder of the fuzzers' package.
const PACKAGE: &str = "tests/fuzz";
/// Longest input: a frame of one page holds every possible header.
const INPUT_OCTETS_MAX: u32 = 2048;

/// Command line of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// The fuzzer to run. Without a name, all of them run, one after the other.
    #[arg(value_enum)]
    targets: Vec<Target>,
    /// How long each one runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    seconds: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// The parser on the host: it always ends, and reads only the first buffer and the headers.
    Walk,
    /// The program in the kernel, compared with the parser on the host.
    Kernel,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Walk => "walk",
            Self::Kernel => "kernel",
        }
    }
}

/// Runs the verb. A fuzzer writes each finding to `target/fuzz/artifacts` and fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Fuzz)?;
    let targets = if arguments.targets.is_empty() { Target::value_variants() } else { &arguments.targets };
    for target in targets {
        fuzz(*target, arguments.seconds).with_context(|| format!("fuzzer {}", target.name()))?;
    }
    Ok(())
}

fn fuzz(target: Target, seconds: u32) -> Result<()> {
    let name = target.name();
    let folder = workspace::root().join("target/fuzz");
    let (corpus, artifacts) = (folder.join("corpus").join(name), folder.join("artifacts").join(name));
    fs::create_dir_all(&artifacts).with_context(|| format!("cannot make {}", artifacts.display()))?;
    let mut seeds = workspace::cargo(["run", "--quiet", "--package", "tests", "--bin", "seeds", "--"]);
    command::run(seeds.arg(&corpus))?;

    let mut fuzzer = Command::new(workspace::tool("cargo-fuzz"));
    fuzzer.current_dir(workspace::root().join(PACKAGE));
    fuzzer.args(["run", "--fuzz-dir", ".", "--target-dir"]).arg(&folder);
    fuzzer.args(["--sanitizer", "address", name]).arg(&corpus);
    fuzzer.arg("--").arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_OCTETS_MAX}"));
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display())).arg("-print_final_stats=1");
    // Sanitizers are nightly features, which the pinned toolchain unlocks by this variable.
    fuzzer.env("RUSTC_BOOTSTRAP", "1");
    test::run_as_root(&mut fuzzer)?;
    command::run(&mut fuzzer)
}
