//! Memory for many small values, in huge pages where the system has them.

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

/// Octets of a huge page.
const OCTETS: usize = 2 << 20;

/// A list of up to [`Self::CAPACITY`] values in memory of its own, which goes back to the system with it. It is one huge
/// page if the system allows that: the kernel then makes it in one step instead of 512.
#[derive(Debug)]
pub struct HugePage<T> {
    address: NonNull<T>,
    length: usize,
    values: PhantomData<T>,
}

// SAFETY: the memory belongs to the list alone, like that of a `Vec`.
unsafe impl<T: Send> Send for HugePage<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for HugePage<T> {}

impl<T: Copy> HugePage<T> {
    /// Values that it can hold.
    pub const CAPACITY: usize = OCTETS / size_of::<T>();

    /// An empty one. The process ends if there is no memory, as with any other memory.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(align_of::<T>() <= OCTETS && size_of::<T>() != 0) };
        let Some(address) = map_aligned() else {
            handle_alloc_error(Layout::new::<[u8; OCTETS]>());
        };
        // SAFETY: advice about the mapping that was just made. Without huge pages the kernel refuses, and nothing changes.
        unsafe { libc::madvise(address.as_ptr().cast(), OCTETS, libc::MADV_HUGEPAGE) };
        Self { address: address.cast(), length: 0, values: PhantomData }
    }

    /// Appends a value. Returns `false` if it is full.
    #[inline(always)]
    #[must_use]
    pub fn push(&mut self, value: T) -> bool {
        if self.length == Self::CAPACITY {
            return false;
        }
        let place = self.address.as_ptr().wrapping_add(self.length);
        // SAFETY: the place lies within the mapping, whose start is aligned for any value.
        unsafe { place.write(value) };
        self.length += 1;
        true
    }

    /// Keeps the first `length` values.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

/// Maps a huge page of memory at an address that is a multiple of its size.
fn map_aligned() -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: asks for a new mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), 2 * OCTETS, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let before = start.cast::<u8>().align_offset(OCTETS);
    let address = start.wrapping_byte_add(before);
    if before != 0 {
        // SAFETY: the part of the new mapping before the page.
        unsafe { libc::munmap(start, before) };
    }
    // SAFETY: the part of the new mapping behind the page; it is not empty, because `before` is less than a page.
    unsafe { libc::munmap(address.wrapping_byte_add(OCTETS), OCTETS - before) };
    NonNull::new(address.cast())
}

impl<T: Copy> Default for HugePage<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for HugePage<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many values were written, and `self` is borrowed.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for HugePage<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: so many values were written, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.length) }
    }
}

impl<T> Drop for HugePage<T> {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made; no reference outlives `self`, and the values need no drop.
        unsafe { libc::munmap(self.address.as_ptr().cast(), OCTETS) };
    }
}

#[cfg(test)]
mod tests {
    use super::HugePage;

    #[test]
    fn it_holds_what_was_pushed_and_no_more_than_it_can() {
        let mut pages: Vec<_> = (0..5).map(|_| HugePage::<[u64; 8]>::new()).collect();
        for (number, page) in (0..).zip(&mut pages) {
            assert!(page.is_empty() && page.as_ptr().addr().is_multiple_of(2 << 20));
            for index in 0..32_768 {
                assert!(page.push([number, index, 0, 0, 0, 0, 0, 9]));
            }
            assert!(!page.push([0; 8]));
        }
        for (number, page) in (0..).zip(&mut pages) {
            assert_eq!(page.len(), 32_768);
            assert!((0..).zip(page.iter()).all(|(index, value)| *value == [number, index, 0, 0, 0, 0, 0, 9]));
            page.truncate(5);
            page[4][0] = 7;
            assert_eq!((page.len(), page[4][0]), (5, 7));
        }
    }
}
