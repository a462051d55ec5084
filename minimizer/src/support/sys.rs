//! What only the kernel's C interface offers: memory shared with the kernel, memory for secrets, raw frames, `bpf(2)`.
//! The one module with unsafe code.

#![expect(unsafe_code, reason = "the C interface of the kernel has no other")]

pub mod bpf;
pub mod huge_page;
pub mod packet_socket;
pub mod secret;
pub mod tcp;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};
use std::slice;

use zerocopy::{FromBytes, IntoBytes};

/// While it exists, large blocks of memory go back to the system as soon as they are dropped. The allocator of glibc keeps
/// most of them otherwise.
#[must_use]
pub struct LargeBlocksApart(());

#[cfg(target_env = "gnu")]
impl LargeBlocksApart {
    /// Blocks from this size on.
    const OCTETS: libc::c_int = 256 << 10;
    /// What the threshold of the allocator grows to by itself while large blocks come and go.
    const OCTETS_OTHERWISE: libc::c_int = 32 << 20;

    /// From now on.
    pub fn begin() -> Self {
        Self::set(libc::M_MMAP_THRESHOLD, Self::OCTETS);
        Self(())
    }

    fn set(parameter: libc::c_int, value: libc::c_int) {
        // SAFETY: sets a number in the allocator, under its lock.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(target_env = "gnu")]
impl Drop for LargeBlocksApart {
    fn drop(&mut self) {
        Self::set(libc::M_MMAP_THRESHOLD, Self::OCTETS_OTHERWISE);
        Self::set(libc::M_TRIM_THRESHOLD, 2 * Self::OCTETS_OTHERWISE);
        give_back_memory();
    }
}

#[cfg(not(target_env = "gnu"))]
impl LargeBlocksApart {
    /// From now on.
    pub fn begin() -> Self {
        Self(())
    }
}

/// Gives unused memory back to the system.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and the allocator locks what it changes.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// A memory-mapped BPF array.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    octets: usize,
}

// SAFETY: the mapping is memory of this process; it belongs to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `octets` of the array behind `fd` for reading and writing.
    ///
    /// # Errors
    /// The error of `mmap(2)`: `ENOMEM`, `EPERM` for a frozen map, `EINVAL` beyond the array.
    pub fn new(fd: impl AsFd, octets: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: asks for a new mapping at an address of the kernel's choice.
        let address = unsafe { libc::mmap(ptr::null_mut(), octets, protection, libc::MAP_SHARED, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self { address, octets })
    }

    /// Length in octets.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.octets
    }

    /// Whether the mapping is empty. It never is: `mmap(2)` refuses a length of 0.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.octets == 0
    }

    /// Copies the value at `offset`. The kernel may be writing it meanwhile: each word is consistent, but perhaps not the
    /// value as a whole.
    ///
    /// # Panics
    /// When the value is not aligned or not inside the mapping: an error in the caller's layout.
    #[must_use]
    pub fn read<T: FromBytes + Copy>(&self, offset: usize) -> T {
        let place = self.place::<T>(offset, 1);
        // SAFETY: `place` checked bounds and alignment; every bit pattern is a `T`.
        unsafe { ptr::read_volatile(place) }
    }

    /// Writes the value at `offset`, for the kernel to read.
    ///
    /// # Panics
    /// See [`Self::read`].
    pub fn write<T: IntoBytes + Copy>(&mut self, offset: usize, value: T) {
        let place = self.place::<T>(offset, 1);
        // SAFETY: `place` checked bounds and alignment, and the mapping is writable.
        unsafe { ptr::write_volatile(place, value) }
    }

    /// The `count` values from `offset` on, in memory that the kernel does not write any more: the caller has waited for a
    /// grace period.
    ///
    /// # Panics
    /// See [`Self::read`].
    pub(crate) fn quiet<T: FromBytes + IntoBytes>(&mut self, offset: usize, count: usize) -> &mut [T] {
        let place = self.place::<T>(offset, count);
        // SAFETY: `place` checked bounds and alignment, every bit pattern is a `T`, and nobody else
        // uses the memory: the kernel has left the generation, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(place, count) }
    }

    fn place<T>(&self, offset: usize, count: usize) -> *mut T {
        let end = count.checked_mul(size_of::<T>()).and_then(|octets| octets.checked_add(offset));
        assert!(
            end.is_some_and(|end| end <= self.octets),
            "{offset} + {count} values lie outside the mapping"
        );
        assert!(offset.is_multiple_of(align_of::<T>()), "offset {offset} is not aligned");
        self.address.as_ptr().wrapping_add(offset).cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made; no reference outlives `self`.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.octets) };
    }
}
