//! The memory that an interpreted program sees: pieces far apart, and which lines of them it touches.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};

/// Distance of the pieces' addresses, in bits.
const SPACE_BITS: u32 = 36;
/// Octets of a page, at whose start a piece begins.
const PAGE: u64 = 4096;
/// Octets of a cache line, in bits.
const LINE_BITS: u32 = 6;

/// What a piece of memory is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its stack, the frame, what the kernel tells it: in the nearest cache.
    Private,
    /// A map.
    Map,
    /// A map that nobody writes while the program runs.
    Constants,
}

#[derive(Debug)]
struct Piece {
    start: u64,
    octets: Vec<u8>,
    is: Use,
}

/// All pieces.
#[derive(Debug, Default)]
pub struct Memory {
    pieces: Vec<Piece>,
    /// Lines of maps that were touched since this was last cleared.
    pub lines: BTreeSet<u64>,
    /// Lines of constants.
    pub constant_lines: BTreeSet<u64>,
}

impl Memory {
    /// Adds a piece and returns its address, of which `aligned` octets further a page begins.
    pub fn add(&mut self, is: Use, octets: Vec<u8>, aligned: usize) -> u64 {
        let number = self.pieces.len() as u64 + 1;
        let start = (number << SPACE_BITS) + PAGE - aligned as u64 % PAGE;
        self.pieces.push(Piece { start, octets, is });
        start
    }

    /// Whether an address is one of a piece.
    #[must_use]
    pub fn is_known(&self, address: u64) -> bool {
        self.find(address, 1).is_ok()
    }

    /// Octets that the program does not touch itself.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn bytes(&self, address: u64, octets: usize) -> anyhow::Result<&[u8]> {
        let (piece, from) = self.find(address, octets)?;
        Ok(&self.pieces[piece].octets[from..from + octets])
    }

    /// The same, to be written.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn bytes_mut(&mut self, address: u64, octets: usize) -> anyhow::Result<&mut [u8]> {
        let (piece, from) = self.find(address, octets)?;
        Ok(&mut self.pieces[piece].octets[from..from + octets])
    }

    /// Loads up to eight octets.
    ///
    /// # Errors
    /// Where there is no memory.
    pub fn load(&mut self, address: u64, octets: usize) -> anyhow::Result<u64> {
        self.touch(address, octets)?;
        let mut word = [0; 8];
        word[..octets].copy_from_slice(self.bytes(address, octets)?);
        Ok(u64::from_le_bytes(word))
    }

    /// Stores up to eight octets.
    ///
    /// # Errors
    /// Where there is no memory, or it is constant.
    pub fn store(&mut self, address: u64, octets: usize, value: u64) -> anyhow::Result<()> {
        let piece = self.touch(address, octets)?;
        ensure!(self.pieces[piece].is != Use::Constants, "a store to constants at {address:#x}");
        self.bytes_mut(address, octets)?.copy_from_slice(&value.to_le_bytes()[..octets]);
        Ok(())
    }

    fn touch(&mut self, address: u64, octets: usize) -> anyhow::Result<usize> {
        let (piece, _) = self.find(address, octets)?;
        let lines = match self.pieces[piece].is {
            Use::Private => return Ok(piece),
            Use::Map => &mut self.lines,
            Use::Constants => &mut self.constant_lines,
        };
        lines.extend(address >> LINE_BITS..=(address + octets as u64 - 1) >> LINE_BITS);
        Ok(piece)
    }

    fn find(&self, address: u64, octets: usize) -> anyhow::Result<(usize, usize)> {
        let number = usize::try_from(address >> SPACE_BITS)?;
        let place = number.checked_sub(1).with_context(|| format!("no memory at {address:#x}"))?;
        let Some(piece) = self.pieces.get(place) else { bail!("no memory at {address:#x}") };
        let from = address.checked_sub(piece.start).map(usize::try_from).transpose()?;
        match from {
            Some(from) if from + octets <= piece.octets.len() => Ok((place, from)),
            _ => bail!("{octets} octets at {address:#x} lie outside of the piece at {:#x}", piece.start),
        }
    }
}
