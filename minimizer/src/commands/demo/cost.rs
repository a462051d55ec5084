//! The cost of the program per packet, as the kernel measures it.

use std::os::fd::OwnedFd;

use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};

pub use crate::kernel::cost::Cost;
use crate::kernel::error::ProgramError;
use crate::kernel::program::Program;

/// A measurement that runs while this exists.
#[derive(Debug)]
pub struct Meter {
    program_id: u32,
    /// The kernel measures as long as this is open.
    _measuring: OwnedFd,
}

impl Meter {
    /// Starts to measure a program; `None` where the kernel cannot (before 5.8) or refuses.
    ///
    /// # Errors
    /// When the kernel does not tell the program's number.
    pub fn start(program: &Program) -> Result<Option<Self>, ProgramError> {
        let program_id = program.info()?.id();
        Ok(enable_stats(Stats::RunTime).ok().map(|measuring| Self { program_id, _measuring: measuring }))
    }

    /// The cost so far; `None` if the program is gone or never ran.
    #[must_use]
    pub fn read(&self) -> Option<Cost> {
        let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == self.program_id)?;
        let cost = Cost::of(&info);
        (cost.runs > 0).then_some(cost)
    }
}
