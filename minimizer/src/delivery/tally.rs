//! Tallies: how many records, and what they count.

use minimizer_common::generation::Counts;
use serde::{Deserialize, Serialize};

use crate::policy::transform::log2;

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

    /// Takes as much of `left` as the tally has at most, and leaves the rest.
    pub(super) fn part_of(self, left: &mut Self) -> Self {
        let part = Self {
            records: self.records.min(left.records),
            packets: self.packets.min(left.packets),
            octets: self.octets.min(left.octets),
        };
        left.subtract(part);
        part
    }

    /// Takes away what is at most as much in each count.
    pub(super) fn subtract(&mut self, other: Self) {
        self.records -= other.records;
        self.packets -= other.packets;
        self.octets -= other.octets;
    }

    /// The tally of what was suppressed as it is told outside of the ledger file: rounded like the counts of its recipient, who gets
    /// no exact ones beside a threshold.
    #[must_use]
    pub const fn rounded(self) -> Self {
        Self { records: self.records, packets: log2(self.packets), octets: log2(self.octets) }
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

    /// Takes as much of `left` as the portion has at most, and leaves the rest.
    pub(super) fn part_of(self, left: &mut Self) -> Self {
        Self {
            records: self.records.part_of(&mut left.records),
            suppressed: self.suppressed.part_of(&mut left.suppressed),
        }
    }

    /// Both together.
    pub(super) fn sum(self) -> Tally {
        let mut sum = self.records;
        sum.add(self.suppressed);
        sum
    }
}
