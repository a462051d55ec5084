//! Batches that wait: how many may, and which of them give way.

use std::collections::VecDeque;

/// Batches without records that may wait. A sink learns nothing from them but the time, the interfaces and sums since the
/// start, and the latest ones say that as well as all of them would. Several may wait so that a sink that is only slow misses
/// none.
const EMPTY_MAX: usize = 16;

/// How much may wait for a sink. One batch always may, however large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records, as they were collected.
    pub records: u64,
    /// Octets of memory. Sinks share a batch, and each counts it as its own.
    pub octets: u64,
    /// Batches.
    pub batches: usize,
}

impl Default for Bounds {
    /// The batches are those of more than a day at the default interval.
    fn default() -> Self {
        Self { records: 1_000_000, octets: 128 << 20, batches: 10_000 }
    }
}

/// The size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Records, as they were collected.
    pub(super) records: u64,
    /// Octets of memory.
    pub(super) octets: u64,
}

/// Batches within bounds, the oldest first out. When they are too many, those without records give way before any with
/// records does: they cost nobody anything.
pub(super) struct Waiting<B> {
    bounds: Bounds,
    /// Batches with records and batches without, each from the oldest on.
    full: VecDeque<Item<B>>,
    empty: VecDeque<Item<B>>,
    /// Number of the next batch: the order among both.
    next: u64,
    /// Sums over all of them.
    sum: Size,
    /// What is held beside them, and takes their room.
    beside: Size,
}

struct Item<B> {
    number: u64,
    size: Size,
    batch: B,
}

impl<B> Waiting<B> {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (full, empty) = (VecDeque::new(), VecDeque::new());
        Self { bounds, full, empty, next: 0, sum: Size::default(), beside: Size::default() }
    }

    /// How much may wait.
    pub(super) const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Leaves them less room: so much is held beside them.
    pub(super) const fn leave_room_for(&mut self, beside: Size) {
        self.beside = beside;
    }

    /// Octets of memory of all batches.
    pub(super) const fn octets(&self) -> u64 {
        self.sum.octets
    }

    /// Appends a batch, and returns those that give way. It may be among them when it has no records.
    pub(super) fn push(&mut self, batch: B, size: Size) -> Vec<B> {
        let item = Item { number: self.next, size, batch };
        self.next += 1;
        self.sum.records += size.records;
        self.sum.octets += size.octets;
        if size.records == 0 { &mut self.empty } else { &mut self.full }.push_back(item);
        let mut gone = Vec::new();
        while self.must_give_way() {
            let Some(item) = self.empty.pop_front().or_else(|| self.full.pop_front()) else { break };
            gone.push(self.removed(item).0);
        }
        gone
    }

    /// The oldest batch.
    pub(super) fn oldest(&self) -> Option<&B> {
        let items = if self.is_empty_older() { &self.empty } else { &self.full };
        items.front().map(|item| &item.batch)
    }

    /// Takes out the oldest batch.
    pub(super) fn pop(&mut self) -> Option<(B, Size)> {
        let is_empty_older = self.is_empty_older();
        let item = if is_empty_older { &mut self.empty } else { &mut self.full }.pop_front()?;
        Some(self.removed(item))
    }

    /// Whether the oldest batch is one without records.
    fn is_empty_older(&self) -> bool {
        let number = |items: &VecDeque<Item<B>>| items.front().map_or(u64::MAX, |item| item.number);
        number(&self.empty) < number(&self.full)
    }

    fn must_give_way(&self) -> bool {
        let batches = self.full.len() + self.empty.len();
        let is_exceeded = self.sum.records + self.beside.records > self.bounds.records
            || self.sum.octets + self.beside.octets > self.bounds.octets
            || batches > self.bounds.batches;
        self.empty.len() > EMPTY_MAX || (batches > 1 && is_exceeded)
    }

    fn removed(&mut self, item: Item<B>) -> (B, Size) {
        self.sum.records -= item.size.records;
        self.sum.octets -= item.size.octets;
        (item.batch, item.size)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, EMPTY_MAX, Size, Waiting};

    const UNBOUNDED: Bounds = Bounds { records: u64::MAX, octets: u64::MAX, batches: usize::MAX };

    /// Pushes batches of these records and octets, whose names are their positions; returns which gave way and which
    /// were left.
    fn push(bounds: Bounds, sizes: &[(u64, u64)]) -> (Vec<usize>, Vec<usize>) {
        let mut waiting = Waiting::new(bounds);
        let mut gone = Vec::new();
        for (batch, (records, octets)) in sizes.iter().enumerate() {
            gone.extend(waiting.push(batch, Size { records: *records, octets: *octets }));
        }
        let left: Vec<_> = std::iter::from_fn(|| waiting.pop()).collect();
        for (batch, Size { records, octets }) in &left {
            assert_eq!((*records, *octets), sizes[*batch]);
        }
        assert_eq!(waiting.sum, Size::default(), "what is out is not counted any more");
        (gone, left.into_iter().map(|(batch, _)| batch).collect())
    }

    #[test]
    fn the_oldest_gives_way_to_records_octets_and_batches_beyond_the_bounds() {
        let batches = [(100, 1000); 4];
        let at = [
            Bounds { records: 200, ..UNBOUNDED },
            Bounds { octets: 2000, ..UNBOUNDED },
            Bounds { batches: 2, ..UNBOUNDED },
        ];
        let below = [
            Bounds { records: 199, ..UNBOUNDED },
            Bounds { octets: 1999, ..UNBOUNDED },
            Bounds { batches: 1, ..UNBOUNDED },
        ];
        for bounds in at {
            assert_eq!(push(bounds, &batches), (vec![0, 1], vec![2, 3]), "{bounds:?}");
        }
        for bounds in below {
            assert_eq!(push(bounds, &batches), (vec![0, 1, 2], vec![3]), "{bounds:?}");
        }
        assert_eq!(push(UNBOUNDED, &batches), (vec![], vec![0, 1, 2, 3]));
    }

    #[test]
    fn one_batch_always_may_wait() {
        let least = Bounds { records: 1, octets: 1, batches: 1 };
        assert_eq!(push(least, &[(1000, 50_000)]), (vec![], vec![0]));
        assert_eq!(push(least, &[(0, 500)]), (vec![], vec![0]));
        assert_eq!(push(least, &[(1000, 50_000), (2000, 90_000)]), (vec![0], vec![1]));
    }

    #[test]
    fn batches_without_records_give_way_before_any_with_records() {
        let bounds = Bounds { batches: 3, ..UNBOUNDED };
        let batches = [(10, 1000), (0, 500), (0, 500), (10, 1000), (10, 1000)];
        assert_eq!(push(bounds, &batches), (vec![1, 2], vec![0, 3, 4]));
        // Not even the latest pushes records out.
        let octets = Bounds { octets: 1200, ..UNBOUNDED };
        assert_eq!(push(octets, &[(10, 5000), (0, 500)]), (vec![1], vec![0]));
    }

    #[test]
    fn the_latest_batches_without_records_wait_among_the_others_in_their_order() {
        let mut batches = vec![(0, 500); EMPTY_MAX + 2];
        batches.insert(1, (10, 1000));
        batches.push((10, 1000));
        let (gone, left) = push(UNBOUNDED, &batches);
        assert_eq!(gone, [0, 2]);
        assert_eq!(left, [1].into_iter().chain(3..batches.len()).collect::<Vec<_>>());
    }
}
