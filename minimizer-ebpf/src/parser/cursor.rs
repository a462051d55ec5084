//! The only code that touches packet memory: it checks bounds, copies one header and advances.

use core::ptr;

use minimizer_common::outcome::Outcome;
use minimizer_common::plan::Steps;

use crate::untraced;

/// A header as it lies on the wire. It has only bytes and byte arrays, and thus no alignment, no padding and
/// no invalid value.
///
/// # Safety
/// Implementors are `repr(C)` structs whose every field is `u8`, an array of `u8`, or another header.
pub(crate) unsafe trait Header: Copy {}
// SAFETY: a byte array.
unsafe impl<const OCTETS: usize> Header for [u8; OCTETS] {}

/// A frame whose first buffer lies in memory.
///
/// # Safety
/// `start()..end()` is readable for as long as the implementor lives.
pub unsafe trait Frame {
    /// Start of the first buffer.
    fn start(&self) -> *const u8;
    /// End of the first buffer.
    fn end(&self) -> *const u8;
    /// Octets of the whole frame, with further buffers. In the kernel this is a helper call. The walk makes it
    /// only where the first buffer does not suffice: for a length beyond it, for a jumbogram, and for a frame at
    /// which the walk stopped.
    fn octets(&self) -> u32;
    /// Whether the policy drops the fields that one of these steps names. The parser then does not read them.
    #[inline(always)]
    fn omits(&self, _steps: Steps) -> bool {
        false
    }
    /// Whether a scope judges the packet: then the parser reads by which way the sender wants it to go.
    #[inline(always)]
    fn has_scope(&self) -> bool {
        false
    }
    /// Whether [`Self::octets`] can be fewer than the first buffer holds. Reads must then respect it.
    const ENDS_EARLY: bool = false;
}

// SAFETY: the range is that of the slice.
unsafe impl Frame for &[u8] {
    fn start(&self) -> *const u8 {
        self.as_ptr()
    }

    fn end(&self) -> *const u8 {
        self.as_ptr_range().end
    }

    fn octets(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }
}

/// A frame under a policy with a scope.
#[derive(Clone, Copy, Debug)]
pub struct Scoped<'frame>(pub &'frame [u8]);

// SAFETY: the range is that of the slice.
unsafe impl Frame for Scoped<'_> {
    fn start(&self) -> *const u8 {
        self.0.start()
    }

    fn end(&self) -> *const u8 {
        self.0.end()
    }

    fn octets(&self) -> u32 {
        self.0.octets()
    }

    fn has_scope(&self) -> bool {
        true
    }
}

/// A frame with further buffers, which the parser never reads.
#[derive(Clone, Copy, Debug)]
pub struct Split<'frame> {
    /// The first buffer.
    pub first: &'frame [u8],
    /// Octets of the whole frame.
    pub octets: u32,
}

// SAFETY: the range is that of the slice.
unsafe impl Frame for Split<'_> {
    fn start(&self) -> *const u8 {
        self.first.as_ptr()
    }

    fn end(&self) -> *const u8 {
        self.first.as_ptr_range().end
    }

    fn octets(&self) -> u32 {
        self.octets
    }
}

/// The part of a frame that an inner packet may use. It ends where the outer packet ends.
#[derive(Clone, Copy)]
pub struct Within<F> {
    frame: F,
    octets: u32,
}

// SAFETY: the range is that of the frame.
unsafe impl<F: Frame> Frame for Within<F> {
    const ENDS_EARLY: bool = true;

    #[inline(always)]
    fn start(&self) -> *const u8 {
        self.frame.start()
    }

    #[inline(always)]
    fn end(&self) -> *const u8 {
        self.frame.end()
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        self.octets
    }

    #[inline(always)]
    fn omits(&self, steps: Steps) -> bool {
        self.frame.omits(steps)
    }

    #[inline(always)]
    fn has_scope(&self) -> bool {
        self.frame.has_scope()
    }
}

impl<F: Frame> Cursor<Within<F>> {
    /// A cursor at `offset` in a frame, for a packet that may use `octets` from there on.
    #[inline(always)]
    #[must_use]
    pub fn within(frame: F, offset: u32, octets: u32) -> Self {
        let end = (offset & OFFSET_MASK) + octets;
        let mut cursor = Self::over(Within { frame, octets: end });
        cursor.known = end;
        cursor.offset = offset & OFFSET_MASK;
        cursor
    }

