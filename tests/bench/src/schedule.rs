//! The order in which the flows come.

use std::fmt::{self, Display, Formatter};

use bench_ebpf::SCHEDULE_ENTRIES;
use serde::Serialize;

/// How often a flow comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Popularity {
    /// Every flow as often as any other.
    Uniform,
    /// The flow of rank k once for every k times that the first comes: Zipf's law with exponent 1.
    Zipf,
}

impl Display for Popularity {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Uniform => "uniform",
            Self::Zipf => "Zipf(1.0)",
        })
    }
}

/// Source address in the lower, ports in the upper half of each entry.
pub struct Schedule {
    /// As many as fit; the wrapper starts again at the end.
    pub entries: Vec<u64>,
    /// Different flows among them.
    pub distinct: u64,
}

impl Schedule {
    /// `packets` packets of `flows` flows, each drawn independently of the others, and again. Where
    /// there are as many flows as entries, each comes once.
    #[must_use]
    pub fn drawn(flows: u64, popularity: Popularity, packets: u32) -> Self {
        if flows >= u64::from(SCHEDULE_ENTRIES) {
            return Self::each_once(0, flows);
        }
        let mut random = SplitMix(0x6d69_6e69);
        let weights = match popularity {
            Popularity::Uniform => Vec::new(),
            Popularity::Zipf => cumulative_zipf(flows),
        };
        let mut seen = vec![false; usize::try_from(flows).unwrap_or(usize::MAX)];
        let mut distinct = 0;
        let draw = |_| {
            let flow = match popularity {
                Popularity::Uniform => random.below(flows),
                Popularity::Zipf => {
                    let point = random.fraction() * weights.last().copied().unwrap_or(0.0);
                    (weights.partition_point(|weight| *weight <= point) as u64).min(flows - 1)
                }
            };
            let seen = &mut seen[usize::try_from(flow).unwrap_or(usize::MAX)];
            distinct += u64::from(!std::mem::replace(seen, true));
            entry(flow)
        };
        let order: Vec<u64> = (0..packets.min(SCHEDULE_ENTRIES)).map(draw).collect();
        let entries = order.into_iter().cycle().take(SCHEDULE_ENTRIES as usize).collect();
        Self { entries, distinct }
    }

    /// `flows` flows from number `first` on, each once, in random order, and again.
    #[must_use]
    pub fn each_once(first: u64, flows: u64) -> Self {
        // `entry` has no order; the flows themselves need none.
        let flows = flows.min(u64::from(SCHEDULE_ENTRIES));
        let entries = (first..first + flows).cycle().take(SCHEDULE_ENTRIES as usize).map(entry).collect();
        Self { entries, distinct: flows }
    }

    /// The same packets in another order, to fill tables with: the elements of a hash lie in memory in the
    /// order of their insertion, and the processor would fetch ahead what comes in the same order again.
    #[must_use]
    pub fn reordered(&self) -> Self {
        /// Odd, so that it reaches every entry, of every period that is a power of two.
        const STRIDE: usize = 0x9e37_79b1;
        let count = self.entries.len();
        let entries = (0..count).map(|index| self.entries[index * STRIDE % count]).collect();
        Self { entries, distinct: self.distinct }
    }
}

/// Sums of 1/1, 1/2, … 1/`flows`.
fn cumulative_zipf(flows: u64) -> Vec<f64> {
    let mut sum = 0.0;
    (1..=flows)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect()
}

/// The entry of a flow: what tells it from others. No IPv4 source begins with a 1: a policy with pseudonyms does not collect 240.0.0.0/4.
const fn entry(flow: u64) -> u64 {
    mix(flow) & !0x80
}

/// Scrambles a number; different numbers stay different.
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// SplitMix64: random enough for an order, and the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    const fn below(&mut self, bound: u64) -> u64 {
        // The bias is below bound / 2^64.
        self.next() % bound
    }

    /// At least 0 and below 1.
    const fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{Popularity, Schedule, entry};
    use bench_ebpf::SCHEDULE_ENTRIES;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn schedules_know_their_flows() {
        let all = SCHEDULE_ENTRIES;
        for schedule in [
            Schedule::drawn(1, Popularity::Uniform, all),
            Schedule::drawn(1000, Popularity::Uniform, 900),
            Schedule::drawn(1000, Popularity::Zipf, 900),
            Schedule::each_once(7, 1000),
        ] {
            assert_eq!(schedule.entries.len(), all as usize);
            let flows: BTreeSet<u64> = schedule.entries[..1 << 16].iter().copied().collect();
            assert_eq!(flows.len() as u64, schedule.distinct);
        }
        let reordered = Schedule::drawn(1000, Popularity::Uniform, 1 << 16).reordered();
        let flows: BTreeSet<u64> = reordered.entries[..1 << 16].iter().copied().collect();
        assert_eq!(flows.len() as u64, reordered.distinct, "one period holds every flow");
        let uniform = Schedule::drawn(1 << 20, Popularity::Uniform, all);
        assert!(uniform.distinct > 1_000_000, "four packets per flow miss 1.8 % of the flows");
        assert_eq!(Schedule::drawn(1 << 22, Popularity::Uniform, all).distinct, 1 << 22);
    }

    #[test]
    fn the_first_of_zipf_comes_twice_as_often_as_the_second() {
        const PACKETS: u32 = 1 << 18;
        let schedule = Schedule::drawn(1000, Popularity::Zipf, PACKETS);
        let mut counts = BTreeMap::new();
        for entry in &schedule.entries[..PACKETS as usize] {
            *counts.entry(*entry).or_insert(0_u32) += 1;
        }
        let count = |rank: u64| f64::from(counts[&entry(rank - 1)]);
        // The sum of 1/1 … 1/1000 is 7.485.
        assert!((count(1) / f64::from(PACKETS) * 7.485 - 1.0).abs() < 0.02);
        for rank in [2, 3, 10] {
            assert!((count(1) / count(rank) / rank as f64 - 1.0).abs() < 0.08, "rank {rank}");
        }
    }
}
