//! What is clearly above chance.

use std::f64::consts::E;

/// A result counts as above chance if chance gives it at most once in 10^12 times.
const ONE_IN: f64 = 1e12;
/// Standard deviations of a normal distribution beyond which chance gets once in 10^12 times.
const DEVIATIONS: f64 = 7.2;
/// Fewer pairs of ranks say nothing.
const RANKS_MIN: usize = 60;

/// Whether this many hits in so many attempts are clearly above a chance, by Chernoff's bound on the sum of independent attempts:
/// P(hits) is at most exp(-attempts * D), where D is the relative entropy of the rate found and the chance.
///
/// The attempts at one batch share a permutation, and so depend on each other. The number of its fixed points has the same tail up to
/// a small factor (at most 1/h! for h hits), which one in 10^12 leaves room for.
#[must_use]
pub fn is_above(hits: usize, attempts: usize, chance: f64) -> bool {
    if attempts == 0 || chance >= 1.0 {
        return false;
    }
    let rate = hits as f64 / attempts as f64;
    if rate <= chance {
        return false;
    }
    if chance <= 0.0 {
        return true;
    }
    let part = |found: f64, expected: f64| if found > 0.0 { found * (found / expected).ln() } else { 0.0 };
    let entropy = part(rate, chance) + part(1.0 - rate, 1.0 - chance);
    attempts as f64 * entropy > ONE_IN.log(E)
}

/// Spearman's rank correlation of pairs of places, each place once; `None` if there are too few.
#[must_use]
pub fn correlation(pairs: &[(usize, usize)]) -> Option<f64> {
    if pairs.len() < RANKS_MIN {
        return None;
    }
    let ranks = |of: fn(&(usize, usize)) -> usize| {
        let mut order: Vec<_> = (0..pairs.len()).collect();
        order.sort_by_key(|number| of(&pairs[*number]));
        let mut ranks = vec![0.0; pairs.len()];
        for (rank, number) in order.into_iter().enumerate() {
            ranks[number] = rank as f64;
        }
        ranks
    };
    let squares: f64 =
        ranks(|pair| pair.0).iter().zip(ranks(|pair| pair.1)).map(|(one, other)| (one - other).powi(2)).sum();
    let count = pairs.len() as f64;
    Some(1.0 - 6.0 * squares / (count * (count * count - 1.0)))
}

/// Whether a rank correlation of so many pairs is clearly another than that of chance, whose deviation is one over the root of
/// their number.
#[must_use]
pub fn is_correlated(correlation: f64, pairs: usize) -> bool {
    correlation.abs() * (pairs as f64 - 1.0).sqrt() > DEVIATIONS
}

#[cfg(test)]
mod tests {
    use super::{correlation, is_above, is_correlated};

    #[test]
    fn what_chance_gives_is_not_above_it() {
        for (hits, attempts, chance, above) in [
            (0, 100, 0.0, false),
            (1, 100, 0.0, true),
            (60, 100, 0.5, false),
            (100, 100, 0.5, true),
            (5, 250, 1.0 / 250.0, false),
            (25, 250, 1.0 / 250.0, true),
            (100, 100, 1.0, false),
            (0, 0, 0.1, false),
        ] {
            assert_eq!(is_above(hits, attempts, chance), above, "{hits} of {attempts}, {chance}");
        }
    }

    #[test]
    fn orders_are_told_from_chance() {
        let same: Vec<_> = (0..300).map(|place| (place, 3 * place + 1)).collect();
        let found = correlation(&same).expect("enough");
        assert!((found - 1.0).abs() < 1e-9 && is_correlated(found, same.len()));
        let back: Vec<_> = (0..300).map(|place| (place, 300 - place)).collect();
        assert!(is_correlated(correlation(&back).expect("enough"), back.len()));
        let spread: Vec<_> = (0..300).map(|place| (place, place * 7919 % 300)).collect();
        assert!(!is_correlated(correlation(&spread).expect("enough"), spread.len()));
        assert_eq!(correlation(&same[..10]), None);
    }
}
