//! Finds out whether the agent is built without a kernel program, so that tests of the object are ignored and do not pass.

use std::env;
use std::path::PathBuf;

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let installed = package.join("../target/tools/bin/bpf-linker");
    let linker = env::var_os("BPF_LINKER").map_or(installed, PathBuf::from);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BPF_LINKER");
    println!("cargo::rerun-if-changed={}", linker.display());
    println!("cargo::rustc-check-cfg=cfg(without_kernel_program)");
    if !linker.is_file() {
        println!("cargo::rustc-cfg=without_kernel_program");
    }
}
