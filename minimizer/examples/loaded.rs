//! Loads each program of the object and prints the object's digest, and name and tag that the kernel
//! gave it.

use anyhow::Result;
use minimizer::program::{Clock, Options, Program, object_digest};
use minimizer_common::tunnel::Tunnels;

fn main() -> Result<()> {
    println!("{}", object_digest());
    for tunnels in [Tunnels::NONE, Tunnels::ALL] {
        let options = Options { flows_per_cpu: 1, clock: Clock::Control, tunnels, ..Options::default() };
        let info = Program::load(&options)?.info()?;
        println!("{} {:016x}", info.name_as_str().unwrap_or("?"), info.tag());
    }
    Ok(())
}
