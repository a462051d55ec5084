//! Median and range of repeated measurements.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

/// What is reported of one figure's runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    ///
    /// # Panics
    /// Without values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    /// The same in another unit.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        let Self { median, min, max } = self;
        Self { median: median * factor, min: min * factor, max: max * factor }
    }
}

impl Display for Spread {
    /// The median, with the smallest and the largest in brackets.
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let decimals = out.precision().unwrap_or(1);
        let Self { median, min, max } = self;
        let text = format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})");
        let width = out.width().unwrap_or(0);
        write!(out, "{text:>width$}")
    }
}

/// Round by round, what is left of one series without another.
#[must_use]
pub fn difference(gross: &[f64], base: &[f64]) -> Vec<f64> {
    gross.iter().zip(base).map(|(gross, base)| gross - base).collect()
}

/// Round by round, one series as a share of another.
#[must_use]
pub fn ratio(ours: &[f64], other: &[f64]) -> Spread {
    Spread::of(ours.iter().zip(other).map(|(ours, other)| ours / other))
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn a_spread_is_padded_as_a_whole() {
        let spread = Spread::of([1.0, 2.0, 4.0]);
        assert_eq!(format!("{spread:>16.1}"), "   2.0 (1.0–4.0)");
        assert_eq!(format!("{spread:.2}"), "2.00 (1.00–4.00)");
    }

    #[test]
    fn the_median_does_not_see_an_outlier() {
        let spread = Spread::of([3.0, 1.0, 900.0]);
        assert_eq!(spread, Spread { median: 3.0, min: 1.0, max: 900.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
