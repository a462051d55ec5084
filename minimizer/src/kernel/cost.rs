//! What a loaded program costs, by the kernel's own measure.

use std::fs;
use std::time::Duration;

use aya::programs::ProgramInfo;

use crate::kernel::attach::Action;
use crate::kernel::program::Program;

/// Says whether the kernel measures all programs; it does so also while somebody has asked for it by `bpf(2)`.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What a program cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Times that the program ran.
    pub runs: u64,
    /// Time that all runs took together; the kernel's clock reads around a run are part of it.
    pub time: Duration,
}

impl Cost {
    /// What the kernel says of a program.
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
    /// What the programs cost since they were loaded, by name; empty where the kernel does not measure them
    /// (`sysctl kernel.bpf_stats_enabled=1`).
    #[must_use]
    pub fn costs(&self) -> Vec<(&'static str, Cost)> {
        if fs::read(STATISTICS).ok().as_deref().map(<[u8]>::trim_ascii) != Some(b"1") {
            return Vec::new();
        }
        let cost = |action: Action| {
            // The program for taps is loaded only where there are taps.
            let info = self.info_of(action).ok()?;
            Some((action.program(self.compiled().policy.tunnels), Cost::of(&info)))
        };
        [Action::Pass, Action::Drop].into_iter().filter_map(cost).collect()
    }
}
