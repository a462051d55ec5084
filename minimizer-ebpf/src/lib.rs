//! The parser, the policy and the flow table of the kernel program. They do not depend on a kernel.
//!
//! [`parser`] walks a packet, [`policy`] decides what the program keeps of it, and [`table`] counts it.
//! `program/` has the modules of the binary. Everything else builds on the host and is tested there.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
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

/// Returns the same number, but the compiler loses track of what it is made of. It then keeps one number in a register, and not
/// its parts on the stack.
#[inline(always)]
#[must_use]
pub fn whole(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: copies a register to itself. Without an instruction two lines of the source would have one place in the
        // program, and the kernel refuses that.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags))
        };
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

/// The same as [`untraced`] of a whole word.
#[inline(always)]
#[must_use]
pub fn untraced_word(word: u64) -> u64 {
    u64::from(untraced((word >> 32) as u32)) << 32 | u64::from(untraced(word as u32))
}

/// Returns the same number, but the verifier loses track of where it came from.
///
/// The verifier traces whatever is added to a pointer back to everything that the number was computed from.
/// It then tells packets apart by all of that, and walks the rest of the code once for each kind of packet.
///
/// This function shifts, stores and loads. The verifier remembers nothing about the upper half of an
/// eight-octet word on the stack, if the program loads that half alone.
#[inline(always)]
#[must_use]
pub fn untraced(number: u32) -> u32 {
    let mut place = MaybeUninit::<u64>::uninit();
    // SAFETY: writes a local variable.
    unsafe { place.as_mut_ptr().write_volatile(u64::from(number) << 32) };
    // SAFETY: the second half lies within the variable.
    let upper = unsafe { place.as_ptr().cast::<u32>().add(1) };
    // SAFETY: the write above initialised it.
    unsafe { upper.read_volatile() }
}
