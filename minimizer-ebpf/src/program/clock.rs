//! The time of a packet: from the kernel's tick, or from the agent.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use minimizer_common::generation::{CpuState, InterfaceCounters};
use minimizer_common::plan::Steps;
use minimizer_common::settings::{CLOCK_CONTROL, CLOCK_NONE, Control, clock};

use crate::program::constants::setting;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// When a packet arrived.
#[derive(Clone, Copy)]
pub struct Time {
    /// Time units since the base.
    pub units: u32,
    /// Seconds since 1970; known only if the policy has selectors.
    pub seconds: u32,
}

/// The time of a packet. The precise clock stops the processor from overlapping cache misses. The program
/// therefore reads it only near the end of a time unit, at most once per tick, and uses the remembered time
/// in between. If the policy has selectors, it also reads the clock near the end of every second, since
/// indicators expire.
///
/// The offset of the wall clock and the base of the units belong to the generation: the program loads them only when
/// it reads the precise clock. A time outside of what a slot can store becomes the nearest one that it can.
#[inline(always)]
pub fn now(counters: &mut InterfaceCounters, state: &CpuState, control: &Control) -> Time {
    let clock = setting!(clock);
    if clock == CLOCK_NONE {
        return Time { units: 0, seconds: 0 };
    }
    if clock == CLOCK_CONTROL {
        return read(control.clock);
    }
    // SAFETY: the helper has no arguments.
    let tick = unsafe { bpf_jiffies64() };
    if tick >= counters.clock_until_tick {
        remember(counters, state, tick);
    }
    read(counters.clock)
}

/// Reads the precise clock, and remembers its time and until which tick it holds. A function of its own, because it runs
/// rarely and would cost its caller stack, of which all functions together have 512 octets.
#[inline(never)]
fn remember(counters: &mut InterfaceCounters, state: &CpuState, tick: u64) {
    // SAFETY: the helper has no arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() }.wrapping_add(state.realtime_offset_ns);
    let unit_ns = setting!(time_unit_ns);
    let units = now_ns.checked_div(unit_ns).unwrap_or(0);
    let mut left_ns = (units + 1) * unit_ns - now_ns;
    let mut seconds = 0;
    if Steps(setting!(plan.steps)).intersects(Steps::SELECT) {
        seconds = now_ns / NS_PER_SECOND;
        left_ns = left_ns.min((seconds + 1) * NS_PER_SECOND - now_ns);
    }
    let units = saturated(units.saturating_sub(state.time_base_units));
    counters.clock = clock(units, saturated(seconds));
    counters.clock_until_tick = tick + 1 + left_ns.checked_div(setting!(tick_ns)).unwrap_or(0);
}

#[inline(always)]
const fn saturated(value: u64) -> u32 {
    if value > u32::MAX as u64 { u32::MAX } else { value as u32 }
}

/// The time in the word of [`clock`].
#[inline(always)]
pub const fn read(clock: u64) -> Time {
    Time { units: clock as u32, seconds: (clock >> 32) as u32 }
}
