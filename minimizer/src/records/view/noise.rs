//! Noise at a threshold: without it, whoever makes all but one of its sources sees whether there was another one.
//!
//! It is drawn anew in each batch, and the same for all sinks of the batch: a draw that is repeated could be averaged out, and one
//! that lasts could be found and then used as a threshold without noise.

use std::hash::{BuildHasher as _, RandomState};

use crate::policy::field::Field;
use crate::records::merge::Flow as _;
use crate::records::record::Record;

/// The draws of a batch: a keyed hash of each record's key.
#[derive(Clone, Debug)]
pub struct Noise(RandomState);

impl Noise {
    /// Fresh draws.
    #[must_use]
    pub fn fresh() -> Self {
        Self(RandomState::new())
    }

    /// By how much the threshold of this record is higher: each number up to `most` is as likely as any other.
    pub(super) fn above(&self, record: &Record, most: u32) -> u32 {
        let draw = self.0.hash_one((record.key(), 0_u8)) % (u64::from(most) + 1);
        u32::try_from(draw).unwrap_or(most)
    }

    /// A count as a power of two: the next lower or the next higher one. The nearer the count is to the higher one, in powers of two,
    /// the likelier that is, so that one more packet makes little difference anywhere.
    pub(super) fn power_of_two(&self, record: &Record, field: Field, count: u64) -> u64 {
        let Some(lower) = count.checked_ilog2().map(|log2| 1_u64 << log2) else { return 0 };
        let draw = self.0.hash_one((record.key(), 1 + field as u8));
        // The upper 53 bits make a number from 0 to 1, without 1.
        let draw = (draw >> 11) as f64 / (1_u64 << 53) as f64;
        let is_upper = (count as f64 / lower as f64).log2() + draw >= 1.0;
        if is_upper { lower.checked_mul(2).unwrap_or(lower) } else { lower }
    }
}
