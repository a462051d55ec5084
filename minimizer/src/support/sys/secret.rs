//! Memory for secrets: outside of the heap and the stack, in no core dump, in no child process, and zeroed when it is
//! dropped.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};
use zeroize::Zeroize as _;

/// A key that several owners share. The last one destroys it.
pub type SharedKey = Arc<dyn AsRef<[u64; 2]> + Send + Sync>;

/// A secret in pages of its own. What is moved is a pointer: a move leaves no copy of the secret behind.
pub struct Secret<T: FromBytes + IntoBytes + Immutable> {
    place: NonNull<T>,
}

// SAFETY: the pages belong to no thread, and `Secret` owns them alone.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Send> Send for Secret<T> {}
// SAFETY: a shared reference only reads.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Sync> Sync for Secret<T> {}

impl<T: FromBytes + IntoBytes + Immutable> Secret<T> {
    /// A secret that is all zeroes, to be filled in place.
    ///
    /// # Errors
    /// When the system gives no memory.
    pub fn zeroed() -> io::Result<Self> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096) };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: asks for new memory at an address of the kernel's choice.
        let address = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let place =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        let secret = Self { place };
        for advice in [libc::MADV_DONTDUMP, libc::MADV_WIPEONFORK] {
            // SAFETY: these are the pages that were just mapped.
            if unsafe { libc::madvise(address, size_of::<T>(), advice) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // Keeps the pages out of the swap. A process without privilege may lock only little: then they stay unlocked.
        // SAFETY: these are the pages that were just mapped.
        unsafe { libc::mlock(address, size_of::<T>()) };
        Ok(secret)
    }

    /// A secret with a copy of these words. Who has them must zero them.
    ///
    /// # Errors
    /// When the system gives no memory.
    pub fn copy_of(value: &T) -> io::Result<Self> {
        let mut secret = Self::zeroed()?;
        secret.as_mut_bytes().copy_from_slice(value.as_bytes());
        Ok(secret)
    }
}

impl<T: FromBytes + IntoBytes + Immutable> Deref for Secret<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the pages are large enough, aligned, and hold zeroes or a `T`.
        unsafe { self.place.as_ref() }
    }
}

impl<T: FromBytes + IntoBytes + Immutable> DerefMut for Secret<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`, and `self` is borrowed exclusively.
        unsafe { self.place.as_mut() }
    }
}

impl<T: FromBytes + IntoBytes + Immutable> AsRef<T> for Secret<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: FromBytes + IntoBytes + Immutable + PartialEq> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: FromBytes + IntoBytes + Immutable + Eq> Eq for Secret<T> {}

/// Shows nothing of the secret.
impl<T: FromBytes + IntoBytes + Immutable> fmt::Debug for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Secret").finish_non_exhaustive()
    }
}

impl<T: FromBytes + IntoBytes + Immutable> Drop for Secret<T> {
    fn drop(&mut self) {
        self.as_mut_bytes().zeroize();
        // SAFETY: these are the pages that `zeroed` mapped; no reference outlives `self`.
        unsafe { libc::munmap(self.place.as_ptr().cast(), size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_is_filled_in_place_and_never_shown() {
        let mut secret = Secret::<[u8; 32]>::zeroed().expect("memory");
        assert_eq!(*secret, [0; 32]);
        secret[31] = 7;
        let moved = Box::new(secret);
        assert_eq!(moved[31], 7);
        assert_eq!(*moved, Secret::copy_of(&**moved).expect("memory"));
        assert_eq!(format!("{moved:?}"), "Secret { .. }");
    }
}
