//! Tallies: how many records, and what they count.

use minimizer_common::generation::Counts;
use serde::{Deserialize, Serialize};

/// Records, and the packets and IP octets that are counted in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Packets.
    pub packets: u64,
    /// IP octets.
    pub octets: u64,
}

impl Tally {
    /// This many records, which count these packets and octets.
    #[must_use]
    pub fn new(records: usize, counts: Counts) -> Self {
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        Self { records, packets: counts.packets, octets: counts.octets }
    }

    /// Packets and octets.
    #[must_use]
    pub const fn counts(self) -> Counts {
        Counts { packets: self.packets, octets: self.octets }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// A portion of a batch as its recipient gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Portion {
    /// Records with their keys.
    pub(super) records: Tally,
    /// The record without keys that stands for what was held back.
    pub(super) suppressed: Tally,
}

impl Portion {
    pub(super) fn add(&mut self, other: Self) {
        self.records.add(other.records);
        self.suppressed.add(other.suppressed);
    }

    /// Both together.
    pub(super) fn sum(self) -> Tally {
        let mut sum = self.records;
        sum.add(self.suppressed);
        sum
    }
}
