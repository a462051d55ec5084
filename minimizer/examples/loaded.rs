//! Loads the kernel program and prints the digest of its object and the tag that the kernel gave it.

use anyhow::Result;
use minimizer::program::{Clock, Options, Program, object_digest};

fn main() -> Result<()> {
    let program = Program::load(&Options { flows_per_cpu: 1, clock: Clock::Control, ..Options::default() })?;
    println!("{} {:016x}", object_digest(), program.info()?.tag());
    Ok(())
}
