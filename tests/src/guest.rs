//! What is checked on a kernel that is booted for it: that the program loads in every variant, parses
//! as on the host, counts live frames exactly, also on bonds and where a driver does not run it, and that `doctor` says what
//! the kernel lacks.
//!
//! `cargo xtask test --kernels` reads the lines that are printed here.

mod blind;
mod bond;
mod cable;
mod diagnosis;
mod machine;
mod parse;
mod variants;
mod watching;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use minimizer::commands::demo::generator::Traffic;
use minimizer::kernel::features::Kernel;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::verified;
use minimizer::policy::compile::CompiledPolicy;

use crate::minimum::{self, Frame};

pub use cable::attach_until_killed;

/// Seed of the frames: the same on every kernel.
const SEED: u64 = 21;
/// Frames that are run under each policy.
const POLICY_FRAMES: usize = 1000;
/// Flows for which their tables are sized.
const POLICY_FLOWS: u32 = 512;
/// Policies drawn at random.
const POLICIES_DRAWN: u64 = 4;

/// Runs all checks and restarts the machine, which ends the emulation.
///
/// # Errors
/// When the machine cannot be prepared or restarted.
pub fn run() -> Result<()> {
    machine::prepare()?;
    let kernel = Kernel::detect();
    let mut checks = Checks::default();
    println!("kernel {}", machine::kernel_release()?);
    // Before a program is loaded: then older kernels have been asked for more locked memory.
    checks.check("doctor", || diagnosis::check(kernel));
    let corpus = parse::corpus();
    let traffic = Arc::new(Traffic::mixed(SEED));
    for variant in variants::all(kernel) {
        let name = &variant.name;
        checks.check(&format!("load {name}"), || {
            let count = verified::instructions(variant.kernel, &variant.options)?;
            Ok(format!("verified {} instructions", count.context("the kernel does not tell how many")?))
        });
        checks.check(&format!("parse {name}"), || parse::check(&variant, &corpus));
        checks.check(&format!("cable {name}"), || cable::ledger(&variant, &traffic));
    }
    let frames = Frame::draw(SEED, POLICY_FRAMES);
    for (name, policy) in variants::policies() {
        checks.check(&format!("load {name}"), || {
            let compiled = Arc::new(CompiledPolicy::compile(policy.clone())?);
            let options = Options { flows_per_cpu: POLICY_FLOWS, compiled, ..Options::default() };
            let count = verified::instructions(kernel, &options)?;
            Ok(format!("verified {} instructions", count.context("the kernel does not tell how many")?))
        });
        checks.check(&format!("policy {name}"), || {
            let compared = minimum::compare(kernel, policy, &frames, SEED)?;
            Ok(format!(
                "{} frames, {} records as the policy leaves them",
                frames.len(),
                compared.records.len()
            ))
        });
    }
    for seed in 0..POLICIES_DRAWN {
        checks.check(&format!("policy drawn {seed}"), || {
            let compared = minimum::compare_drawn(kernel, seed, POLICY_FRAMES / 10)?;
            Ok(format!("{} records as the policy leaves them", compared.records.len()))
        });
    }
    checks.check("detach", cable::detachment);
    let modules = machine::load_modules();
    checks.check("modules", || modules);
    for (name, check) in bond::CHECKS {
        checks.check(name, || in_a_thread(check));
    }
    checks.check("blind", blind::check);
    checks.conclude();
    machine::restart()
}

/// How the checks ended so far.
#[derive(Default)]
struct Checks {
    passed: u32,
    failed: u32,
}

impl Checks {
    /// Runs a check, in which a panic is a failure too, and prints a line about it.
    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<String>) {
        if !machine::is_chosen(name) {
            return;
        }
        let start = Instant::now();
        let result = panic::catch_unwind(AssertUnwindSafe(check))
            .unwrap_or_else(|_| Err(anyhow!("it panicked, see above")));
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(found) => {
                self.passed += 1;
                println!("passed {name}: {found} ({seconds:.1} s)");
            }
            Err(error) => {
                self.failed += 1;
                println!("failed {name}: {error:#} ({seconds:.1} s)");
            }
        }
    }

    /// Prints the last line, which is missing when the machine does not get there.
    fn conclude(&self) {
        let Self { passed, failed } = self;
        println!("guest: {passed} passed, {failed} failed");
    }
}

/// Runs a check in a thread of its own, which may move to another network namespace.
fn in_a_thread(check: impl FnOnce() -> Result<String> + Send) -> Result<String> {
    thread::scope(|scope| scope.spawn(check).join().unwrap_or_else(|_| Err(anyhow!("it panicked"))))
}
