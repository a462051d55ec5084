//! Merges records of the same flow: sums of counts, OR of control bits, the first and the last time.

use std::hash::{BuildHasher as _, Hash, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use minimizer_common::tuple::Tuple;

use crate::records::record::Record;

/// Counts of a flow that can be merged with others.
pub trait Flow {
    /// What tells flows apart.
    type Key: Eq + Hash;

    /// The key.
    fn key(&self) -> Self::Key;

    /// Adds what another record of the same flow counted. Returns `false`, and adds nothing, if the sum would not fit.
    #[must_use]
    fn absorb(&mut self, other: &Self) -> bool;
}

/// Where the record of each key lies in a list.
#[derive(Debug)]
pub struct Positions {
    /// Positions in the list, by the hash of the key. Four billion records would take 160 GB and more.
    table: HashTable<u32>,
    /// Has random keys, so that nobody who chooses the flows can make them collide.
    hasher: RandomState,
}

impl Positions {
    fn with_capacity(records: usize) -> Self {
        Self { table: HashTable::with_capacity(records), hasher: RandomState::new() }
    }

    /// The position of the record with this key. If there is none, it is noted that it will lie at `next`. `key_of` says the
    /// key of the record at a position.
    pub fn find_or_note<K: Eq + Hash>(
        &mut self,
        key: &K,
        next: usize,
        key_of: impl Fn(usize) -> K,
    ) -> Option<usize> {
        let Self { table, hasher } = self;
        let found = table.entry(
            hasher.hash_one(key),
            |position| key_of(*position as usize) == *key,
            |position| hasher.hash_one(key_of(*position as usize)),
        );
        match found {
            Entry::Occupied(position) => Some(*position.get() as usize),
            Entry::Vacant(place) => {
                place.insert(u32::try_from(next).expect("there is no memory for four billion records"));
                None
            }
        }
    }

    /// The position of the record with this key, if it is noted.
    pub fn find<K: Eq + Hash>(&self, key: &K, key_of: impl Fn(usize) -> K) -> Option<usize> {
        let is_same = |position: &u32| key_of(*position as usize) == *key;
        self.table.find(self.hasher.hash_one(key), is_same).map(|position| *position as usize)
    }

    fn octets(&self) -> usize {
        self.table.allocation_size()
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.table.clear();
    }
}

impl Default for Positions {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

/// Records by key: one for each, or several where the sums would not fit into one.
#[derive(Debug)]
pub struct Merge<R> {
    records: Vec<R>,
    positions: Positions,
}

impl<R> Default for Merge<R> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<R> Merge<R> {
    /// An empty one with room for so many records. A table that grows has to hash all its records again.
    #[must_use]
    pub fn with_capacity(records: usize) -> Self {
        Self { records: Vec::with_capacity(records), positions: Positions::with_capacity(records) }
    }

    /// Number of records.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Octets of memory that records and positions occupy.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.records.capacity() * size_of::<R>() + self.positions.octets()
    }

    /// Takes the records out, in the order of their positions.
    pub fn take(&mut self) -> Vec<R> {
        self.positions.clear();
        std::mem::take(&mut self.records)
    }
}

impl<R: Flow> Merge<R> {
    /// Adds a record to the one with the same key, or as a new one. Returns the position of the record that has it now.
    pub fn add(&mut self, record: R) -> usize {
        let Self { records, positions } = self;
        let next = records.len();
        if let Some(position) =
            positions.find_or_note(&record.key(), next, |position| records[position].key())
            && records[position].absorb(&record)
        {
            return position;
        }
        records.push(record);
        next
    }
}

impl Flow for Record {
    /// The interface of a record follows from its tuple.
    type Key = (Tuple, u64);

    fn key(&self) -> Self::Key {
        (self.tuple, self.selector_id)
    }

    fn absorb(&mut self, other: &Self) -> bool {
        self.control_bits |= other.control_bits;
        self.packets += other.packets;
        self.octets += other.octets;
        self.start_ms = self.start_ms.min(other.start_ms);
        self.end_ms = self.end_ms.max(other.end_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use minimizer_common::tuple::{Tags, Tuple};

    use super::Merge;
    use crate::records::record::Record;

    #[test]
    fn records_of_one_key_become_one() {
        let record = |selector_id, control_bits, packets, start_ms| Record {
            tuple: Tuple::new([1, 0, 0, 0], (1, 2), Tags::NONE, 6, 0),
            ingress_interface: 1,
            control_bits,
            packets,
            octets: 100 * packets,
            start_ms,
            end_ms: start_ms + 10,
            selector_id,
        };
        let mut merge = Merge::default();
        assert_eq!(merge.add(record(0, 2, 1, 500)), 0);
        assert_eq!(merge.add(record(7, 1, 1, 500)), 1);
        assert_eq!(merge.add(record(0, 16, 2, 400)), 0);
        let mut merged = record(0, 18, 3, 400);
        merged.end_ms = 510;
        assert_eq!(merge.take(), [merged, record(7, 1, 1, 500)]);
        assert_eq!(merge.add(record(0, 2, 1, 500)), 0, "empty again");
    }
}
