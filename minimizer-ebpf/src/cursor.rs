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
    end: *const u8,
    /// Octets before the position. A number, not a pointer: see [`Self::forget`].
    offset: u32,
    /// Octets of the whole frame, further buffers included.
    frame_octets: u32,
    /// Whether the frame goes on in further buffers.
    continues: bool,
    frame: PhantomData<&'frame [u8]>,
}

/// The verifier tracks packet offsets below 64 KiB. The longest chain of headers, eight extension
/// headers of 2 KiB behind a full link layer, ends well below this bound.
const OFFSET_MASK: u32 = 0x7fff;

impl<'frame> Cursor<'frame> {
    /// A cursor over a whole frame in host memory.
    #[must_use]
    pub fn over(frame: &'frame [u8]) -> Self {
        let range = frame.as_ptr_range();
        let frame_octets = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        Self {
            start: range.start,
            end: range.end,
            offset: 0,
            frame_octets,
            continues: false,
            frame: PhantomData,
        }
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
        let continues = frame_octets as usize > end as usize - start as usize;
        Self { start, end, offset: 0, frame_octets, continues, frame: PhantomData }
    }

    /// Copies the header at the position and advances behind it; `None` when the frame ends first.
    #[inline(always)]
    pub(crate) fn read<H: Header>(&mut self) -> Option<H> {
        let header = self.peek::<H>()?;
        self.offset += size_of::<H>() as u32;
        Some(header)
    }

    /// Copies the header at the position, without advancing; `None` when the frame ends first.
    #[inline(always)]
    pub(crate) fn peek<H: Header>(&self) -> Option<H> {
        let at = self.start.wrapping_add(self.offset as usize);
        if at.wrapping_add(size_of::<H>()) > self.end {
            return None;
        }
        // SAFETY: `at + size_of::<H>()` was found within the frame just above, and `H` is plain bytes.
        Some(unsafe { ptr::read_unaligned(at.cast::<H>()) })
    }

    /// The first nibble at the position, without advancing; `None` at the end of the frame.
    #[inline(always)]
    pub(crate) fn peek_nibble(&self) -> Option<u8> {
        let at = self.start.wrapping_add(self.offset as usize);
        if at.wrapping_add(1) > self.end {
            return None;
        }
        // SAFETY: one byte at `at` was found within the frame just above.
        Some(unsafe { *at } >> 4)
    }

    /// Moves over `octets` that are not read. A position beyond the end makes the next read fail.
    #[inline(always)]
    pub(crate) fn skip(&mut self, octets: u32) {
        self.offset = (self.offset + octets) & OFFSET_MASK;
    }

    /// Makes the verifier forget the exact position, so that it walks what follows once and not once
    /// for every stack of link headers. `noise` is any number the verifier does not know: adding and
    /// subtracting it leaves the position as it was.
    #[inline(always)]
    pub(crate) fn forget(&mut self, noise: u16) {
        let noise = u32::from(noise);
        self.offset = (self.offset + noise).wrapping_sub(core::hint::black_box(noise)) & OFFSET_MASK;
    }

    /// Octets of the frame before the position.
    #[inline(always)]
    #[must_use]
    pub const fn position(&self) -> u32 {
        self.offset
    }

    /// Octets of the frame from the position on, further buffers included.
    #[inline(always)]
    pub(crate) const fn remaining(&self) -> u32 {
        self.frame_octets.saturating_sub(self.offset)
    }

    /// The outcome of a frame that ended inside a header: `reason`, unless the header goes on in a
    /// further buffer of the frame.
    #[inline(always)]
    pub(crate) const fn ended(&self, reason: Outcome) -> Outcome {
        if self.continues { Outcome::HeaderNotLinear } else { reason }
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
