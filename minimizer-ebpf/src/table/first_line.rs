//! The line in which most packets are counted.

use core::ptr;

use minimizer_common::slot::{HALF_WORDS, Half};

use crate::table::group::{self, Image};

/// The line of a group in which probing starts, with the one or the other half. Which one is a number and not a branch: no
/// processor could predict it.
#[derive(Clone, Copy)]
pub struct FirstLine {
    start: *mut u8,
    /// Where the half lies behind the start.
    byte: usize,
}

impl FirstLine {
    /// The line of the half at `byte` behind the start of a group.
    ///
    /// # Safety
    /// A half of a group lies there. Nobody else uses its line while this is used.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(start: *mut u8, byte: usize) -> Self {
        Self { start, byte }
    }

    #[inline(always)]
    const fn half(&self, byte: usize) -> &'static mut Half {
        let half = self.start.wrapping_add(byte).cast::<Half>();
        // SAFETY: `new` promises that a half lies there, and that nobody else uses it.
        unsafe { &mut *half }
    }

    /// Reads a word of the line, so that the processor fetches it.
    #[inline(always)]
    pub fn touch(&self) {
        // SAFETY: reads a borrowed word. The read is volatile, because nothing uses its value.
        unsafe { ptr::read_volatile(&raw const self.half(self.byte).0[2]) };
    }

    /// Counts packets in one of the two halves; `false` if both are others'.
    #[inline(always)]
    #[must_use]
    pub fn count_narrow(&self, packets: &[u64; HALF_WORDS], taken: &mut u64) -> bool {
        group::count_narrow(self.half(self.byte), packets, taken)
            || group::count_narrow(self.half(self.byte ^ size_of::<Half>()), packets, taken)
    }

    /// Counts packets in the line; `false` if it is another's.
    #[inline(always)]
    #[must_use]
    pub fn count_wide(&self, image: &Image, taken: &mut u64) -> bool {
        let line = self.half(self.byte & !size_of::<Half>());
        // SAFETY: the half is the first of a line.
        let line = unsafe { &mut *(&raw mut *line).cast::<[Half; 2]>() };
        group::count_wide(line, image, taken)
    }

    /// Counts packets in the line; `false` if it is full of others.
    #[inline(always)]
    #[must_use]
    pub fn count(&self, image: &Image, taken: &mut u64) -> bool {
        if group::is_wide(image) {
            self.count_wide(image, taken)
        } else {
            self.count_narrow(&group::narrow_words(image), taken)
        }
    }
}
