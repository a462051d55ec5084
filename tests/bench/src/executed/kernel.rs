//! What the running kernel tells: the names of its functions, and what is in maps.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use anyhow::Context as _;

const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;

/// Names of the kernel's functions, by address.
#[derive(Debug, Default)]
pub struct Functions {
    base: u64,
    names: BTreeMap<u64, String>,
}

impl Functions {
    /// Reads all names.
    ///
    /// # Errors
    /// When the kernel does not show addresses.
    pub fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
        let mut names = BTreeMap::new();
        let mut base = None;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let address = u64::from_str_radix(address, 16)?;
            if name == "__bpf_call_base" {
                base = Some(address);
            }
            if name.contains("bpf") || name.contains("_map_") {
                names.insert(address, name.to_owned());
            }
        }
        let base = base.filter(|base| *base != 0).context("/proc/kallsyms shows no addresses")?;
        Ok(Self { base, names })
    }

    /// The function that a call's constant names: its distance from a certain function.
    #[must_use]
    pub fn called(&self, constant: i32) -> Option<&str> {
        self.names.get(&self.base.wrapping_add_signed(i64::from(constant))).map(String::as_str)
    }
}

/// The part of the kernel's `union bpf_attr` for single elements.
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads the value of a key; per-CPU maps give those of all CPUs. `None` when there is none.
///
/// # Errors
/// What the kernel answers.
pub fn look_up(map: BorrowedFd<'_>, key: &[u8], octets: usize) -> anyhow::Result<Option<Vec<u8>>> {
    let mut value = vec![0; octets];
    match element(LOOKUP, map, key, &mut value) {
        Ok(()) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error).context("BPF_MAP_LOOKUP_ELEM"),
    }
}

/// Writes the value of a key.
///
/// # Errors
/// What the kernel answers.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> anyhow::Result<()> {
    element(UPDATE, map, key, value).context("BPF_MAP_UPDATE_ELEM")
}

/// `key` and `value` have the octets that the kernel reads or writes.
fn element(command: libc::c_long, map: impl AsFd, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attributes = ElementAttributes {
        map: u32::try_from(map.as_fd().as_raw_fd()).map_err(io::Error::other)?,
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: key and value are of the map's sizes, and outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size_of::<ElementAttributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
