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
        let mut ebpf = EbpfLoader::new().load(&redirect(if_index)?)?;
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

/// An object file with `return bpf_redirect(if_index, 0)`.
fn redirect(if_index: u32) -> Result<Vec<u8>> {
    let instruction = |code: u8, register: u8, immediate: u32| {
        let mut octets = [0; 8];
        octets[0] = code;
        octets[1] = register;
        octets[4..].copy_from_slice(&immediate.to_le_bytes());
        octets
    };
    let (move_immediate, call, exit, bpf_redirect) = (0xb7, 0x85, 0x95, 23);
    let code = [
        instruction(move_immediate, 1, if_index),
        instruction(move_immediate, 2, 0),
        instruction(call, 0, bpf_redirect),
        instruction(exit, 0, 0),
    ]
    .concat();
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
