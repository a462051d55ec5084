//! `cargo xtask test --kernels`: runs the program on older and newer kernels, in emulated machines.

mod guest;
mod images;
mod initramfs;
mod machine;
mod modules;
mod verified;

use std::env;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Error, Result, bail};

use crate::report::Tally;
use crate::setup::{self, Purpose};
use guest::Guest;
use images::Image;
use verified::Verified;

/// If this variable is 1, a kernel that cannot be fetched is a failure.
const REQUIRED: &str = "MINIMIZER_REQUIRE_KERNELS";

/// What of it is run; everything by default.
#[derive(clap::Args)]
pub struct Choice {
    /// Boot only the kernel of this Debian suite.
    #[arg(long, value_parser = images::SUITES.map(|(suite, _)| suite))]
    suite: Option<String>,
    /// Run only checks in the machines whose names begin with this, or with one of these, separated by commas.
    #[arg(long)]
    checks: Option<String>,
}

/// Runs the guest's checks on every available kernel. A program beyond the verifier's budget fails.
pub fn run(choice: &Choice) -> Result<Tally> {
    setup::ensure(Purpose::Build)?;
    let images = match machines(choice) {
        Ok(images) => images,
        Err(error) => return skipped(&error),
    };
    if images.iter().all(Result::is_err) {
        return images.iter().filter_map(|image| image.as_ref().err()).map(skipped).sum();
    }
    let guest = guest::build()?;
    let (present, absent): (Vec<_>, Vec<_>) = images.iter().partition(|image| image.is_ok());
    let absent = absent.into_iter().filter_map(|image| image.as_ref().err());
    let mut tallies = absent.map(skipped).collect::<Result<Vec<_>>>()?;
    let present: Vec<_> = present.into_iter().filter_map(|image| image.as_ref().ok()).collect();
    let mut verified = Verified::default();
    for (image, console) in present.iter().zip(boot_all(&present, &guest, choice)) {
        tallies.push(
            console
                .and_then(|console| {
                    verified.add(&image.release, &console);
                    machine::judge(&console)
                })
                .unwrap_or_else(|error| {
                    eprintln!("{}: {error:#}", image.release);
                    Tally::FAILED
                }),
        );
    }
    println!("\n{}", verified.table());
    tallies.extend(verified.over_budget().map(|excess| {
        println!("over budget: {excess}");
        Tally::FAILED
    }));
    Ok(tallies.into_iter().sum())
}

/// An emulator and the kernels. A single kernel may be missing.
fn machines(choice: &Choice) -> Result<Vec<Result<Image>>> {
    setup::ensure(Purpose::Kernels)?;
    images::all(choice.suite.as_deref())
}

fn skipped(reason: &Error) -> Result<Tally> {
    let text = format!("kernel images cannot be had ({reason:#})");
    if env::var_os(REQUIRED).is_some_and(|value| value == "1") {
        bail!("{REQUIRED} is 1, but {text}");
    }
    eprintln!("\n*** skipped: {text}\n");
    Ok(Tally::SKIPPED)
}

/// Boots the kernels, as many at a time as there are CPUs, because the emulator uses one CPU for a machine.
/// Returns their consoles in the order of the images.
fn boot_all(images: &[&Image], guest: &Guest, choice: &Choice) -> Vec<Result<String>> {
    let at_once = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut consoles = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(image) = images.get(number) else { break };
            consoles.push((number, boot(image, guest, choice)));
        }
        consoles
    };
    let mut consoles: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.min(images.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    consoles.sort_by_key(|(number, _)| *number);
    consoles.into_iter().map(|(_, console)| console).collect()
}

fn boot(image: &Image, guest: &Guest, choice: &Choice) -> Result<String> {
    eprintln!("\nbooting {} of Debian {}", image.release, image.suite);
    let initramfs = image.folder.join("initramfs.cpio");
    initramfs::write(&initramfs, guest, &image.modules)
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    machine::run(image, &initramfs, choice.checks.as_deref())
}
