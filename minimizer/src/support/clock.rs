//! The clocks that the agent and the kernel program must agree on.

use rustix::time::{ClockId, clock_getres, clock_gettime};

const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Nanoseconds since 1970.
#[must_use]
pub fn realtime_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// Milliseconds since 1970.
#[must_use]
pub fn realtime_ms() -> u64 {
    realtime_ns() / NS_PER_MS
}

/// What to add to the monotonic clock, which the kernel program reads, for wall-clock time.
#[must_use]
pub fn realtime_offset_ns() -> u64 {
    let monotonic = nanoseconds(clock_gettime(ClockId::Monotonic));
    realtime_ns().saturating_sub(monotonic)
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
