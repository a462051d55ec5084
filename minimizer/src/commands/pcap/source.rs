//! A file read piece by piece, with the offset of each piece.

use std::io::{self, Read};

/// Octets read at a time.
const READ_OCTETS: usize = 64 * 1024;

pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Start of the current unit in `buffer`.
    start: usize,
    /// Length of the current unit, which `advance` skips.
    taken: usize,
    /// Offset of the current unit in the file.
    offset: u64,
}

impl Source {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, taken: 0, offset: 0 }
    }

    /// Offset of the current unit in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The buffered octets of the current unit, and perhaps of the next ones.
    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Moves to the next unit.
    pub(super) fn advance(&mut self) {
        self.start += self.taken;
        self.offset += self.taken as u64;
        self.taken = 0;
    }

    /// Sets the length of the current unit and returns it. It must be buffered.
    pub(super) fn take(&mut self, octets: usize) -> &[u8] {
        self.taken = octets;
        &self.buffer[self.start..self.start + octets]
    }

    /// Reads until `octets` of the unit are buffered; `false` if the file ends before.
    pub(super) fn fill(&mut self, octets: usize) -> io::Result<bool> {
        while self.data().len() < octets {
            self.buffer.drain(..self.start);
            self.start = 0;
            let buffered = self.buffer.len();
            self.buffer.resize(buffered + READ_OCTETS, 0);
            let read = loop {
                match self.reader.read(&mut self.buffer[buffered..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.buffer.truncate(buffered + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
