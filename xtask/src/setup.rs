//! `cargo xtask setup`: finds out what this machine lacks, prints it and installs it.

mod apt;
mod cargo_tools;
mod components;
pub mod flow_agents;
mod packages;
mod python;
mod unpacked;

use std::collections::BTreeSet;

use anyhow::Result;
use clap::ValueEnum;

use cargo_tools::CargoTool;
use components::Component;
use packages::Package;
use python::PythonPackage;
use unpacked::Unpacked;

/// Command line of the verb.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to prepare this machine for.
    #[arg(long = "for", value_enum, default_value_t = Purpose::Test)]
    purpose: Purpose,
    /// Only print what is missing.
    #[arg(long)]
    dry_run: bool,
}

/// A purpose for which `setup` prepares a machine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Building the agent and the kernel program.
    Build,
    /// Running the demo.
    Demo,
    /// Running every check and test on the kernel that runs.
    Test,
    /// Running the checks of other kernels in emulated machines.
    Kernels,
    /// Running the fuzzers.
    Fuzz,
}

impl Purpose {
    /// Whether preparing for this purpose also prepares for the other one.
    fn includes(self, other: Self) -> bool {
        match self {
            Self::Build => other == Self::Build,
            Self::Demo => matches!(other, Self::Build | Self::Demo),
            Self::Test => !matches!(other, Self::Kernels | Self::Fuzz),
            Self::Kernels => matches!(other, Self::Build | Self::Kernels),
            Self::Fuzz => matches!(other, Self::Build | Self::Fuzz),
        }
    }
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let plan = Plan::new(arguments.purpose);
    if plan.is_empty() {
        eprintln!("setup: nothing is missing");
        return Ok(());
    }
    plan.print();
    if arguments.dry_run { Ok(()) } else { plan.carry_out() }
}

/// Installs what the purpose needs. Prints nothing if nothing is missing.
pub fn ensure(purpose: Purpose) -> Result<()> {
    let plan = Plan::new(purpose);
    if plan.is_empty() {
        return Ok(());
    }
    plan.print();
    plan.carry_out()
}

/// What is missing.
struct Plan {
    components: Vec<&'static Component>,
    packages: Vec<&'static Package>,
    unpacked: Vec<&'static Unpacked>,
    python: Vec<&'static PythonPackage>,
    cargo_tools: Vec<&'static CargoTool>,
}

impl Plan {
    fn new(purpose: Purpose) -> Self {
        let cargo_tools = cargo_tools::missing(purpose);
        let linker = cargo_tools.iter().any(|tool| tool.needs_llvm);
        Self {
            components: components::missing(purpose),
            packages: packages::missing(purpose, linker),
            unpacked: unpacked::missing(purpose),
            python: python::missing(purpose),
            cargo_tools,
        }
    }

    fn is_empty(&self) -> bool {
        self.components.is_empty()
            && self.packages.is_empty()
            && self.unpacked.is_empty()
            && self.python.is_empty()
            && self.cargo_tools.is_empty()
    }

    fn print(&self) {
        eprintln!("setup: this is missing and will be installed:");
        for Component { name, reason, .. } in &self.components {
            eprintln!("  rust component   {name:<18} {reason}");
        }
        for Package { name, reason, .. } in &self.packages {
            eprintln!("  Debian package   {name:<18} {reason}");
        }
        for package in self.libraries() {
            eprintln!("  Debian package   {package:<18} programs below are linked with it");
        }
        for Unpacked { package, reason, .. } in &self.unpacked {
            eprintln!("  into target/     {package:<18} {reason}");
        }
        for PythonPackage { name, reason, .. } in &self.python {
            eprintln!("  into target/     {name:<18} {reason}");
        }
        for CargoTool { name, reason, .. } in &self.cargo_tools {
            eprintln!("  into target/     {name:<18} {reason}");
        }
    }

    /// Packages with libraries of the unpacked programs.
    fn libraries(&self) -> BTreeSet<&'static str> {
        self.unpacked.iter().flat_map(|package| package.absent_libraries()).collect()
    }

    fn carry_out(&self) -> Result<()> {
        components::install(&self.components)?;
        let packages = self.packages.iter().map(|package| package.name);
        let packages: Vec<_> = packages.chain(self.libraries()).collect();
        if !packages.is_empty() || !self.unpacked.is_empty() {
            apt::refresh_lists(&packages)?;
        }
        if !packages.is_empty() {
            apt::install(&packages)?;
        }
        for package in &self.unpacked {
            package.install()?;
        }
        python::install(&self.python)?;
        for tool in &self.cargo_tools {
            tool.install()?;
        }
        eprintln!("setup: done");
        Ok(())
    }
}
