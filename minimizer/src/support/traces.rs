//! What a computation with secrets leaves behind, and how it is removed.

use std::hint::black_box;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// More of the stack than any computation with a key takes.
const STACK_OCTETS: usize = 64 << 10;

/// Keeps the memory of this process from everybody but root: it makes no core dump, and no other process of its user
/// reads it through /proc or ptrace. Call it before any secret is read.
///
/// # Errors
/// When the kernel refuses.
pub fn hide_memory() -> Result<(), Errno> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}

/// Does something with secrets, then overwrites the stack that this took. What is returned must be no secret, or hold it
/// behind a pointer.
pub fn without_traces<T>(act: impl FnOnce() -> T) -> T {
    let result = below(act);
    overwrite();
    result
}

/// In a stack frame of its own, so that [`overwrite`] lies where it lay.
#[inline(never)]
fn below<T>(act: impl FnOnce() -> T) -> T {
    act()
}

#[inline(never)]
fn overwrite() {
    // The compiler must take it that somebody reads the zeroes.
    black_box(&mut [0_u8; STACK_OCTETS]);
}
