//! Loads every program of the object and prints the object's digest, and the name and tag that the kernel
//! gives to each program.

#![forbid(unsafe_code)]

use anyhow::Result;
use minimizer::kernel::attach::Action;
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::{Program, object_digest};
use minimizer::policy::compile::CompiledPolicy;
use minimizer_common::tunnel::Tunnels;

fn main() -> Result<()> {
    println!("{}", object_digest());
    for tunnels in [Tunnels::NONE, Tunnels::ALL] {
        let compiled = CompiledPolicy::full_record(tunnels);
        let options = Options { flows_per_cpu: 1, clock: Clock::Control, compiled, ..Options::default() };
        let mut program = Program::load(&options)?;
        program.load_tap()?;
        for action in [Action::Pass, Action::Drop] {
            let info = program.info_of(action)?;
            println!("{} {:016x}", info.name_as_str().unwrap_or("?"), info.tag());
        }
    }
    Ok(())
}
