//! What one drain of a program finds, as records.

use minimizer::kernel::error::ProgramError;
use minimizer::kernel::program::Program;
use minimizer::records::drain::{Totals, drain};
use minimizer::records::packed::{Packing, SlotDecoder};
use minimizer::records::record::Record;

/// Flips the generations and drains the quiet one. `if_indices` has the index of the interface in each interface slot.
///
/// # Errors
/// What the kernel answers to the flip.
pub fn drained(program: &mut Program, if_indices: &[u32]) -> Result<(Vec<Record>, Totals), ProgramError> {
    let decoder = SlotDecoder::new(program.compiled(), program.time(), if_indices);
    let mut quiet = program.generations().flip()?;
    let (packed, totals) = drain(&mut quiet, &mut Packing::default(), decoder);
    Ok((packed.iter().collect(), totals))
}
