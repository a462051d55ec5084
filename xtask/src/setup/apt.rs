//! Debian's package manager, or instructions where it cannot be used.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{command, workspace};

const OFFLINE: &str = "is the network reachable? Once the packages are installed by hand, setup needs no apt";

/// Fetches the package lists if a package is unknown or has no version to install.
pub fn refresh_lists(packages: &[&str]) -> Result<()> {
    require()?;
    let known = !packages.is_empty() && simulate(packages).is_ok();
    if known {
        return Ok(());
    }
    let mut update = as_root(&["update"], packages)?;
    command::run(update.arg("--quiet")).context(OFFLINE)
}

/// Installs packages and their dependencies, without recommended packages.
pub fn install(packages: &[&str]) -> Result<()> {
    require()?;
    match simulate(packages) {
        Ok(sizes) => eprint!("{sizes}"),
        Err(error) => bail!(
            "the configured repositories do not offer all of: {}\n{error:#}\n\
             Without network the lists of packages are empty. On Debian 12 they are in `bookworm` and \
             `bookworm-security`; LLVM 22 is also at https://apt.llvm.org",
            packages.join(" ")
        ),
    }
    let arguments = ["install", "--yes", "--no-install-recommends", "--option", "DPkg::Lock::Timeout=300"];
    let mut install = as_root(&arguments, packages)?;
    command::run(install.arg("--quiet").args(packages)).context(OFFLINE)
}

/// Whether a package is installed, in any version.
pub fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    let output = query.args(["--show", "--showformat", "${db:Status-Status}", package]).output();
    output.is_ok_and(|output| output.stdout == b"installed")
}

/// What an installation would download and occupy, in apt's words.
fn simulate(packages: &[&str]) -> Result<String> {
    let mut simulate = Command::new("apt-get");
    simulate
        .args(["install", "--assume-no", "--no-install-recommends", "--option", "Debug::NoLocking=true"])
        .args(packages)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let output = simulate.output().context("cannot start apt-get")?;
    let lines = String::from_utf8_lossy(&output.stdout);
    let sizes: String = lines
        .lines()
        .filter(|line| line.starts_with("Need to get ") || line.contains(" newly installed"))
        .chain(lines.lines().filter(|line| line.starts_with("After this operation")))
        .map(|line| format!("  {line}\n"))
        .collect();
    if sizes.is_empty() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(sizes)
}

/// Downloads a package file into a folder. It needs no privilege.
pub fn download(package: &str, into: &std::path::Path) -> Result<()> {
    require()?;
    let mut download = Command::new("apt-get");
    // With root as the download user, apt needs no folder that another user can write.
    download.args(["download", "--quiet", "--option", "APT::Sandbox::User=root", package]).current_dir(into);
    command::run(&mut download).context(OFFLINE)
}

fn as_root(arguments: &[&str], packages: &[&str]) -> Result<Command> {
    let Some(mut apt) = command::as_root("env") else {
        bail!(
            "installing packages needs root and there is no sudo. Run this as root, then try again:\n  \
             apt-get update && apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    };
    // sudo drops variables, hence `env`.
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
    Ok(apt)
}

fn require() -> Result<()> {
    if workspace::find_program("apt-get").is_none() {
        bail!(
            "this is not Debian (there is no apt-get): install what the packages above hold in your system's \
             way, then try again"
        );
    }
    Ok(())
}
