//! Clocks of this machine, of which a test sets the wall clock.

use std::sync::atomic::{AtomicI64, Ordering};

use minimizer::support::clock::{Clocks, SystemClocks};

/// The wall clock is so far ahead of the machine's.
#[derive(Debug, Default)]
pub struct SetClocks(AtomicI64);

impl SetClocks {
    /// Sets the wall clock to so many seconds ahead of the machine's, or behind it.
    pub fn set_ahead(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Clocks for SetClocks {
    fn realtime_ns(&self) -> u64 {
        let ahead_ns = self.0.load(Ordering::Relaxed).saturating_mul(1_000_000_000);
        SystemClocks.realtime_ns().saturating_add_signed(ahead_ns)
    }

    fn monotonic_ns(&self) -> u64 {
        SystemClocks.monotonic_ns()
    }

    fn boottime_ns(&self) -> u64 {
        SystemClocks.boottime_ns()
    }
}
