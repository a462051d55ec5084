//! The only code that touches packet memory: it checks bounds, copies one header, advances.

use core::marker::PhantomData;
use core::ptr;

use minimizer_common::outcome::Outcome;

/// A header as it lies on the wire: bytes and byte arrays only, so that it has no alignment, no
/// padding and no invalid value.
///
/// # Safety
/// Implementors are `repr(C)` structs whose every field is `u8` or an array of `u8`.
pub(crate) unsafe trait Header: Copy {}

/// A position in a frame. No reference to packet memory ever leaves it.
pub struct Cursor<'frame> {
    start: *const u8,
    at: *const u8,
    end: *const u8,
    frame_octets: u32,
    frame: PhantomData<&'frame [u8]>,
}

impl<'frame> Cursor<'frame> {
    /// A cursor over a whole frame in host memory.
    #[must_use]
    pub fn over(frame: &'frame [u8]) -> Self {
        let range = frame.as_ptr_range();
        let frame_octets = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        Self { start: range.start, at: range.start, end: range.end, frame_octets, frame: PhantomData }
    }

    /// A cursor over the linear part of a frame in the kernel.
    ///
    /// `frame_octets` is the length of the whole frame, which is longer than `end - start` when the
    /// frame continues in further buffers.
    ///
    /// # Safety
    /// `start..end` is readable for as long as `'frame`.
    #[inline(always)]
    #[must_use]
    pub unsafe fn between(start: *const u8, end: *const u8, frame_octets: u32) -> Self {
        Self { start, at: start, end, frame_octets, frame: PhantomData }
    }

    /// Copies the header at the position and advances behind it; `None` when the frame ends first.
    #[inline(always)]
    pub(crate) fn read<H: Header>(&mut self) -> Option<H> {
        let next = self.at.wrapping_add(size_of::<H>());
        if next > self.end {
            return None;
        }
        // SAFETY: `at + size_of::<H>()` was found within the frame just above, and `H` is plain bytes.
        let header = unsafe { ptr::read_unaligned(self.at.cast::<H>()) };
        self.at = next;
        Some(header)
    }

    /// The first nibble at the position, without advancing; `None` at the end of the frame.
    #[inline(always)]
    pub(crate) fn peek_nibble(&self) -> Option<u8> {
        if self.at.wrapping_add(1) > self.end {
            return None;
        }
        // SAFETY: one byte at `at` was found within the frame just above.
        Some(unsafe { *self.at } >> 4)
    }

    /// Moves over `octets` that are not read. A position beyond the end makes the next read fail.
    #[inline(always)]
    pub(crate) fn skip(&mut self, octets: u32) {
        self.at = self.at.wrapping_add(octets as usize);
    }

    /// Octets of the frame before the position.
    #[inline(always)]
    #[must_use]
    pub fn position(&self) -> u32 {
        // A frame is far shorter than 4 GiB; the difference of two frame pointers fits.
        #[expect(clippy::cast_possible_truncation, reason = "frames are shorter than 4 GiB")]
        let position = (self.at as usize - self.start as usize) as u32;
        position
    }

    /// Octets of the frame from the position on, further buffers included.
    #[inline(always)]
    pub(crate) fn remaining(&self) -> u32 {
        self.frame_octets.wrapping_sub(self.position())
    }

    /// The outcome of a frame that ended inside a header: `reason`, unless the header goes on in a
    /// further buffer of the frame.
    #[inline(always)]
    pub(crate) fn ended(&self, reason: Outcome) -> Outcome {
        if self.frame_octets as usize > self.end as usize - self.start as usize {
            Outcome::HeaderNotLinear
        } else {
            reason
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Header};
    use minimizer_common::outcome::Outcome;

    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Three([u8; 3]);
    // SAFETY: a `repr(C)` struct of bytes.
    unsafe impl Header for Three {}

    #[test]
    fn reads_exactly_to_the_end_and_no_further() {
        let frame = [1, 2, 3, 4, 5, 6];
        for length in 0..=frame.len() {
            let mut cursor = Cursor::over(&frame[..length]);
            let mut read = 0;
            while let Some(Three(bytes)) = cursor.read() {
                assert_eq!(bytes, frame[read..read + 3]);
                read += 3;
            }
            assert_eq!(read, length / 3 * 3);
            assert_eq!(cursor.position() as usize, read);
        }
    }

    #[test]
    fn a_skip_beyond_the_end_makes_reads_fail() {
        let mut cursor = Cursor::over(&[0; 4]);
        cursor.skip(60);
        assert!(cursor.read::<Three>().is_none());
        assert!(cursor.peek_nibble().is_none());
    }

    #[test]
    fn a_header_in_a_further_buffer_is_not_a_truncated_frame() {
        let linear = [0_u8; 4];
        let range = linear.as_ptr_range();
        // SAFETY: the range is that of `linear`, which outlives the cursor.
        let cursor = unsafe { Cursor::between(range.start, range.end, 9000) };
        assert_eq!(cursor.ended(Outcome::Ipv4Truncated), Outcome::HeaderNotLinear);
        assert_eq!(Cursor::over(&linear).ended(Outcome::Ipv4Truncated), Outcome::Ipv4Truncated);
    }
}
