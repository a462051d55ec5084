//! The tag by which the kernel names a program: a digest of its instructions without map addresses.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::object::{Program, Reference};

/// Bytes of a tag.
pub const TAG_BYTES: usize = 8;

/// The tags that kernels compute for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// From SHA-256, in Linux 6.18 and later.
    pub sha256: [u8; TAG_BYTES],
    /// From SHA-1, in earlier kernels.
    pub sha1: [u8; TAG_BYTES],
}

/// The kernel's numbers for two kinds of 64-bit constants: a map, and a value in a map.
const MAP_DESCRIPTOR: u8 = 1;
const MAP_VALUE: u8 = 2;

impl Tags {
    /// Digests the instructions as `bpf_prog_calc_tag` does: a reference to a map keeps its kind and loses
    /// its number.
    pub fn of(program: &Program) -> Self {
        let mut bytes = Vec::with_capacity(program.instructions.len() * 8);
        for (at, instruction) in program.instructions.iter().enumerate() {
            let mut instruction = *instruction;
            let before = at.checked_sub(1).and_then(|before| program.references.get(&before));
            match program.references.get(&at) {
                Some(Reference::Map(_)) => (instruction.source, instruction.immediate) = (MAP_DESCRIPTOR, 0),
                Some(Reference::Constant(_)) => (instruction.source, instruction.immediate) = (MAP_VALUE, 0),
                None if before.is_some() => instruction.immediate = 0,
                None => {}
            }
            bytes.extend(instruction.to_bytes());
        }
        Self { sha256: head(&Sha256::digest(&bytes)), sha1: head(&Sha1::digest(&bytes)) }
    }
}

fn head(digest: &[u8]) -> [u8; TAG_BYTES] {
    *digest.first_chunk().expect("digests are longer than a tag")
}

/// Bytes in hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
