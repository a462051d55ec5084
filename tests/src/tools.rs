//! Programs of others that tests run, where `cargo xtask setup` has put them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The folder of the tools.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools")
}

/// A call of this program: the one that the setup has unpacked, or else the one in the `PATH`.
#[must_use]
pub fn tool(name: &str) -> Command {
    let unpacked = folder().join("bin").join(name);
    if unpacked.is_file() { Command::new(unpacked) } else { Command::new(name) }
}

/// Python with the packages that the setup installs.
#[must_use]
pub fn python() -> Command {
    Command::new(folder().join("python/bin/python3"))
}

/// The folder of an installed Python package, in which some have programs.
///
/// # Errors
/// When the setup has not installed Python packages.
pub fn python_package(name: &str) -> Result<PathBuf> {
    let versions = folder().join("python/lib");
    let mut versions = versions.read_dir().context("`cargo xtask setup` installs Python packages")?;
    let version = versions.next().context("a version of Python has packages")??;
    Ok(version.path().join("site-packages").join(name))
}
