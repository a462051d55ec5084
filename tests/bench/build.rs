//! Builds the kernel programs that the bench compares the real one with.
//!
//! Without a bpf-linker everything else here still builds; the bench says so when it is started.

#[path = "../../minimizer/build/kernel_program.rs"]
mod kernel_program;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use kernel_program::KernelProgram;

const PROGRAM: KernelProgram = KernelProgram { package: "bench-ebpf", bin: "bench", features: "program" };

fn main() -> ExitCode {
    for source in
        ["build.rs", "../bench-ebpf", "../../minimizer-ebpf", "../../minimizer-common", "../../Cargo.lock"]
    {
        println!("cargo:rerun-if-changed={source}");
    }
    println!("cargo:rerun-if-env-changed=BPF_LINKER");
    match object() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn object() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let root = package.ancestors().nth(2).expect("the package lies in the folder of the tests");
    let object = out.join("bench.o");
    let linker =
        env::var_os("BPF_LINKER").map_or_else(|| kernel_program::installed_linker(root), PathBuf::from);
    println!("cargo:rerun-if-changed={}", linker.display());
    if !linker.is_file() {
        return fs::write(&object, []).map_err(|error| format!("{}: {error}", object.display()));
    }
    let (built, _) = kernel_program::build(root, &linker, &root.join("target/bpf"), &PROGRAM)?;
    fs::copy(&built, &object).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}
