//! The wall clock of one generation: every time in a generation is by one clock, whoever sets the clock meanwhile.

use crate::support::clock::{Clocks, realtime_offset_ns};

const NS_PER_MS: u64 = 1_000_000;
/// Two readings of one clock differ by the time that the calls take. A smaller step than this one is none, so that
/// consecutive generations have exactly the same clock unless somebody sets it.
const STEP_MIN_NS: u64 = NS_PER_MS;

/// The time units that a program stores: distances from a base.
#[derive(Clone, Copy, Debug)]
pub struct TimeUnits {
    /// The time unit, counted from 1970, that a slot stores as 0.
    pub base: u64,
    /// Length of a unit.
    pub unit_ms: u64,
}

impl TimeUnits {
    /// Milliseconds since 1970 at the beginning of a stored time unit.
    #[must_use]
    pub const fn milliseconds(self, units: u32) -> u64 {
        (self.base + units as u64) * self.unit_ms
    }
}

/// How a generation turns the monotonic clock into time units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// Wall clock minus monotonic clock; the sum wraps.
    pub realtime_offset_ns: u64,
    /// The time unit, counted from 1970, that a slot stores as 0.
    pub base_units: u64,
}

impl WallClock {
    /// The clock of a generation that begins now. The monotonic clock never goes back, so that no packet of the
    /// generation comes before the base. `before` is the clock of the generation before.
    #[must_use]
    pub fn now(clocks: &dyn Clocks, unit_ns: u64, before: Self) -> Self {
        let monotonic_ns = clocks.monotonic_ns();
        let read_ns = realtime_offset_ns(clocks);
        let step_ns = read_ns.wrapping_sub(before.realtime_offset_ns);
        let is_step = step_ns.min(step_ns.wrapping_neg()) >= STEP_MIN_NS;
        let realtime_offset_ns = if is_step { read_ns } else { before.realtime_offset_ns };
        let base_units = monotonic_ns.wrapping_add(realtime_offset_ns).checked_div(unit_ns).unwrap_or(0);
        Self { realtime_offset_ns, base_units }
    }

    /// Milliseconds since 1970 by this clock.
    #[must_use]
    pub const fn milliseconds(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.wrapping_add(self.realtime_offset_ns) / NS_PER_MS
    }
}

#[cfg(test)]
mod tests {
    use super::WallClock;
    use crate::support::clock::Clocks;

    const SECOND: u64 = 1_000_000_000;

    #[derive(Debug)]
    struct Fixed {
        realtime_ns: u64,
        monotonic_ns: u64,
    }

    impl Clocks for Fixed {
        fn realtime_ns(&self) -> u64 {
            self.realtime_ns
        }

        fn monotonic_ns(&self) -> u64 {
            self.monotonic_ns
        }

        fn boottime_ns(&self) -> u64 {
            self.monotonic_ns
        }
    }

    #[test]
    fn a_generation_has_the_clock_of_its_beginning() {
        let clocks = |realtime, monotonic| Fixed { realtime_ns: realtime, monotonic_ns: monotonic };
        let first = WallClock::now(&clocks(5000 * SECOND, 100 * SECOND), SECOND, WallClock::default());
        assert_eq!(first, WallClock { realtime_offset_ns: 4900 * SECOND, base_units: 5000 });
        // Less than a millisecond is no step.
        let second = WallClock::now(&clocks(5010 * SECOND + 999_999, 110 * SECOND), SECOND, first);
        assert_eq!(second, WallClock { base_units: 5010, ..first });
        let second = WallClock::now(&clocks(5010 * SECOND - 999_999, 110 * SECOND), SECOND, first);
        assert_eq!(second, WallClock { base_units: 5010, ..first });
        let back = WallClock::now(&clocks(1000 * SECOND, 120 * SECOND), SECOND, second);
        assert_eq!(back, WallClock { realtime_offset_ns: 880 * SECOND, base_units: 1000 });
        assert_eq!(back.milliseconds(121 * SECOND), 1_001_000);
        // Linux keeps the wall clock from falling behind the monotonic clock; the sum would still be right.
        let early = WallClock::now(&clocks(7 * SECOND, 130 * SECOND), SECOND, back);
        assert_eq!((early.base_units, early.milliseconds(131 * SECOND)), (7, 8000));
    }
}
