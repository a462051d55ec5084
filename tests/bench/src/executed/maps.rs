//! The maps of an interpreted program: copies of the kernel's, laid out in memory as its inlined look-ups expect.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail, ensure};
use aya::maps::{MapFd, MapInfo, MapType};

use super::kernel::{look_up, update};
use super::memory::{Memory, Use};

/// `BPF_F_RDONLY_PROG` of `linux/bpf.h`: programs only read the map.
const READ_ONLY: u32 = 1 << 7;
/// `BPF_F_MMAPABLE`: the values begin at a page.
const MMAPABLE: u32 = 1 << 10;
/// `BPF_NOEXIST`: an insertion of a known key fails.
const NO_EXIST: u64 = 1;
/// Octets of an element of a hash before its value, at the most.
const ELEMENT_OCTETS: usize = 512;
const EXISTS: i64 = -17;
const FULL: i64 = -7;

/// All maps that a program can reach.
pub struct Maps {
    /// Where the values of an array begin behind its address.
    values_offset: usize,
    cpu: usize,
    cpus: usize,
    by_id: BTreeMap<u32, Copied>,
}

/// One map.
struct Copied {
    fd: MapFd,
    kind: MapType,
    key_octets: usize,
    value_octets: usize,
    entries: usize,
    is_constant: bool,
    /// What stands for it in registers.
    address: u64,
    /// Addresses of the values that this CPU sees, in the order of the keys; arrays only.
    values: Vec<u64>,
    /// The values as the kernel had them; arrays only.
    before: Vec<Vec<u8>>,
    /// Elements and their values by key; hashes only.
    elements: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Octets before the value of an element, as the program's latest look-up adds them.
    value_offset: usize,
}

const fn rounded(octets: usize) -> usize {
    octets.next_multiple_of(8)
}

impl Maps {
    /// No maps yet.
    #[must_use]
    pub const fn new(values_offset: usize, cpu: usize, cpus: usize) -> Self {
        Self { values_offset, cpu, cpus, by_id: BTreeMap::new() }
    }

    /// The address of a map, which is copied from the kernel when it is first named, with all maps in it.
    ///
    /// # Errors
    /// What the kernel answers; a map of a kind that the interpreter does not know.
    pub fn address(&mut self, memory: &mut Memory, id: u32) -> anyhow::Result<u64> {
        if let Some(copied) = self.by_id.get(&id) {
            return Ok(copied.address);
        }
        let info = MapInfo::from_id(id)?;
        let mut copied = Copied {
            fd: info.fd()?,
            kind: info.map_type()?,
            key_octets: usize::try_from(info.key_size())?,
            value_octets: usize::try_from(info.value_size())?,
            entries: usize::try_from(info.max_entries())?,
            is_constant: info.map_flags() & READ_ONLY != 0,
            address: 0,
            values: Vec::new(),
            before: Vec::new(),
            elements: BTreeMap::new(),
            value_offset: 0,
        };
        let is_page = info.map_flags() & MMAPABLE != 0;
        match copied.kind {
            MapType::Array => self.array(memory, &mut copied, is_page)?,
            MapType::PerCpuArray | MapType::ArrayOfMaps => self.pointers(memory, &mut copied)?,
            MapType::Hash | MapType::PerCpuHash => copied.address = memory.add(Use::Private, vec![0; 8], 0),
            kind => bail!("the interpreter has no maps of kind {kind:?}"),
        }
        let address = copied.address;
        self.by_id.insert(id, copied);
        Ok(address)
    }

    /// The address of an octet in a map's first value.
    ///
    /// # Errors
    /// As for [`Self::address`].
    pub fn value(&mut self, memory: &mut Memory, id: u32, offset: u64) -> anyhow::Result<u64> {
        self.address(memory, id)?;
        let first = self.by_id.get(&id).and_then(|copied| copied.values.first());
        Ok(first.context("a map without values")? + offset)
    }

    fn array(&self, memory: &mut Memory, copied: &mut Copied, is_page: bool) -> anyhow::Result<()> {
        let stride = rounded(copied.value_octets);
        let mut octets = vec![0; self.values_offset];
        for index in 0..copied.entries {
            let key = u32::try_from(index)?.to_ne_bytes();
            let value = look_up(copied.fd.as_fd(), &key, copied.value_octets)?;
            let value = value.context("an array without one of its values")?;
            octets.extend_from_slice(&value);
            octets.resize(self.values_offset + (index + 1) * stride, 0);
            copied.before.push(value);
        }
        let is = if copied.is_constant { Use::Constants } else { Use::Map };
        copied.address = memory.add(is, octets, if is_page { self.values_offset } else { 0 });
        let first = copied.address + self.values_offset as u64;
        copied.values = (0..copied.entries).map(|index| first + (index * stride) as u64).collect();
        Ok(())
    }