    /// Makes the verifier forget what it knows about position and end. It then walks the rest once, and not
    /// once for every kind of tunnel.
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        self.offset = untraced(self.offset) & OFFSET_MASK;
        self.known = untraced(self.known);
        self.frame.octets = self.known;
    }

    /// Ends the packet `octets` behind the position.
    #[inline(always)]
    pub(crate) fn limit(&mut self, octets: u32) {
        self.frame.octets = self.offset + octets;
        self.known = self.frame.octets;
    }
}

/// A header that lies within its frame. The caller copies the fields that it needs.
#[derive(Clone, Copy)]
pub(crate) struct Passed<H>(*const H);

impl<H: Header> Passed<H> {
    /// Copies the header. The compiler loads only the fields that the caller uses, at the place of their use.
    #[inline(always)]
    pub(crate) fn copy(self) -> H {
        // SAFETY: `Cursor::pass` found the header within the frame, and `H` is plain bytes.
        unsafe { ptr::read_unaligned(self.0) }
    }
}

/// The header at the start of a frame; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn header_at<H: Header>(frame: &impl Frame) -> Option<Passed<H>> {
    header_behind(frame, 0)
}

/// The header behind the first octets of a frame; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn header_behind<H: Header>(frame: &impl Frame, octets: usize) -> Option<Passed<H>> {
    let start = frame.start().wrapping_add(octets);
    if start.wrapping_add(size_of::<H>()) > frame.end() { None } else { Some(Passed(start.cast())) }
}

/// Why a room stopped. The program does not count the packet in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The octets that were read decide the outcome.
    Found(Outcome),
    /// The first buffer ended inside a header.
    Ended(Outcome),
}

/// A position in a frame. It never hands out a reference to packet memory.
pub struct Cursor<F> {
    frame: F,
    start: *const u8,
    end: *const u8,
    /// Octets before the position. A number, because a pointer would defeat [`Self::forget`].
    offset: u32,
    /// Known octets of the frame: those of the first buffer, until a caller asks for all.
    known: u32,
    /// Octets of the frame up to the last one that was read.
    read: u32,
}

/// The verifier tracks packet offsets below 64 KiB. The longest chain of headers is eight extension headers
/// of 2 KiB behind a full link layer; it ends well below this bound.
const OFFSET_MASK: u32 = 0x7fff;

impl<F: Frame> Cursor<F> {
    /// A cursor at the start of a frame.
    #[inline(always)]
    #[must_use]
    pub fn over(frame: F) -> Self {
        let (start, end) = (frame.start(), frame.end());
        let known = (end as usize - start as usize) as u32;
        Self { frame, start, end, offset: 0, known, read: 0 }
    }

    /// A cursor for a packet inside this frame: at `offset`, with `octets` from there on.
    #[inline(always)]
    pub(crate) fn enter(&self, offset: u32, octets: u32) -> Cursor<Within<F>>
    where
        F: Copy,
    {
        let mut inner = Cursor::within(self.frame, offset, octets);
        inner.read = self.read;
        inner
    }

    /// Moves to the position of a cursor that entered this frame.
    #[inline(always)]
    pub(crate) fn follow(&mut self, inner: &Cursor<Within<F>>) {
        self.offset = inner.offset;
        self.read = inner.read;
    }

    /// Copies the header at the position and advances behind it; `None` when the frame ends first.
    #[inline(always)]
    pub(crate) fn read<H: Header>(&mut self) -> Option<H> {
        let header = self.peek::<H>()?;
        self.offset += size_of::<H>() as u32;
        Some(header)
    }

    /// Finds the header at the position within the frame and advances behind it; `None` when the frame ends
    /// first. The program loads only the fields that the caller copies later.
    #[inline(always)]
    pub(crate) fn pass<H: Header>(&mut self) -> Option<Passed<H>> {
        let octets = size_of::<H>() as u32;
        if self.is_behind(octets) {
            return None;
        }
        let at = self.start.wrapping_add(self.offset as usize);
        if at.wrapping_add(size_of::<H>()) > self.end {
            return None;
        }
        self.offset += octets;
        self.read = self.offset;
        Some(Passed(at.cast::<H>()))
    }

