//! A list in pieces of memory that never move: it grows without being copied, and never holds much more than it needs.

use std::ops::Range;

/// A list of values, in pieces of 2 MiB.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    /// All but the last are full.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Copy> Chunks<T> {
    /// Values in a full piece.
    const FULL: usize = (2 << 20) / size_of::<T>();

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * Self::FULL + last.len())
    }

    /// Octets of memory that the values occupy.
    pub(super) fn octets(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum()
    }

    /// Appends a value.
    #[inline(always)]
    pub(super) fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < Self::FULL => last.push(value),
            _ => self.push_in_new(value),
        }
    }

    #[cold]
    fn push_in_new(&mut self, value: T) {
        // Most batches are small: only the first piece grows.
        let mut chunk =
            if self.chunks.is_empty() { Vec::new() } else { Vec::with_capacity(Self::FULL) };
        chunk.push(value);
        self.chunks.push(chunk);
    }

    /// The value at a position.
    pub(super) fn get(&self, position: usize) -> &T {
        &self.chunks[position / Self::FULL][position % Self::FULL]
    }

    /// The value at a position.
    pub(super) fn get_mut(&mut self, position: usize) -> &mut T {
        &mut self.chunks[position / Self::FULL][position % Self::FULL]
    }

    /// Removes the values that are not to be kept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut kept = 0;
        for position in 0..self.len() {
            let value = *self.get(position);
            if keep(&value) {
                *self.get_mut(kept) = value;
                kept += 1;
            }
        }
        self.chunks.truncate(kept.div_ceil(Self::FULL));
        if let Some(before) = self.chunks.len().checked_sub(1) {
            self.chunks[before].truncate(kept - before * Self::FULL);
        }
    }

    /// Gives back the room behind the last value.
    pub(super) fn shrink_to_fit(&mut self) {
        self.chunks.shrink_to_fit();
        if let Some(last) = self.chunks.last_mut() {
            last.shrink_to_fit();
        }
    }

    /// All values.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// The values at these positions.
    pub(super) fn range(&self, positions: Range<usize>) -> impl Iterator<Item = &T> {
        let starts = (0..).step_by(Self::FULL);
        self.chunks.iter().zip(starts).flat_map(move |(chunk, start): (_, usize)| {
            let inside = |position: usize| position.saturating_sub(start).min(chunk.len());
            &chunk[inside(positions.start)..inside(positions.end)]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Chunks;

    /// Values of 64 octets: 32,768 in a piece.
    type Value = [usize; 8];

    fn filled(count: usize) -> Chunks<Value> {
        let mut chunks = Chunks::default();
        (0..count).for_each(|number| chunks.push([number; 8]));
        chunks
    }

    #[test]
    fn what_was_pushed_is_there() {
        for count in [0, 1, 32_767, 32_768, 32_769, 100_000] {
            let mut chunks = filled(count);
            assert_eq!(chunks.len(), count);
            assert!(chunks.iter().enumerate().all(|(number, value)| value[0] == number));
            for range in [0..count, 0..0, count / 3..count, 32_000.min(count)..70_000.min(count)] {
                let found: Vec<_> = chunks.range(range.clone()).map(|value| value[0]).collect();
                assert_eq!(found, range.collect::<Vec<_>>());
            }
            chunks.shrink_to_fit();
            assert_eq!(chunks.octets(), count * 64);
        }
    }

    #[test]
    fn a_list_that_grows_takes_one_piece_more_than_it_needs_at_most() {
        for count in [10, 1000, 32_769, 100_000] {
            let octets = filled(count).octets();
            assert!(octets <= count * 64 + (2 << 20), "{octets} octets for {count} values");
        }
    }

    #[test]
    fn what_is_not_kept_is_gone() {
        for (count, keeps) in [(100_000, 3), (40_000, 40_000), (65_536, 2), (0, 1), (70_000, 1)] {
            let mut chunks = filled(count);
            chunks.retain(|value| value[0] % keeps == 0);
            let kept: Vec<_> = chunks.iter().map(|value| value[0]).collect();
            assert_eq!(kept, (0..count).step_by(keeps).collect::<Vec<_>>());
            assert_eq!(chunks.len(), kept.len());
            chunks.push([7; 8]);
            assert_eq!(chunks.iter().last(), Some(&[7; 8]));
        }
        let mut chunks = filled(100_000);
        chunks.retain(|_| false);
        assert_eq!((chunks.len(), chunks.octets()), (0, 0));
    }
}
