//! Whether there is memory for the tables, which the kernel takes without asking what else needs it.

use std::fs;

use super::packets::EVERY_CONTENDER_FLOWS;

/// Octets for each slot of all tables of a row: the real program's two generations on every CPU, two hashes
/// with their elements on every CPU, and two arrays.
const OCTETS_PER_SLOT: u64 = 896;
/// The same for the other build's program.
const OCTETS_PER_SLOT_BESIDE: u64 = 320;
/// The same with the four hashes that are left out among very many flows.
const OCTETS_PER_SLOT_OF_EVERY: u64 = 1536;

/// Checks that tables for so many flows leave memory free.
///
/// # Errors
/// Says what is missing.
pub fn is_enough_for(flows: u64, has_beside: bool) -> Result<(), String> {
    let own = if flows <= EVERY_CONTENDER_FLOWS { OCTETS_PER_SLOT_OF_EVERY } else { OCTETS_PER_SLOT };
    let octets = own + if has_beside { OCTETS_PER_SLOT_BESIDE } else { 0 };
    let needed = flows.next_power_of_two() * 2 * octets;
    let Some(available) = available() else { return Ok(()) };
    if needed <= available / 4 * 3 {
        return Ok(());
    }
    Err(format!("it takes some {} MiB of memory, {} MiB are available", needed >> 20, available >> 20))
}

fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}
