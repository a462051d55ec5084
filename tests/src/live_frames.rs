//! The fastest exact sender: a BPF program that redirects live frames into an interface, in the kernel.

use anyhow::{Context as _, Result};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// Frames that the kernel hands over at a time. The queue of a veth holds 256.
const BATCH_FRAMES: u32 = 64;
const PROGRAM: &str = "redirect";

/// A loaded program that sends whatever frame it is run on.
pub struct LiveFrames {
    ebpf: Ebpf,
}

impl LiveFrames {
    /// Loads the program that sends on this interface of the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn to(if_index: u32) -> Result<Self> {
        Self::load(&redirect(if_index))
    }

    /// The same, with a random source address and random ports in each packet, which is IPv4 without
    /// options and without tags: 64 bits in which no two of ten million are the same.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn flood(if_index: u32) -> Result<Self> {
        Self::load(&[randomize(), redirect(if_index)].concat())
    }

    fn load(code: &[[u8; 8]]) -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(&object(code)?)?;
        let program: &mut Xdp = ebpf.program_mut(PROGRAM).context("the program is in it")?.try_into()?;
        program.load()?;
        Ok(Self { ebpf })
    }

    /// Sends a frame `count` times.
    ///
    /// The kernel writes the frame once and uses its memory again and again, so a frame that the
    /// receiving network stack changes (it moves the addresses over a VLAN tag) must not be sent so.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn send(&self, frame: &[u8], count: u32) -> Result<()> {
        let program: &Xdp = self.ebpf.program(PROGRAM).context("the program is in it")?.try_into()?;
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH_FRAMES);
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: count,
            attrs,
            ..TestRunOptions::new()
        })?;
        Ok(())
    }
}

/// An instruction: code, destination in the lower and source register in the upper half, offset, number.
fn instruction(code: u8, registers: u8, offset: i16, immediate: u32) -> [u8; 8] {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = immediate.to_le_bytes();
    [code, registers, low, high, a, b, c, d]
}

/// `return bpf_redirect(if_index, 0)`.
fn redirect(if_index: u32) -> Vec<[u8; 8]> {
    let (move_immediate, call, exit, bpf_redirect) = (0xb7, 0x85, 0x95, 23);
    vec![
        instruction(move_immediate, 1, 0, if_index),
        instruction(move_immediate, 2, 0, 0),
        instruction(call, 0, 0, bpf_redirect),
        instruction(exit, 0, 0, 0),
    ]
}

/// Writes random numbers over the source address and the ports, in a frame that has them.
fn randomize() -> Vec<[u8; 8]> {
    let (move_register, add_immediate, load_word, store_word) = (0xbf, 0x07, 0x61, 0x63);
    let (jump_greater, call, bpf_get_prandom_u32) = (0x2d, 0x85, 7);
    let (source, ports, ports_end) = (14 + 12, 14 + 20, 14 + 24);
    vec![
        // r6 = data, r3 = data_end, r2 = r6 + ports_end
        instruction(load_word, 0x16, 0, 0),
        instruction(load_word, 0x13, 4, 0),
        instruction(move_register, 0x62, 0, 0),
        instruction(add_immediate, 0x02, 0, ports_end),
        instruction(jump_greater, 0x32, 4, 0),
        instruction(call, 0, 0, bpf_get_prandom_u32),
        instruction(store_word, 0x06, source, 0),
        instruction(call, 0, 0, bpf_get_prandom_u32),
        instruction(store_word, 0x06, ports, 0),
    ]
}

/// An object file with one program.
fn object(code: &[[u8; 8]]) -> Result<Vec<u8>> {
    let code = code.concat();
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"Dual MIT/GPL\0", 1);
    let section = file.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    let size = u64::try_from(code.len())?;
    file.append_section_data(section, &code, 8);
    file.add_symbol(Symbol {
        name: PROGRAM.as_bytes().to_vec(),
        value: 0,
        size,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(file.write()?)
}
