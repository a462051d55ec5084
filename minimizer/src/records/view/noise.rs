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

#[cfg(test)]
mod tests {
    use minimizer_common::tuple::{Tags, Tuple};

    use super::Noise;
    use crate::policy::field::Field;
    use crate::records::record::Record;
    use crate::records::view::threshold::NO_FLOW;

    const DRAWS: usize = 4000;

    fn record(port: u16) -> Record {
        Record { tuple: Tuple::new([0; 4], (0, port), Tags::NONE, 17, 0), ..NO_FLOW }
    }

    /// The share of fresh draws of which this is true.
    fn share(is_so: impl Fn(&Noise) -> bool) -> f64 {
        (0..DRAWS).filter(|_| is_so(&Noise::fresh())).count() as f64 / DRAWS as f64
    }

    #[test]
    fn every_number_up_to_the_most_is_as_likely() {
        for number in 0..=4 {
            let share = share(|noise| noise.above(&record(53), 4) == number);
            assert!((share - 0.2).abs() < 0.04, "{number}: {share}");
        }
        assert!(share(|noise| noise.above(&record(53), 0) == 0) == 1.0);
        let noise = Noise::fresh();
        let of = |port| noise.above(&record(port), 1000);
        assert_eq!(of(53), of(53), "all sinks of a batch see the same");
        assert!((1..100).any(|port| of(port) != of(53)), "each record has a draw of its own");
    }

    #[test]
    fn one_packet_more_never_makes_much_of_a_difference() {
        let of = |noise: &Noise, count| noise.power_of_two(&record(53), Field::PacketDeltaCount, count);
        for (count, power) in [(0, 0), (1, 1), (64, 64), (u64::MAX, 1 << 63)] {
            assert!(share(|noise| of(noise, count) == power) == 1.0, "{count}");
        }
        // Rounded down, 127 and 128 packets would be 64 and 128.
        let mut before = 0.0;
        for count in [64, 90, 127, 128] {
            let upper = share(|noise| of(noise, count) == 128);
            let expected = (f64::from(u32::try_from(count).expect("small")) / 64.0).log2();
            assert!((upper - expected).abs() < 0.04, "{count}: {upper} and not {expected}");
            assert!(upper >= before, "{count}");
            assert!(share(|noise| [64, 128].contains(&of(noise, count))) == 1.0);
            before = upper;
        }
        let noise = Noise::fresh();
        assert!(
            (65..128).all(|count| of(&noise, count) <= of(&noise, count + 1)),
            "more is never told as less"
        );
    }
}
