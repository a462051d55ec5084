//! `BPF_MAP_LOOKUP_AND_DELETE_BATCH`, which aya does not have.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::Context as _;

const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
/// Entries per system call, as flow agents use.
pub const ENTRIES: usize = 4096;

/// The part of the kernel's `union bpf_attr` for batch commands.
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Empties a hash, handing each batch to `take` as octets of keys and values. `value_octets` is the
/// size of a value as the kernel copies it: for per-CPU hashes, that of all CPUs.
///
/// # Errors
/// What the kernel answers.
pub fn take_all(
    map: impl AsFd,
    key_octets: usize,
    value_octets: usize,
    mut take: impl FnMut(&[u8], &[u8]),
) -> anyhow::Result<()> {
    let mut keys = vec![0_u8; key_octets * ENTRIES];
    let mut values = vec![0_u8; value_octets * ENTRIES];
    let (mut in_batch, mut out_batch) = (0_u32, 0_u32);
    let mut is_first = true;
    loop {
        let mut attributes = BatchAttributes {
            in_batch: if is_first { 0 } else { address(&raw const in_batch) },
            out_batch: address(&raw mut out_batch),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: u32::try_from(ENTRIES)?,
            map_fd: u32::try_from(map.as_fd().as_raw_fd())?,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the buffers hold `ENTRIES` keys and values of the map's sizes, and outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_AND_DELETE_BATCH,
                &raw mut attributes,
                size_of::<BatchAttributes>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let is_last = error.as_ref().is_some_and(|error| error.raw_os_error() == Some(libc::ENOENT));
        if let Some(error) = error.filter(|_| !is_last) {
            return Err(error).context("BPF_MAP_LOOKUP_AND_DELETE_BATCH");
        }
        let count = attributes.count as usize;
        take(&keys[..count * key_octets], &values[..count * value_octets]);
        if is_last {
            return Ok(());
        }
        (in_batch, is_first) = (out_batch, false);
    }
}

fn address<T>(pointer: *const T) -> u64 {
    pointer as u64
}
