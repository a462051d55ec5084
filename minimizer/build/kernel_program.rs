//! How kernel programs are built. One recipe for the agent's build script, for the rebuild that `cargo xtask
//! verify-object` compares with, and for the programs of the bench.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kernel programs are 64-bit little-endian BPF. Linux 5.1 and later understand instruction set 3.
///
/// The program may load unaligned header fields: the machines that run XDP support it. The linker generates
/// the code, so that the option goes to the linker.
const RUSTFLAGS: &[&str] = &[
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    "-Clink-arg=--btf",
    "--cfg=bpf_target_arch=\"x86_64\"",
];

/// Variables of an outer cargo, a wrapper or a user that would change the object.
const INHERITED: &[&str] = &[
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_INCREMENTAL",
];

/// The linker that `cargo xtask setup` installs.
pub fn installed_linker(root: &Path) -> PathBuf {
    root.join("target/tools/bin/bpf-linker")
}

/// A binary of a package that is a kernel program.
pub struct KernelProgram {
    /// Name of the package.
    pub package: &'static str,
    /// Name of the binary.
    pub bin: &'static str,
    /// The features to build it with, separated by commas.
    pub features: &'static str,
}

/// Builds the object of `program` below `target_folder`. Returns its path and the compiler's warnings.
///
/// # Errors
/// The output of cargo, if it failed.
pub fn build(
    root: &Path,
    linker: &Path,
    target_folder: &Path,
    program: &KernelProgram,
) -> Result<(PathBuf, String), String> {
    let KernelProgram { package, bin, features } = program;
    let linker = linker.to_str().ok_or_else(|| format!("not UTF-8: {}", linker.display()))?;
    let flags = [RUSTFLAGS, &[&format!("-Clinker={linker}")]].concat().join("\u{1f}");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo
        .current_dir(root)
        .args(["build", "--package", package, "--bin", bin, "--features", features])
        .args(["--release", "--target", "bpfel-unknown-none", "-Zbuild-std=core", "--quiet", "--locked"])
        // The object must not contain paths of this machine, which would make it differ on another one.
        .args(["-Ztrim-paths", "--config", "profile.release.trim-paths=\"all\""])
        .arg("--target-dir")
        .arg(target_folder)
        // Building `core` is a nightly feature, which the pinned toolchain unlocks by this variable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    for name in INHERITED {
        cargo.env_remove(name);
    }
    let output = cargo.output().map_err(|error| format!("cannot start cargo: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{printed}\n{package} does not build ({})", output.status));
    }
    Ok((target_folder.join("bpfel-unknown-none/release").join(bin), printed))
}
