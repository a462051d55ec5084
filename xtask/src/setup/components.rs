//! Components of the pinned Rust toolchain.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Purpose;
use crate::{command, workspace};

/// A component as rustup names it.
pub struct Component {
    /// Its name.
    pub name: &'static str,
    /// Why it is needed.
    pub reason: &'static str,
    purpose: Purpose,
    probe: Probe,
}

enum Probe {
    /// This path exists below the toolchain's folder.
    Path(&'static str),
    /// Cargo knows this subcommand.
    Subcommand(&'static str),
}

const COMPONENTS: &[Component] = &[
    Component {
        name: "rust-src",
        reason: "the kernel target has no prebuilt `core`",
        purpose: Purpose::Build,
        probe: Probe::Path("lib/rustlib/src/rust/library/core/src/lib.rs"),
    },
    Component {
        name: "rustfmt",
        reason: "formatting is checked",
        purpose: Purpose::Test,
        probe: Probe::Subcommand("fmt"),
    },
    Component {
        name: "clippy",
        reason: "lints are checked",
        purpose: Purpose::Test,
        probe: Probe::Subcommand("clippy"),
    },
];

/// Components for the purpose that the toolchain lacks.
pub fn missing(purpose: Purpose) -> Vec<&'static Component> {
    COMPONENTS
        .iter()
        .filter(|component| purpose.includes(component.purpose))
        .filter(|component| !component.is_there())
        .collect()
}

impl Component {
    fn is_there(&self) -> bool {
        match self.probe {
            Probe::Path(path) => toolchain_folder().is_some_and(|folder| folder.join(path).exists()),
            Probe::Subcommand(name) => workspace::cargo([name, "--version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
        }
    }
}

fn toolchain_folder() -> Option<PathBuf> {
    let output =
        Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace::root()).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}

/// Adds components. rustup reads the toolchain from `rust-toolchain.toml`.
pub fn install(components: &[&Component]) -> Result<()> {
    if components.is_empty() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add"])
        .args(components.iter().map(|component| component.name))
        .current_dir(workspace::root());
    command::run(&mut rustup)
        .context("rustup (https://rustup.rs) manages the pinned toolchain; is it installed, and online?")
}
