//! `cargo xtask test --kernels`: the program on older and newer kernels, in emulated machines.

mod guest;
mod images;
mod initramfs;
mod machine;
mod verified;

use std::env;
use std::path::Path;

use anyhow::{Context as _, Error, Result, bail};

use crate::report::Tally;
use crate::setup::{self, Purpose};
use images::Image;
use verified::Verified;

/// Set to 1 where a kernel that cannot be had is a failure.
const REQUIRED: &str = "MINIMIZER_REQUIRE_KERNELS";

/// Runs the guest's checks on every kernel that can be had, and fails what takes the verifier too long.
pub fn run() -> Result<Tally> {
    setup::ensure(Purpose::Build)?;
    let images = match machines() {
        Ok(images) => images,
        Err(error) => return skipped(&error),
    };
    if images.iter().all(Result::is_err) {
        return images.iter().filter_map(|image| image.as_ref().err()).map(skipped).sum();
    }
    let guest = guest::build()?;
    let mut verified = Verified::default();
    let mut tallies = Vec::new();
    for image in &images {
        tallies.push(match image {
            Ok(image) => boot(image, &guest, &mut verified).unwrap_or_else(|error| {
                eprintln!("{}: {error:#}", image.release);
                Tally::FAILED
            }),
            Err(error) => skipped(error)?,
        });
    }
    println!("\n{}", verified.table());
    tallies.extend(verified.over_budget().map(|excess| {
        println!("over budget: {excess}");
        Tally::FAILED
    }));
    Ok(tallies.into_iter().sum())
}

/// What machines need: an emulator, and kernels, of which single ones may be missing.
fn machines() -> Result<Vec<Result<Image>>> {
    setup::ensure(Purpose::Kernels)?;
    images::all()
}

fn skipped(reason: &Error) -> Result<Tally> {
    let text = format!("kernel images cannot be had ({reason:#})");
    if env::var_os(REQUIRED).is_some_and(|value| value == "1") {
        bail!("{REQUIRED} is 1, but {text}");
    }
    eprintln!("\n*** skipped: {text}\n");
    Ok(Tally::SKIPPED)
}

fn boot(image: &Image, guest: &Path, verified: &mut Verified) -> Result<Tally> {
    eprintln!("\nbooting {} of Debian {}", image.release, image.suite);
    let initramfs = image.folder.join("initramfs.cpio");
    initramfs::write(&initramfs, guest, &image.veth_module)
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    let console = machine::run(&image.kernel, &initramfs, &image.folder.join("console.log"))?;
    verified.add(&image.release, &console);
    machine::judge(&console)
}
