//! A file read piece by piece, with the offset of each piece.

use std::io::{self, Read};

/// Octets asked of the system at a time.
const READ_OCTETS: usize = 64 * 1024;

pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Start of the unit that is read, in `buffer`.
    start: usize,
    /// Octets of that unit, to be passed over by the next one.
    taken: usize,
    /// Offset of the unit in the file.
    offset: u64,
}

impl Source {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, taken: 0, offset: 0 }
    }

    /// Where the unit that is read starts in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What is buffered of the unit that is read, and perhaps of the next ones.
    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Moves to the unit behind the one that was taken.
    pub(super) fn advance(&mut self) {
        self.start += self.taken;
        self.offset += self.taken as u64;
        self.taken = 0;
    }

    /// Says how long the unit is that is read, and returns it; it is buffered already.
    pub(super) fn take(&mut self, octets: usize) -> &[u8] {
        self.taken = octets;
        &self.buffer[self.start..self.start + octets]
    }

    /// Reads until `octets` of the unit are buffered; `false` when the file ends before.
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