    /// An array whose values are addresses of others.
    fn pointers(&mut self, memory: &mut Memory, copied: &mut Copied) -> anyhow::Result<()> {
        let mut octets = vec![0; self.values_offset];
        for index in 0..copied.entries {
            let key = u32::try_from(index)?.to_ne_bytes();
            let pointer = if copied.kind == MapType::ArrayOfMaps {
                match look_up(copied.fd.as_fd(), &key, 4)?.and_then(|id| id.first_chunk().copied()) {
                    Some(id) => self.address(memory, u32::from_ne_bytes(id))?,
                    None => 0,
                }
            } else {
                let value = self.of_this_cpu(copied, &key)?;
                copied.before.push(value.clone());
                let address = memory.add(Use::Map, value, 0);
                copied.values.push(address);
                address
            };
            octets.extend(pointer.to_le_bytes());
        }
        copied.address = memory.add(Use::Map, octets, 0);
        Ok(())
    }

    /// The value of a per-CPU map that this CPU sees.
    fn of_this_cpu(&self, copied: &Copied, key: &[u8]) -> anyhow::Result<Vec<u8>> {
        let stride = rounded(copied.value_octets);
        let all = look_up(copied.fd.as_fd(), key, stride * self.cpus)?.context("no such element")?;
        Ok(all[self.cpu * stride..][..copied.value_octets].to_vec())
    }

    fn named(&mut self, address: u64) -> anyhow::Result<&mut Copied> {
        self.by_id.values_mut().find(|copied| copied.address == address).context("not the address of a map")
    }

    /// What the kernel's function for arrays returns: the address of a value, or zero.
    ///
    /// # Errors
    /// When there is no such map, or no key at that address.
    pub fn array_value(&mut self, memory: &Memory, map: u64, key: u64) -> anyhow::Result<u64> {
        let index = memory.bytes(key, 4)?.first_chunk().copied().map_or(0, u32::from_le_bytes);
        let copied = self.named(map)?;
        ensure!(copied.kind != MapType::ArrayOfMaps, "a look-up of a map that is not inlined");
        Ok(copied.values.get(usize::try_from(index)?).copied().unwrap_or(0))
    }

    /// What the kernel's function for hashes returns: the address of an element, or zero. `value_offset` is what
    /// the program adds to it.
    ///
    /// # Errors
    /// As for [`Self::array_value`].
    pub fn element(
        &mut self,
        memory: &Memory,
        map: u64,
        key: u64,
        value_offset: usize,
    ) -> anyhow::Result<u64> {
        let copied = self.named(map)?;
        copied.value_offset = value_offset;
        let key = memory.bytes(key, copied.key_octets)?;
        Ok(copied.elements.get(key).map_or(0, |(element, _)| *element))
    }

    /// What the kernel's function for updates of hashes does and returns.
    ///
    /// # Errors
    /// As for [`Self::array_value`].
    pub fn update(&mut self, memory: &mut Memory, [map, key, value, flags]: [u64; 4]) -> anyhow::Result<i64> {
        let copied = self.named(map)?;
        let key = memory.bytes(key, copied.key_octets)?.to_vec();
        let value = memory.bytes(value, copied.value_octets)?.to_vec();
        if let Some((_, known)) = copied.elements.get(&key) {
            if flags & NO_EXIST != 0 {
                return Ok(EXISTS);
            }
            memory.bytes_mut(*known, value.len())?.copy_from_slice(&value);
            return Ok(0);
        }
        if copied.elements.len() >= copied.entries {
            return Ok(FULL);
        }
        let places = if copied.kind == MapType::PerCpuHash {
            let of_cpu = memory.add(Use::Map, value, 0);
            // Whichever word the program loads is the address of the values.
            let words = of_cpu.to_le_bytes().repeat(ELEMENT_OCTETS / 8);
            (memory.add(Use::Map, words, 0), of_cpu)
        } else {
            let octets = [vec![0; copied.value_offset], value].concat();
            let element = memory.add(Use::Map, octets, 0);
            (element, element + copied.value_offset as u64)
        };
        copied.elements.insert(key, places);
        Ok(0)
    }

    /// Writes what the program changed into the kernel's maps.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn write_back(&self, memory: &Memory) -> anyhow::Result<()> {
        for copied in self.by_id.values() {
            let fd = copied.fd.as_fd();
            for (index, (address, before)) in copied.values.iter().zip(&copied.before).enumerate() {
                let value = memory.bytes(*address, copied.value_octets)?;
                if value != before {
                    let key = u32::try_from(index)?.to_ne_bytes();
                    update(fd, &key, &mut self.of_every_cpu(copied, &key, value)?)?;
                }
            }
            for (key, (_, address)) in &copied.elements {
                let value = memory.bytes(*address, copied.value_octets)?;
                update(fd, key, &mut self.of_every_cpu(copied, key, value)?)?;
            }
        }
        Ok(())
    }

    /// A value as the kernel takes it: of per-CPU maps, with the values of the other CPUs.
    fn of_every_cpu(&self, copied: &Copied, key: &[u8], value: &[u8]) -> anyhow::Result<Vec<u8>> {
        if !matches!(copied.kind, MapType::PerCpuArray | MapType::PerCpuHash) {
            return Ok(value.to_vec());
        }
        let stride = rounded(copied.value_octets);
        let octets = stride * self.cpus;
        let mut all = look_up(copied.fd.as_fd(), key, octets)?.unwrap_or_else(|| vec![0; octets]);
        all[self.cpu * stride..][..value.len()].copy_from_slice(value);
        Ok(all)
    }
}
