//! The clocks that the agent and the kernel program must agree on.

use std::fmt::Debug;

use rustix::time::{ClockId, clock_getres, clock_gettime};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_SECOND: u64 = 1_000_000_000;
/// Readings of the two clocks, of which the closest pair counts: the scheduler may come between any two calls.
const READINGS: usize = 3;

/// Where the agent reads the time. Tests give it clocks that they can set.
pub trait Clocks: Debug + Send + Sync {
    /// The wall clock: nanoseconds since 1970. Anybody with the privilege can set it.
    fn realtime_ns(&self) -> u64;
    /// The clock that the kernel program reads. Nobody can set it, and it stands still while the machine is suspended.
    fn monotonic_ns(&self) -> u64;
    /// Time since the machine was booted. Nobody can set it, and it runs on while the machine is suspended.
    fn boottime_ns(&self) -> u64;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClocks;

impl Clocks for SystemClocks {
    fn realtime_ns(&self) -> u64 {
        realtime_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        nanoseconds(clock_gettime(ClockId::Monotonic))
    }

    fn boottime_ns(&self) -> u64 {
        nanoseconds(clock_gettime(ClockId::Boottime))
    }
}

/// Nanoseconds since 1970.
#[must_use]
pub fn realtime_ns() -> u64 {
    let real = nanoseconds(clock_gettime(ClockId::Realtime));
    if cfg!(debug_assertions) { real.saturating_add_signed(planted_ns()) } else { real }
}

/// What tests add to the wall clock of the agent itself, in nanoseconds, in a file that they may change at any time: the wall
/// clock of the machine belongs to everybody. Release builds have nothing of it.
fn planted_ns() -> i64 {
    let planted =
        std::env::var_os("MINIMIZER_PLANTED_CLOCK").and_then(|path| std::fs::read_to_string(path).ok());
    planted.and_then(|planted| planted.trim().parse().ok()).unwrap_or(0)
}

/// Milliseconds since 1970.
#[must_use]
pub fn realtime_ms() -> u64 {
    realtime_ns() / NS_PER_MS
}

/// What must be added to the monotonic clock, which the kernel program reads, to get wall-clock time. The sum wraps.
#[must_use]
pub fn realtime_offset_ns(clocks: &dyn Clocks) -> u64 {
    let read = || {
        let before = clocks.monotonic_ns();
        let wall = clocks.realtime_ns();
        (clocks.monotonic_ns().saturating_sub(before), wall.wrapping_sub(before))
    };
    let first = read();
    (1..READINGS).map(|_| read()).fold(first, std::cmp::min).1
}

/// Length of the kernel's timer tick: the resolution of its coarse clocks.
#[must_use]
pub fn tick_ns() -> u64 {
    nanoseconds(clock_getres(ClockId::MonotonicCoarse)).max(1)
}

fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NS_PER_SECOND).saturating_add(nanoseconds)
}
