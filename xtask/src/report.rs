//! The closing table of a run with several steps.

use std::iter::Sum;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How the checks of a step ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Checks that could not run. Each one has printed the reason.
    pub skipped: u64,
}

impl Tally {
    /// A step that is one check, and passed.
    pub const ONE: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// A check that failed.
    pub const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };
    /// A check that could not run.
    pub const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            passed: sum.passed + tally.passed,
            failed: sum.failed + tally.failed,
            skipped: sum.skipped + tally.skipped,
        })
    }
}

/// The steps that ran, with their results and durations.
#[derive(Default)]
pub struct Report {
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    tally: Tally,
    took: Duration,
}

impl Report {
    /// Runs a step. It prints and counts a failure, and the later steps still run, so that one run shows
    /// everything that is broken.
    pub fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<Tally>) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let tally = step().unwrap_or_else(|error| {
            eprintln!("{name}: {error:#}");
            Tally::FAILED
        });
        self.steps.push(Step { name, tally, took: start.elapsed() });
    }

    /// The sum of all steps.
    pub fn total(&self) -> Tally {
        self.steps.iter().map(|step| step.tally).sum()
    }

    /// The table, with the sums as its last line.
    pub fn table(&self) -> String {
        let mut table = format!("\n{:<16} {:>7} {:>7} {:>9}\n", "step", "passed", "failed", "took");
        for Step { name, tally, took } in &self.steps {
            let seconds = took.as_secs_f64();
            table += &format!("{name:<16} {:>7} {:>7} {seconds:>7.1} s\n", tally.passed, tally.failed);
        }
        let Tally { passed, failed, skipped } = self.total();
        table += &format!("\n{passed} passed, {failed} failed");
        if skipped > 0 {
            table += &format!(", {skipped} skipped: see above");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::{Report, Tally};

    #[test]
    fn the_last_line_sums_up_and_an_error_is_a_failure() {
        let mut report = Report::default();
        report.step("tests", || Ok(Tally { passed: 40, failed: 2, skipped: 0 }));
        report.step("formatting", || Ok(Tally::ONE));
        report.step("lints", || bail!("as expected by this test"));
        assert_eq!(report.total(), Tally { passed: 41, failed: 3, skipped: 0 });
        assert_eq!(report.table().lines().last(), Some("41 passed, 3 failed"));
        report.step("kernels", || Ok(Tally::SKIPPED));
        assert_eq!(report.table().lines().last(), Some("41 passed, 3 failed, 1 skipped: see above"));
    }
}
