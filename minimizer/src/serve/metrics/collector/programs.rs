//! What the kernel program costs, where the kernel measures it.

use std::fmt;

use super::Families;
use crate::serve::snapshot::Snapshot;

impl Families<'_> {
    pub(super) fn programs(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let costs = || snapshot.costs.iter();
        if costs().len() == 0 {
            return Ok(());
        }
        self.counters(
            "minimizer_program_runs_total",
            "How often the kernel program ran since it was loaded; only while kernel.bpf_stats_enabled is 1",
            costs().map(|(program, cost)| (vec![("program", *program)], cost.runs)),
        )?;
        self.counters(
            "minimizer_program_run_seconds_total",
            "Time that all runs of the kernel program took since it was loaded; only while kernel.bpf_stats_enabled is 1",
            costs().map(|(program, cost)| (vec![("program", *program)], cost.time.as_secs_f64())),
        )
    }
}
