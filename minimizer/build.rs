//! Builds the kernel program and hands it to the agent as bytes.
//!
//! Without a bpf-linker (`cargo xtask setup` installs one) the agent is built without the program
//! and says so when it is asked to load it; everything that needs no kernel still works.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kernel programs are 64-bit little-endian BPF; instruction set 3 is understood from Linux 5.1 on.
/// Loads of unaligned header fields are allowed: XDP runs on machines that have them.
const RUSTFLAGS: &[&str] = &[
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    "-Ctarget-feature=+allows-misaligned-mem-access",
    "-Clink-arg=--btf",
    "--cfg=bpf_target_arch=\"x86_64\"",
];

fn main() {
    println!("cargo:rerun-if-changed=../minimizer-ebpf");
    println!("cargo:rerun-if-changed=../minimizer-common");
    println!("cargo:rerun-if-env-changed=BPF_LINKER");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let root = root.parent().expect("the package lies in the workspace").to_owned();
    let object = out.join("minimizer.o");
    match linker(&root) {
        Some(linker) => build(&root, &out, &linker, &object),
        None => {
            println!(
                "cargo:warning=no bpf-linker found: building without the kernel program; run `cargo xtask setup`"
            );
            fs::write(&object, []).expect("OUT_DIR is writable");
        }
    }
}

/// The linker that `cargo xtask setup` installed, or the one that `BPF_LINKER` names.
fn linker(root: &Path) -> Option<PathBuf> {
    let installed = root.join("target/tools/bin/bpf-linker");
    println!("cargo:rerun-if-changed={}", installed.display());
    let named = env::var_os("BPF_LINKER").map(PathBuf::from);
    named.or(Some(installed)).filter(|path| path.is_file())
}

fn build(root: &Path, out: &Path, linker: &Path, object: &Path) {
    let target = out.join("bpf");
    let mut flags = RUSTFLAGS.join("\u{1f}");
    flags.push_str("\u{1f}-Clinker=");
    flags.push_str(linker.to_str().expect("the linker's path is UTF-8"));
    // Paths of this machine do not belong in the object, and make it differ from a rebuild elsewhere.
    flags.push_str(&format!("\u{1f}--remap-path-prefix={}=.", root.display()));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo
        .current_dir(root)
        .args(["build", "--package", "minimizer-ebpf", "--bin", "minimizer", "--features", "program"])
        .args(["--release", "--target", "bpfel-unknown-none", "-Zbuild-std=core", "--quiet"])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    for inherited in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
        cargo.env_remove(inherited);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the kernel program does not build: see above");
    fs::copy(target.join("bpfel-unknown-none/release/minimizer"), object).expect("the build made an object");
}
