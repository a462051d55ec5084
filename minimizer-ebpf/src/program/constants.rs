//! The constants that the agent writes into the program before it loads it.

use minimizer_common::plan::Plan;
use minimizer_common::settings::Settings;
use minimizer_common::tables::Roots;

/// The settings of the agent.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    hash_keys: [0; _],
    plan: Plan::EXACT,
    time_unit_ns: 1,
    tick_ns: 1,
    run_blocks: 0,
    table_mask: 0,
    residual_block: 0,
    spill_halves: 0,
    value: 0,
    clock: 0,
    frame_length: 0,
    tunnels: 0,
    way: 0,
    reserved: 0,
};

/// The first look-up of every address.
#[unsafe(no_mangle)]
pub static ROOTS: Roots = Roots { ipv4_classes: [0; _], ipv4: [0; _], ipv6: [0; _] };

/// Reads one constant. The read is volatile, so that the compiler does not assume the value in this file.
macro_rules! setting {
    ($($field:tt)+) => {
        // SAFETY: reads a constant of this program.
        unsafe { ::core::ptr::read_volatile(&raw const $crate::program::constants::SETTINGS.$($field)+) }
    };
}

pub(crate) use setting;
