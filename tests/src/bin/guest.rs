//! The only process of an emulated machine: runs the checks of one kernel, says how they ended on
//! the console, and switches the machine off. Its arguments are those that its own check gives it.

use std::env;

use anyhow::Result;
use tests::guest;

fn main() -> Result<()> {
    if let Some(if_index) = env::args().nth(1) {
        return guest::attach_until_killed(if_index.parse()?);
    }
    guest::run()
}
