//! Reads an object file: its one program with map references resolved, its maps, its licence.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use aya_obj::maps::Map;
use object::elf::{FileHeader64, SHF_EXECINSTR};
use object::read::elf::ElfFile;
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionFlags,
    SymbolKind,
};

use super::instruction::{INSTRUCTION_BYTES, Instruction, LOAD_IMMEDIATE_64};

type Elf<'bytes> = ElfFile<'bytes, FileHeader64<Endianness>>;

/// Section of functions that programs share; here only what the compiler always adds.
const SHARED_FUNCTIONS: &str = ".text";
const MAPS: &str = ".maps";
const CONSTANTS: &str = ".rodata";

/// An object file as the kernel and its loader see it.
pub struct KernelObject {
    /// Programs by name, with the sections they lie in. There should be one.
    pub programs: Vec<Program>,
    /// Maps that the object defines, the one of its constants included.
    pub maps: BTreeMap<String, MapShape>,
    /// Byte offsets of the constants by name.
    pub constants: BTreeMap<String, i64>,
    /// Text of the licence.
    pub licence: String,
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The section, which tells the loader its type.
    pub section: String,
    /// Its instructions; a 64-bit constant takes two.
    pub instructions: Vec<Instruction>,
    /// What the 64-bit constants at these positions refer to.
    pub references: BTreeMap<usize, Reference>,
}

/// What a 64-bit constant refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A map.
    Map(String),
    /// A byte of the constants.
    Constant(i64),
}

/// Type and sizes of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// Number of the type in the kernel.
    pub kind: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Entries.
    pub entries: u32,
    /// Type and value size of the maps within.
    pub inner: Option<(u32, u32)>,
}

impl KernelObject {
    /// Parses the bytes of an object file.
    ///
    /// # Errors
    /// When they are not a BPF object, or not one that this check understands.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let elf = Elf::parse(bytes).context("not a 64-bit ELF file")?;
        if elf.architecture() != object::Architecture::Bpf {
            bail!("an ELF file, but not of BPF");
        }
        // The loader's own view of maps and licence.
        let loaded =
            aya_obj::Object::parse(bytes).map_err(|error| anyhow!("the loader refuses it: {error}"))?;
        let maps = loaded.maps.iter().map(|(name, map)| (name.clone(), MapShape::of(map))).collect();
        let licence = loaded.license.to_string_lossy().into_owned();
        Ok(Self { programs: programs(&elf)?, maps, constants: constants(&elf)?, licence })
    }
}

impl MapShape {
    fn of(map: &Map) -> Self {
        let inner = map.inner().map(|inner| (inner.map_type(), inner.value_size()));
        Self {
            kind: map.map_type(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            entries: map.max_entries(),
            inner,
        }
    }
}

fn constants(elf: &Elf<'_>) -> Result<BTreeMap<String, i64>> {
    let mut constants = BTreeMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Data) {
        let Some(index) = symbol.section_index() else { continue };
        if elf.section_by_index(index)?.name()? == CONSTANTS {
            constants.insert(symbol.name()?.to_owned(), i64::try_from(symbol.address())?);
        }
    }
    Ok(constants)
}

/// Every function outside the shared section is a program.
fn programs(elf: &Elf<'_>) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(index) = symbol.section_index() else { continue };
        let section = elf.section_by_index(index)?;
        let name = section.name()?;
        if name == SHARED_FUNCTIONS {
            continue;
        }
        let SectionFlags::Elf { sh_flags } = section.flags() else { bail!("section {name} has no flags") };
        if sh_flags & u64::from(SHF_EXECINSTR) == 0 {
            bail!("function {} lies in section {name}, which is not code", symbol.name()?);
        }
        if symbol.address() != 0 || symbol.size() != section.size() {
            bail!("section {name} holds more than function {}", symbol.name()?);
        }
        let (slots, rest) = section.data()?.as_chunks::<INSTRUCTION_BYTES>();
        if !rest.is_empty() {
            bail!("section {name} ends inside an instruction");
        }
        let instructions: Vec<_> = slots.iter().map(|slot| Instruction::from_bytes(*slot)).collect();
        let references = references(elf, index, &instructions)?;
        let (name, section) = (symbol.name()?.to_owned(), name.to_owned());
        programs.push(Program { name, section, instructions, references });
    }
    Ok(programs)
}

/// What the loader puts into the 64-bit constants of a section.
fn references(
    elf: &Elf<'_>,
    section: object::SectionIndex,
    instructions: &[Instruction],
) -> Result<BTreeMap<usize, Reference>> {
    let mut references = BTreeMap::new();
    for (offset, relocation) in elf.section_by_index(section)?.relocations() {
        let at = usize::try_from(offset)? / INSTRUCTION_BYTES;
        let RelocationTarget::Symbol(symbol) = relocation.target() else {
            bail!("instruction {at} refers to something that has no name");
        };
        let symbol = elf.symbol_by_index(symbol)?;
        let target = symbol.section_index().context("an instruction refers to another file")?;
        let target = elf.section_by_index(target)?;
        let instruction = instructions.get(at).context("a reference lies beyond its section")?;
        if instruction.opcode != LOAD_IMMEDIATE_64 {
            bail!("instruction {at} refers to {}, which is not data", symbol.name()?);
        }
        let reference = match target.name()? {
            MAPS => Reference::Map(symbol.name()?.to_owned()),
            CONSTANTS => {
                Reference::Constant(i64::try_from(symbol.address())? + i64::from(instruction.immediate))
            }
            other => bail!("instruction {at} refers to section {other}: neither a map nor a constant"),
        };
        references.insert(at, reference);
    }
    Ok(references)
}
