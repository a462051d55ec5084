//! What a loaded program costs, as the kernel measures it.

use std::fs;
use std::time::Duration;

use aya::programs::ProgramInfo;

use crate::kernel::attach::Action;
use crate::kernel::program::Program;

/// 1 here means that the kernel measures all programs. It also measures them while a process has requested it
/// through `bpf(2)`.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What a program cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How often the program ran.
    pub runs: u64,
    /// Total time of all runs. It includes the kernel's own clock reads around each run.
    pub time: Duration,
}

impl Cost {
    /// The kernel's figures for a program.
    #[must_use]
    pub const fn of(info: &ProgramInfo) -> Self {
        Self { runs: info.run_count(), time: info.run_time() }
    }

    /// Nanoseconds of one run.
    #[must_use]
    pub fn ns_per_run(&self) -> f64 {
        self.time.as_secs_f64() * 1e9 / self.runs as f64
    }
}

impl Program {
    /// The costs of the programs since they were loaded, by name. Empty if the kernel does not measure them
    /// (`sysctl kernel.bpf_stats_enabled=1` makes it).
    #[must_use]
    pub fn costs(&self) -> Vec<(&'static str, Cost)> {
        if fs::read(STATISTICS).ok().as_deref().map(<[u8]>::trim_ascii) != Some(b"1") {
            return Vec::new();
        }
        let cost = |action: Action| {
            // The program for taps is loaded only if there are taps.
            let info = self.info_of(action).ok()?;
            Some((action.program(self.compiled().policy.tunnels), Cost::of(&info)))
        };
        [Action::Pass, Action::Drop].into_iter().filter_map(cost).collect()
    }
}
