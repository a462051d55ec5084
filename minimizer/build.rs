//! Builds the kernel program and hands it to the agent as bytes.
//!
//! Without bpf-linker the build makes an agent without the program. Such an agent says so when it has to load
//! the program; everything that needs no kernel still works.

#[path = "build/kernel_program.rs"]
mod kernel_program;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kernel_program::KernelProgram;

const PROGRAM: KernelProgram = KernelProgram {
    package: "minimizer-ebpf",
    bin: "minimizer",
    features: if cfg!(feature = "kernel-log") { "log" } else { "program" },
};

/// The object depends on these, relative to the root.
const SOURCES: &[&str] = &[
    "minimizer-ebpf/Cargo.toml",
    "minimizer-ebpf/src",
    "minimizer-common/Cargo.toml",
    "minimizer-common/src",
    // Versions of the dependencies, and the profile.
    "Cargo.lock",
    "Cargo.toml",
];

fn main() -> ExitCode {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let root = package.parent().expect("the package lies in the repository");
    triggers(root);
    match object(root, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n`cargo xtask setup` installs what the build needs.");
            ExitCode::FAILURE
        }
    }
}

fn triggers(root: &Path) {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo:rerun-if-env-changed=BPF_LINKER");
}

/// Puts the object, or an empty file, where the agent includes it.
fn object(root: &Path, out: &Path) -> Result<(), String> {
    let object = out.join("minimizer.o");
    let Some(linker) = linker(root)? else {
        println!("cargo:warning=no bpf-linker: building without the kernel program; run `cargo xtask setup`");
        return fs::write(&object, []).map_err(|error| format!("{}: {error}", object.display()));
    };
    let (built, warnings) = kernel_program::build(root, &linker, &root.join("target/bpf"), &PROGRAM)?;
    for line in warnings.lines() {
        println!("cargo:warning={line}");
    }
    fs::copy(&built, &object).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

/// The linker that `BPF_LINKER` names, or the installed one. `None` if there is none.
///
/// Cargo should watch the file of the linker. While it does not exist, cargo runs this script at every build,
/// so that it notices an installation at once.
fn linker(root: &Path) -> Result<Option<PathBuf>, String> {
    if let Some(named) = env::var_os("BPF_LINKER").map(PathBuf::from) {
        println!("cargo:rerun-if-changed={}", named.display());
        return if named.is_file() {
            Ok(Some(named))
        } else {
            Err(format!("BPF_LINKER names {}, which is no file", named.display()))
        };
    }
    let installed = kernel_program::installed_linker(root);
    println!("cargo:rerun-if-changed={}", installed.display());
    Ok(installed.is_file().then_some(installed))
}
