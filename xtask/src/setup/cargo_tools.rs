//! Tools that cargo builds from crates.io into `target/tools`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Purpose;
use crate::{command, workspace};

/// A tool of exactly one version. Another version could judge, or link, differently.
pub struct CargoTool {
    /// Name of the crate.
    pub name: &'static str,
    /// Why it is needed.
    pub reason: &'static str,
    /// Whether it links with LLVM.
    pub needs_llvm: bool,
    version: &'static str,
    program: &'static str,
    purpose: Purpose,
    options: &'static [&'static str],
}

/// Debian's folder of the LLVM version that the pinned Rust contains.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// The options for a tool that runs for a second: optimising it would take minutes.
const QUICK: &[&str] = &["--profile", "dev"];

const CARGO_TOOLS: &[CargoTool] = &[
    CargoTool {
        name: "bpf-linker",
        reason: "links the kernel program (about 1 minute)",
        needs_llvm: true,
        version: "0.13.0",
        program: "bpf-linker",
        purpose: Purpose::Build,
        // The LLVM of the pinned Rust. The default feature takes a newer one.
        options: &["--no-default-features", "--features", "llvm-22"],
    },
    CargoTool {
        name: "cargo-deny",
        reason: "checks licences, sources and banned crates (about 2 minutes)",
        needs_llvm: false,
        version: "0.20.2",
        program: "cargo-deny",
        purpose: Purpose::Test,
        options: QUICK,
    },
    CargoTool {
        name: "cargo-machete",
        reason: "finds crates in manifests that no source uses (less than 1 minute)",
        needs_llvm: false,
        version: "0.9.1",
        program: "cargo-machete",
        purpose: Purpose::Test,
        options: QUICK,
    },
    CargoTool {
        name: "cargo-fuzz",
        reason: "builds the fuzzers with sanitizers (about 1 minute)",
        needs_llvm: false,
        version: "0.13.2",
        program: "cargo-fuzz",
        purpose: Purpose::Fuzz,
        options: QUICK,
    },
];

/// Tools for the purpose that are absent, do not run or have another version.
pub fn missing(purpose: Purpose) -> Vec<&'static CargoTool> {
    CARGO_TOOLS.iter().filter(|tool| purpose.includes(tool.purpose)).filter(|tool| !tool.is_there()).collect()
}

impl CargoTool {
    fn is_there(&self) -> bool {
        let output = Command::new(workspace::tool(self.program)).arg("--version").output();
        output.is_ok_and(|output| {
            let text = String::from_utf8_lossy(&output.stdout);
            text.split_whitespace().any(|word| word == self.version)
        })
    }

    /// Builds the tool with the dependency versions that its authors locked.
    pub fn install(&self) -> Result<()> {
        let build = workspace::tools().join("build");
        let mut install = workspace::cargo(["install", self.name, "--version", self.version]);
        install.args(["--locked", "--force", "--root"]).arg(relative(&workspace::tools()));
        install.arg("--target-dir").arg(relative(&build)).args(self.options);
        install.env("CARGO_PROFILE_DEV_DEBUG", "0");
        if self.needs_llvm {
            // Both are set, because the build script prefers an unrelated `llvm-config` in PATH.
            install.env("LLVM_PREFIX", LLVM_PREFIX).env("LLVM_SYS_221_PREFIX", LLVM_PREFIX);
        }
        command::run(&mut install).with_context(|| format!("{} could not be built", self.name))?;
        // The build folder takes hundreds of megabytes that nobody needs again.
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
    }
}

/// A path relative to the root. Commands run there, so that a short path is easier to read.
fn relative(path: &Path) -> &Path {
    path.strip_prefix(workspace::root()).unwrap_or(path)
}
