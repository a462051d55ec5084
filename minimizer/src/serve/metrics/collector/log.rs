//! What the agent's log lost.

use std::fmt;

use super::Families;

impl Families<'_> {
    pub(super) fn log(&mut self, lines_lost: u64) -> fmt::Result {
        self.counter(
            "minimizer_log_lines_dropped_total",
            "Lines of the log that were lost because nobody read them, or not fast enough",
            lines_lost,
        )
    }
}
