//! What the agent's process uses, under the names that all Prometheus client libraries use.

use std::fmt;

use super::Families;
use crate::serve::metrics::{ProcessUsage, unix_seconds};
use crate::serve::snapshot::Snapshot;

impl Families<'_> {
    pub(super) fn process(&mut self, snapshot: &Snapshot, process: Option<&ProcessUsage>) -> fmt::Result {
        self.gauge(
            "process_start_time_seconds",
            "When the agent started, since 1970",
            unix_seconds(snapshot.started),
        )?;
        let Some(process) = process else { return Ok(()) };
        self.counter(
            "process_cpu_seconds_total",
            "CPU time of the agent, in user and system mode",
            process.cpu_seconds,
        )?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory of the agent that is resident", process.resident_bytes),
            ("process_virtual_memory_bytes", "Address space of the agent", process.virtual_bytes),
            ("process_open_fds", "File descriptors that the agent has open", process.open_fds),
            ("process_max_fds", "File descriptors that the agent may have open", process.max_fds),
            ("process_threads", "Threads of the agent", process.threads),
        ] {
            self.gauge(name, help, value)?;
        }
        Ok(())
    }
}