    /// Copies the header at the position, without advancing; `None` when the frame ends first.
    #[inline(always)]
    pub(crate) fn peek<H: Header>(&mut self) -> Option<H> {
        if self.is_behind(size_of::<H>() as u32) {
            return None;
        }
        let at = self.start.wrapping_add(self.offset as usize);
        if at.wrapping_add(size_of::<H>()) > self.end {
            return None;
        }
        self.read = self.offset + size_of::<H>() as u32;
        // SAFETY: `at + size_of::<H>()` was found within the frame just above, and `H` is plain bytes.
        Some(unsafe { ptr::read_unaligned(at.cast::<H>()) })
    }

    /// Whether a scope judges the packet.
    #[inline(always)]
    pub(crate) fn has_scope(&self) -> bool {
        self.frame.has_scope()
    }

    /// Whether the policy drops the fields that one of these steps names.
    #[inline(always)]
    pub(crate) fn omits(&self, steps: Steps) -> bool {
        self.frame.omits(steps)
    }

    /// The first nibble at the position, without advancing; `None` at the end of the frame.
    #[inline(always)]
    pub(crate) fn peek_nibble(&mut self) -> Option<u8> {
        if self.is_behind(1) {
            return None;
        }
        let at = self.start.wrapping_add(self.offset as usize);
        if at.wrapping_add(1) > self.end {
            return None;
        }
        self.read = self.offset + 1;
        // SAFETY: one byte at `at` was found within the frame just above.
        Some(unsafe { *at } >> 4)
    }

    /// Whether `octets` from the position on go beyond the end of a packet that ends before its frame.
    #[inline(always)]
    const fn is_behind(&self, octets: u32) -> bool {
        F::ENDS_EARLY && self.offset + octets > self.known
    }

    /// Advances over `octets` without reading them. A position beyond the end makes the next read fail.
    #[inline(always)]
    pub(crate) fn skip(&mut self, octets: u32) {
        self.offset = (self.offset + octets) & OFFSET_MASK;
    }

    /// Makes the verifier forget the exact position. It then walks the rest once, and not once for every
    /// stack of link headers. `noise` is any number that the verifier does not know; adding and subtracting
    /// it leaves the position as it was.
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

    /// Octets of the frame up to the last one that was read. The octets behind them are payload.
    #[must_use]
    pub const fn headers_octets(&self) -> u32 {
        self.read
    }

    /// Whether the frame has `octets` more from the position on, with further buffers.
    #[inline(always)]
    pub(crate) fn holds(&mut self, octets: u32) -> bool {
        self.offset + octets <= self.known || octets <= self.remaining()
    }

    /// Octets of the frame from the position on, with further buffers. Asks the frame.
    #[inline(always)]
    pub(crate) fn remaining(&mut self) -> u32 {
        self.frame_octets().saturating_sub(self.offset)
    }

    /// Octets of the whole frame, with further buffers. Asks the frame.
    #[inline(always)]
    pub fn frame_octets(&mut self) -> u32 {
        self.known = self.frame.octets();
        self.known
    }

    /// Octets of the frame, or of the first buffer alone if the walk needed no more.
    #[inline(always)]
    #[must_use]
    pub const fn known_octets(&self) -> u32 {
        self.known
    }

    /// The outcome of a frame at which a room stopped. A header that ends in the first buffer may continue in
    /// a further one. Asks the frame.
    #[inline(always)]
    pub fn outcome(&mut self, stop: Stop) -> Outcome {
        let first_octets = (self.end as usize - self.start as usize) as u32;
        let continues = self.frame_octets() > first_octets;
        match stop {
            Stop::Ended(_) if continues => Outcome::HeaderNotLinear,
            Stop::Ended(outcome) | Stop::Found(outcome) => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Header, Split, Stop};
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
        let mut cursor = Cursor::over(&[0; 4][..]);
        cursor.skip(60);
        assert!(cursor.read::<Three>().is_none());
        assert!(cursor.peek_nibble().is_none());
    }

    #[test]
    fn a_header_in_a_further_buffer_is_not_a_truncated_frame() {
        let first = &[0; 4][..];
        let mut cursor = Cursor::over(Split { first, octets: 9000 });
        assert_eq!(cursor.known_octets(), 4);
        assert_eq!(cursor.outcome(Stop::Ended(Outcome::Ipv4Truncated)), Outcome::HeaderNotLinear);
        assert_eq!(cursor.known_octets(), 9000);
        assert_eq!(Cursor::over(first).outcome(Stop::Ended(Outcome::Ipv4Truncated)), Outcome::Ipv4Truncated);
    }
}
