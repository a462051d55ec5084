//! Loads the kernel programs and prints the digest of their object and the tags that the kernel gave them.

use anyhow::Result;
use minimizer::program::{Action, Clock, Options, Program, object_digest};

fn main() -> Result<()> {
    let mut program = Program::load(&Options { flows_per_cpu: 1, clock: Clock::Control, hash_keys: None })?;
    program.load_tap()?;
    println!("{}", object_digest());
    for action in [Action::Pass, Action::Drop] {
        println!("{} {:016x}", action.program(), program.info_of(action)?.tag());
    }
    Ok(())
}
