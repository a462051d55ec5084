//! When the flow tables get more room: receive queues put more flows on a CPU than its share.

use tracing::{info, warn};

use crate::kernel::error::ProgramError;
use crate::kernel::program::Program;
use crate::records::drain::Occupancy;

/// Whether tables can grow, and what was told of that.
#[derive(Debug, Default)]
pub(super) struct TableGrowth {
    is_told: bool,
    is_refused: bool,
}

impl TableGrowth {
    /// The kernel did not take the larger tables. It is not asked again.
    pub(super) fn refused(&mut self, error: &ProgramError) {
        self.is_refused = true;
        warn!("the program with larger tables cannot be put in place: {error}");
    }

    /// A program with larger tables, if a CPU has used up its own and `--flows` promises more.
    pub(super) fn larger(
        &mut self,
        occupancy: &Occupancy,
        program: &Program,
    ) -> Option<Result<Program, ProgramError>> {
        if self.is_refused || !occupancy.is_tight() {
            return None;
        }
        let Occupancy { fullest_cpu, slots_per_cpu, slots_used_max, slots_used, .. } = occupancy;
        let used = format!(
            "CPU {fullest_cpu} used {slots_used_max} of its {slots_per_cpu} slots, all CPUs together {slots_used}"
        );
        match program.room().larger(program.compiled().memory) {
            Ok(Some(flows)) => {
                info!("{used}: receive queues are uneven, so each CPU gets a table for {flows} flows");
                Some(program.load_again(flows))
            }
            // More cannot be had: say it when packets have found no room.
            _ if self.is_told || !occupancy.is_full() => None,
            Ok(None) => {
                self.is_told = true;
                let flows = program.flows_per_cpu();
                warn!(
                    "{used}, and its spill log is full: packets without room are counted as overflow, without records; each \
                     CPU has room for {flows} flows, restart with a larger --flows or --flows-per-cpu"
                );
                None
            }
            Err(error) => {
                self.is_told = true;
                warn!(
                    "{used}, and its spill log is full: packets without room are counted as overflow; {error}"
                );
                None
            }
        }
    }
}
