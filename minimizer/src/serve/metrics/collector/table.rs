//! How full the flow tables were at the last drain.

use std::fmt;

use super::Families;
use crate::serve::snapshot::Snapshot;

impl Families<'_> {
    pub(super) fn table(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let occupancy = &snapshot.occupancy;
        for (name, help, value) in [
            ("minimizer_table_slots", "Slots of the flow table, all CPUs", occupancy.slots),
            (
                "minimizer_table_slots_used",
                "Slots in use when the last generation was drained, all CPUs",
                occupancy.slots_used,
            ),
            ("minimizer_table_spill_entries", "Entries of the spill log, all CPUs", occupancy.spill),
            (
                "minimizer_table_spill_entries_used",
                "Spill log entries in use when the last generation was drained, all CPUs",
                occupancy.spill_used,
            ),
            ("minimizer_table_cpu_slots", "Slots of the flow table of one CPU", occupancy.slots_per_cpu),
            (
                "minimizer_table_cpu_slots_used_max",
                "Slots in use when the last generation was drained, on the CPU that used most",
                occupancy.slots_used_max,
            ),
            (
                "minimizer_table_cpu_spill_entries",
                "Entries of the spill log of one CPU",
                occupancy.spill_per_cpu,
            ),
            (
                "minimizer_table_cpu_spill_entries_used_max",
                "Spill log entries in use when the last generation was drained, on the CPU that used most",
                occupancy.spill_used_max,
            ),
            (
                "minimizer_table_memory_bytes",
                "Memory of the flow tables, all CPUs and generations",
                snapshot.table_bytes,
            ),
        ] {
            self.gauge(name, help, value)?;
        }
        Ok(())
    }
}
