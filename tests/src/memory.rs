//! The memory of a process, searched for keys.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use procfs::process::{MMPermissions, MMapPath, Process, VmFlags};

/// Octets of what is searched for.
pub const PART_OCTETS: usize = 8;
/// Octets that are read at once.
const PIECE_OCTETS: usize = 1 << 20;

/// Where a part of a key lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address.
    pub address: u64,
    /// What the kernel calls the memory around it.
    pub mapping: String,
    /// Whether core dumps leave that memory out.
    pub is_left_out_of_dumps: bool,
}

/// Every place in the memory of a process where one of these keys begins, goes on or ends: each is cut into parts of
/// [`PART_OCTETS`], and every part is searched for. By the name of the key.
///
/// # Errors
/// When the kernel does not show the memory.
pub fn places(process: u32, keys: &[(&'static str, Vec<u8>)]) -> Result<HashMap<&'static str, Vec<Place>>> {
    let mut parts = HashMap::new();
    for (name, key) in keys {
        let (cut, rest) = key.as_chunks::<PART_OCTETS>();
        ensure!(rest.is_empty(), "{name} has {} octets", key.len());
        parts.extend(cut.iter().map(|part| (u64::from_ne_bytes(*part), *name)));
    }
    // Most words of the memory differ from all parts already in their first two octets.
    let mut begins = vec![false; 1 << 16];
    parts.keys().for_each(|part| begins[begin(*part)] = true);
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let mut places = HashMap::<_, Vec<_>>::new();
    let mut searched_octets = 0;
    for mapping in Process::new(i32::try_from(process)?)?.smaps()? {
        if !mapping.perms.contains(MMPermissions::READ) || mapping.pathname == MMapPath::Vsyscall {
            continue;
        }
        let (mut from, end) = mapping.address;
        while from < end {
            let mut piece = vec![0; PIECE_OCTETS.min(usize::try_from(end - from)?)];
            let octets = match memory.read_at(&mut piece, from) {
                Ok(octets) => octets,
                // The kernel's own pages, and what was unmapped meanwhile.
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                Err(_) => continue,
            };
            for (offset, window) in piece[..octets].windows(PART_OCTETS).enumerate() {
                let word = u64::from_ne_bytes(window.try_into()?);
                if begins[begin(word)]
                    && let Some(name) = parts.get(&word)
                {
                    places.entry(*name).or_default().push(Place {
                        address: from + u64::try_from(offset)?,
                        mapping: format!("{:?}", mapping.pathname),
                        is_left_out_of_dumps: mapping.extension.vm_flags.contains(VmFlags::DD),
                    });
                }
            }
            searched_octets += octets;
            // Pieces overlap, so that nothing hides at a seam.
            let step = if octets < piece.len() || from + u64::try_from(octets)? == end {
                octets
            } else {
                octets - (PART_OCTETS - 1)
            };
            from += u64::try_from(step.max(1))?;
        }
    }
    ensure!(searched_octets > 0, "no memory was read");
    Ok(places)
}

fn begin(word: u64) -> usize {
    usize::from(u16::try_from(word & 0xffff).unwrap_or_default())
}

/// The places of one key.
///
/// # Errors
/// When it lies nowhere.
pub fn of<'places>(places: &'places HashMap<&str, Vec<Place>>, key: &str) -> Result<&'places [Place]> {
    places.get(key).map(Vec::as_slice).with_context(|| format!("{key} is nowhere"))
}
