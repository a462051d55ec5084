//! Extracts the kernel object from an agent's binary, so that the check covers what ships.

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{EM_BPF, FileHeader64};
use object::read::elf::FileHeader as _;

const MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";

/// The only BPF object file in the bytes of a binary.
///
/// # Errors
/// If there is none, or more than one.
pub fn find(binary: &[u8]) -> Result<&[u8]> {
    let mut objects = (0..binary.len())
        .filter(|at| binary[*at..].starts_with(MAGIC))
        .filter_map(|at| object_at(&binary[at..]));
    let object = objects.next().context("there is no kernel program in it; run `cargo xtask setup`")?;
    if objects.next().is_some() {
        bail!("there is more than one kernel program in it");
    }
    Ok(object)
}

/// The object file at the start of the bytes. LLVM writes its table of sections last.
fn object_at(bytes: &[u8]) -> Option<&[u8]> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = Endianness::Little;
    if header.e_machine(endian) != EM_BPF {
        return None;
    }
    let sections = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
    let end = header.e_shoff(endian).checked_add(sections)?;
    bytes.get(..usize::try_from(end).ok()?)
}
