//! The program that runs in the machines, linked so that it needs no other file.

use std::path::PathBuf;

use anyhow::Result;

use crate::{command, workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds it and returns where it lies.
pub fn build() -> Result<PathBuf> {
    // A folder of its own: other flags would make cargo build everything else anew.
    let folder = workspace::root().join("target/kernels/build");
    let mut build = workspace::cargo(["build", "--package", "tests", "--bin", "guest", "--target", TARGET]);
    build
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // Machines are emulated, many times slower than this one.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        // It is copied into the machine's memory.
        .env("CARGO_PROFILE_DEV_STRIP", "symbols");
    command::run(&mut build)?;
    Ok(folder.join(TARGET).join("debug/guest"))
}
