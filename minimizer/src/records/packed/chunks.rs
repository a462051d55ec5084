//! A list in huge pages: it grows without being copied, and never holds much more than it needs.

use std::iter;
use std::mem;

use crate::support::sys::huge_page::HugePage;

/// A list of values: huge pages, and what is too little for one.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    /// All but the last are full. The last one is full, too, if there is something behind it.
    pages: Vec<HugePage<T>>,
    /// What lies behind them.
    rest: Vec<T>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), rest: Vec::new() }
    }
}

impl<T: Copy> Chunks<T> {
    /// Values in a full page.
    const FULL: usize = HugePage::<T>::CAPACITY;
    /// Values with which the first page is begun. Most batches are small.
    const PAGE_FROM: usize = Self::FULL / 16;

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        let in_pages = self.pages.last().map_or(0, |last| (self.pages.len() - 1) * Self::FULL + last.len());
        in_pages + self.rest.len()
    }

    /// Octets of memory that the values occupy.
    pub(super) fn octets(&self) -> usize {
        (self.pages.len() * Self::FULL + self.rest.capacity()) * size_of::<T>()
    }

    /// Appends a value.
    #[inline(always)]
    pub(super) fn push(&mut self, value: T) {
        let is_pushed = self.pages.last_mut().is_some_and(|last| last.push(value));
        if !is_pushed {
            self.push_behind(value);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, value: T) {
        if self.pages.is_empty() && self.rest.len() < Self::PAGE_FROM {
            self.rest.push(value);
            return;
        }
        let mut page = HugePage::new();
        for value in mem::take(&mut self.rest).into_iter().chain([value]) {
            assert!(page.push(value), "the rest is less than a page");
        }
        self.pages.push(page);
    }

    /// The value at a position.
    #[inline(always)]
    pub(super) fn get(&self, position: usize) -> &T {
        match self.pages.get(position / Self::FULL) {
            Some(page) => &page[position % Self::FULL],
            None => &self.rest[position - self.pages.len() * Self::FULL],
        }
    }

    /// The value at a position.
    #[inline(always)]
    pub(super) fn get_mut(&mut self, position: usize) -> &mut T {
        let in_pages = self.pages.len() * Self::FULL;
        match self.pages.get_mut(position / Self::FULL) {
            Some(page) => &mut page[position % Self::FULL],
            None => &mut self.rest[position - in_pages],
        }
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
        self.rest.truncate(kept.saturating_sub(self.pages.len() * Self::FULL));
        self.pages.truncate(kept.div_ceil(Self::FULL));
        let before = self.pages.len().saturating_sub(1) * Self::FULL;
        if let Some(last) = self.pages.last_mut() {
            last.truncate(kept - before);
        }
    }

    /// Gives back the room behind the last value.
    pub(super) fn shrink_to_fit(&mut self) {
        if let Some(last) = self.pages.pop_if(|last| last.len() < Self::FULL) {
            self.rest = last.to_vec();
        }
        self.pages.shrink_to_fit();
        self.rest.shrink_to_fit();
    }

    fn pieces(&self) -> impl Iterator<Item = &[T]> + Clone {
        self.pages.iter().map(|page| &**page).chain(iter::once(&*self.rest))
    }

    /// All values.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.pieces().flatten()
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
        for count in [0, 1, 2047, 2048, 2049, 32_767, 32_768, 32_769, 100_000] {
            let mut chunks = filled(count);
            assert_eq!(chunks.len(), count);
            assert!(chunks.iter().enumerate().all(|(number, value)| value[0] == number));
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
