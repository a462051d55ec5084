//! Reads an object file: its programs with resolved map references, its maps and its licence.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use aya_obj::maps::Map;
use minimizer_common::settings::CURRENT_MAP;
use object::elf::{FileHeader64, SHF_EXECINSTR};
use object::read::elf::{ElfFile, ElfSymbol};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, Relocation, RelocationTarget,
    SectionFlags, SectionIndex, SymbolKind,
};

use super::instruction::{Call, INSTRUCTION_BYTES, Instruction, LOAD_IMMEDIATE_64};

type Elf<'bytes> = ElfFile<'bytes, FileHeader64<Endianness>>;
type Symbol<'bytes, 'elf> = ElfSymbol<'bytes, 'elf, FileHeader64<Endianness>>;

/// Section of the functions that programs call. The compiler also puts functions there that it always adds.
const SHARED_FUNCTIONS: &str = ".text";
const MAPS: &str = ".maps";
const CONSTANTS: &str = ".rodata";

/// An object file as the kernel and the loader see it.
pub struct KernelObject {
    /// Programs, by name. Their sections must be those of the rules.
    pub programs: Vec<Program>,
    /// Maps that the object defines, with the map of its constants.
    pub maps: BTreeMap<String, MapShape>,
    /// Text of the licence.
    pub licence: String,
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The section. It tells the loader the program's type.
    pub section: String,
    /// The instructions of the program and of the functions that it calls. A 64-bit constant takes two.
    pub instructions: Vec<Instruction>,
    /// The targets of the 64-bit constants at these positions.
    pub references: BTreeMap<usize, Reference>,
}

/// The target of a 64-bit constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A map.
    Map(String),
    /// A byte of the constants, or of the variable that only the agent writes.
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
}

impl KernelObject {
    /// Parses the bytes of an object file.
    ///
    /// # Errors
    /// If the bytes are not a BPF object, or not one that this check understands.
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
        Ok(Self { programs: programs(&elf)?, maps, licence })
    }
}

impl MapShape {
    fn of(map: &Map) -> Self {
        Self {
            kind: map.map_type(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            entries: map.max_entries(),
        }
    }
}

/// Every function outside the shared section is a program.
fn programs(elf: &Elf<'_>) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    let mut covered: BTreeMap<usize, u64> = BTreeMap::new();
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
        *covered.entry(index.0).or_default() += symbol.size();
        let (name, section) = (symbol.name()?.to_owned(), name.to_owned());
        let mut program = Program { name, section, instructions: Vec::new(), references: BTreeMap::new() };
        Linker { elf, starts: BTreeMap::new() }.append(
            &mut program,
            index,
            symbol.address(),
            symbol.size(),
        )?;
        programs.push(program);
    }
    for (index, covered) in covered {
        let section = elf.section_by_index(SectionIndex(index))?;
        if covered != section.size() {
            bail!("section {} holds more than its functions", section.name()?);
        }
    }
    Ok(programs)
}

/// Appends functions to the program that calls them, in the loader's order.
struct Linker<'elf, 'bytes> {
    elf: &'elf Elf<'bytes>,
    /// The position in the program at which each shared function starts, by its address in the shared
    /// section.
    starts: BTreeMap<u64, usize>,
}

impl<'elf, 'bytes> Linker<'elf, 'bytes> {
    /// Appends the function at `address` of `section` and the functions that it calls. Returns its position.
    fn append(
        &mut self,
        program: &mut Program,
        section: SectionIndex,
        address: u64,
        size: u64,
    ) -> Result<usize> {
        let code = self.elf.section_by_index(section)?;
        let start = usize::try_from(address)?;
        let bytes = code.data()?.get(start..start + usize::try_from(size)?);
        let (slots, rest) = bytes.context("a function reaches beyond its section")?.as_chunks();
        if !rest.is_empty() {
            bail!("a function ends inside an instruction");
        }
        let first = program.instructions.len();
        program.instructions.extend(slots.iter().map(|slot| Instruction::from_bytes(*slot)));
        let relocations = code.relocations().collect::<BTreeMap<_, _>>();
        for at in first..program.instructions.len() {
            let offset = address + u64::try_from((at - first) * INSTRUCTION_BYTES)?;
            let symbol = match relocations.get(&offset).map(Relocation::target) {
                None => None,
                Some(RelocationTarget::Symbol(symbol)) => Some(self.elf.symbol_by_index(symbol)?),
                Some(_) => bail!("instruction {at} refers to something that has no name"),
            };
            let instruction = program.instructions[at];
            if instruction.call() == Some(Call::Function) {
                let callee = match symbol {
                    Some(symbol) => self.callee_of(&symbol, instruction.immediate)?,
                    // A call within a section gives the distance.
                    None => {
                        let distance = (i64::from(instruction.immediate) + 1) * INSTRUCTION_BYTES as i64;
                        self.function(section, offset.checked_add_signed(distance))?
                    }
                };
                let target = match self.starts.get(&callee.address()) {
                    Some(known) => *known,
                    None => {
                        self.starts.insert(callee.address(), program.instructions.len());
                        let section = callee.section_index().context("a call of another file")?;
                        self.append(program, section, callee.address(), callee.size())?
                    }
                };
                program.instructions[at].immediate = i32::try_from(target)? - i32::try_from(at)? - 1;
            } else if let Some(symbol) = symbol {
                let reference = reference(self.elf, &symbol, at, instruction)?;
                program.references.insert(at, reference);
            }
        }
        Ok(first)
    }

    /// The function that a call names, by symbol or by distance from the start of the section.
    fn callee_of(&self, symbol: &Symbol<'_, '_>, immediate: i32) -> Result<Symbol<'bytes, 'elf>> {
        let distance = if symbol.kind() == SymbolKind::Section { i64::from(immediate) + 1 } else { 0 };
        let address = symbol.address().checked_add_signed(distance * INSTRUCTION_BYTES as i64);
        self.function(symbol.section_index().context("a call of another file")?, address)
    }

    fn function(&self, section: SectionIndex, address: Option<u64>) -> Result<Symbol<'bytes, 'elf>> {
        let is_callee = |other: &Symbol<'_, '_>| {
            other.kind() == SymbolKind::Text
                && Some(other.address()) == address
                && other.section_index() == Some(section)
        };
        self.elf.symbols().find(is_callee).context("a call that leads to no function")
    }
}

/// What the loader puts into a 64-bit constant.
fn reference(
    elf: &Elf<'_>,
    symbol: &Symbol<'_, '_>,
    at: usize,
    instruction: Instruction,
) -> Result<Reference> {
    let target = symbol.section_index().context("an instruction refers to another file")?;
    let target = elf.section_by_index(target)?;
    if instruction.opcode != LOAD_IMMEDIATE_64 {
        bail!("instruction {at} refers to {}, which is not data", symbol.name()?);
    }
    Ok(match target.name()? {
        MAPS => Reference::Map(symbol.name()?.to_owned()),
        // To the program the variable is a constant: only the agent writes it.
        CONSTANTS | CURRENT_MAP => {
            Reference::Constant(i64::try_from(symbol.address())? + i64::from(instruction.immediate))
        }
        other => bail!("instruction {at} refers to section {other}: neither a map nor a constant"),
    })
}
