//! The parser and the flow table of the kernel program, free of anything that ties them to a kernel.
//!
//! [`parser`] walks a packet, [`policy`] decides what is left of it, [`table`] counts that. `program/` holds the modules of
//! the binary. Everything else builds and is tested on the host.
#![no_std]
#![allow(
    clippy::cast_possible_truncation,
    reason = "kernel programs have no fallible conversions; every narrowing is masked or bounded by an assertion"
)]

#[cfg(test)]
extern crate std;

use core::mem::MaybeUninit;

pub mod parser;
pub mod policy;
pub mod table;

/// The same number, by a way that the verifier does not trace back: what is loaded as a part of what
/// was stored. Whatever is added to a pointer it traces back to everything the number was computed
/// from, tells packets apart by all of that, and walks what follows once for each kind of packet.
///
/// A shift, a store and a load: of a word of eight octets on its stack the verifier remembers nothing that is loaded from
/// its upper half.
#[inline(always)]
#[must_use]
pub fn untraced(number: u32) -> u32 {
    let mut place = MaybeUninit::<u64>::uninit();
    // SAFETY: writes a place of this function.
    unsafe { place.as_mut_ptr().write_volatile(u64::from(number) << 32) };
    // SAFETY: the second half lies within the place.
    let upper = unsafe { place.as_ptr().cast::<u32>().add(1) };
    // SAFETY: it was written just above.
    unsafe { upper.read_volatile() }
}
