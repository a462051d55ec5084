//! The order in which the records of a view leave: drawn anew for each view of each batch.
//!
//! The kernel's table keeps flows in the order of a keyed hash, which lasts as long as its program. Line by line, it would join the
//! views of two recipients, and a subscriber's pseudonyms of one epoch with those of the next. A random order joins nothing.

use rand::SeedableRng as _;
use rand::rngs::ChaCha12Rng;
use rand::seq::SliceRandom as _;

/// Positions of records, each once, in an order that nobody can tell in advance or find out afterwards.
#[derive(Debug)]
pub struct Order(Box<[u32]>);

impl Order {
    /// A fresh order of so many records.
    ///
    /// # Panics
    /// When the system gives no random numbers, or for more than four billion records, for which there is no memory.
    #[must_use]
    pub fn random(records: usize) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system gave random numbers when the program was loaded");
        let records = u32::try_from(records).expect("there is no memory for four billion records");
        let mut positions: Box<[u32]> = (0..records).collect();
        positions.shuffle(&mut ChaCha12Rng::from_seed(seed));
        Self(positions)
    }

    /// The positions.
    #[must_use]
    pub fn positions(&self) -> &[u32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn every_position_is_there_once_and_the_order_is_another_each_time() {
        let orders = [0, 1].map(|_| Order::random(1000));
        for order in &orders {
            let mut sorted = order.positions().to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..1000));
        }
        assert_ne!(orders[0].positions(), orders[1].positions());
        assert!(Order::random(0).positions().is_empty());
    }
}
