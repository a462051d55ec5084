//! Reads the Ethernet frames of a capture, pcap or pcapng, one at a time and never the whole file.

mod blocks;
mod records;
mod source;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use blocks::Blocks;
use pcap_parser::Linktype;
use records::Records;
use source::Source;

/// Longest frame that is read: the largest snap length that libpcap accepts.
pub const FRAME_OCTETS_MAX: u32 = 256 * 1024;

/// A frame of a capture, as long as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame from its destination address on. Octets that the snap length cut off are zero.
    pub data: Vec<u8>,
    /// Length on the wire: the length of `data`.
    pub original_octets: u32,
    /// Nanoseconds since 1970; 0 for frames without a time (simple packet blocks).
    pub time_ns: u64,
    /// Frames of the capture before this one.
    pub index: u64,
}

/// Why a capture cannot be read, or not further. Frames before the error have been returned.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file does not open.
    #[error("cannot open capture {}: {source}", path.display())]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file opens but reading it fails.
    #[error("cannot read capture {} behind byte {offset}: {source}", path.display())]
    Read {
        /// What is read.
        path: PathBuf,
        /// Bytes consumed before the failure.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The first bytes belong to no capture format.
    #[error(
        "{} is not a capture: it starts with [{start}], which is neither pcap nor pcapng", path.display()
    )]
    NotACapture {
        /// What was opened.
        path: PathBuf,
        /// Its first bytes, four at most, in hexadecimal.
        start: String,
    },
    /// The capture is damaged.
    #[error("capture {} is damaged at byte {offset}, after {frames} whole frames: {damage}", path.display())]
    Damaged {
        /// What is read.
        path: PathBuf,
        /// Where the damaged header, record or block starts.
        offset: u64,
        /// Whole frames before the damage.
        frames: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The capture has frames of another link layer.
    #[error(
        "capture {}: the frame at byte {offset} has link type {link_type}; only Ethernet (link type 1) is supported",
        path.display()
    )]
    LinkType {
        /// What is read.
        path: PathBuf,
        /// Offset of the file header or block with the link type.
        offset: u64,
        /// Name and number of the link type.
        link_type: String,
    },
}

/// What is wrong with a damaged capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends too early.
    #[error("the file ends inside the {0}")]
    EndsInside(Unit),
    /// A pcapng block of impossible length.
    #[error("a block cannot be {0} bytes long")]
    BlockLength(u32),
    /// The two lengths of a pcapng block differ.
    #[error("the block is {start} bytes long by its start and {end} by its end")]
    BlockLengths {
        /// Length in front of the content.
        start: u32,
        /// Length behind the content.
        end: u32,
    },
    /// A section header with an unknown byte-order magic.
    #[error("the section header has byte-order magic {0:#010x}")]
    ByteOrder(u32),
    /// A pcapng block whose content contradicts its length.
    #[error("the content of block type {0:#x} does not fit in the block")]
    Content(u32),
    /// A packet block that holds fewer octets than it claims.
    #[error("the block claims {claimed} octets of a frame and holds {held}")]
    Captured {
        /// Captured octets by the block's header.
        claimed: u32,
        /// Octets in the block.
        held: usize,
    },
    /// A packet of an interface without a description.
    #[error("the packet is of interface {interface}, of {described} that are described")]
    Interface {
        /// Index of the interface.
        interface: u32,
        /// Interface description blocks in the section.
        described: usize,
    },
    /// A frame longer than [`FRAME_OCTETS_MAX`].
    #[error("the frame would be {0} octets long, more than {FRAME_OCTETS_MAX}")]
    FrameLength(u32),
}

/// The part of a capture inside which the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The header of a pcap file.
    FileHeader,
    /// A record of a pcap file.
    Record,
    /// A block of a pcapng file.
    Block,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::FileHeader => "file header",
            Self::Record => "frame's record",
            Self::Block => "block",
        })
    }
}

/// A capture that is being read: an iterator that ends at the end of the file or behind an error.
pub struct Capture {
    path: PathBuf,
    source: Source,
    format: Format,
    frames: u64,
    failed: bool,
}

enum Format {
    Pcap(Records),
    PcapNg(Blocks),
}

/// Why reading stops; [`Capture`] adds where and in which file.
enum Stop {
    Read(io::Error),
    Damaged(Damage),
    LinkType(Linktype),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<Damage> for Stop {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// A frame as it lies in the capture.
struct Captured<'a> {
    data: &'a [u8],
    original_octets: u32,
    time_ns: u64,
}

impl Capture {
    /// Opens the capture at `path`; `-` is the standard input.
    ///
    /// # Errors
    /// The file does not open, is no capture, or is of another link type.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        if path == Path::new("-") {
            return Self::from_reader(path, Box::new(io::stdin()));
        }
        match File::open(path) {
            Ok(file) => Self::from_reader(path, Box::new(file)),
            Err(source) => Err(CaptureError::Open { path: path.to_owned(), source }),
        }
    }

    /// Reads a capture from `reader`; `path` is its name in errors.
    ///
    /// # Errors
    /// The first bytes belong to no capture, or to one of another link type.
    pub fn from_reader(path: &Path, reader: Box<dyn Read + Send>) -> Result<Self, CaptureError> {
        let mut source = Source::new(reader);
        let format = match source.fill(4).map_err(Stop::from) {
            Err(stop) => Err(stop),
            Ok(_) if Blocks::recognize(source.data()) => Ok(Format::PcapNg(Blocks::default())),
            Ok(_) if Records::recognize(source.data()) => Records::open(&mut source).map(Format::Pcap),
            Ok(_) => {
                let start = source.data().iter().take(4).map(|byte| format!("{byte:02x}"));
                let start = start.collect::<Vec<_>>().join(" ");
                return Err(CaptureError::NotACapture { path: path.to_owned(), start });
            }
        };
        match format {
            Ok(format) => Ok(Self { path: path.to_owned(), source, format, frames: 0, failed: false }),
            Err(stop) => Err(stop.at(path, source.offset(), 0)),
        }
    }

    fn read(&mut self) -> Result<Option<Frame>, Stop> {
        let captured = match &mut self.format {
            Format::Pcap(records) => records.next(&mut self.source)?,
            Format::PcapNg(blocks) => blocks.next(&mut self.source)?,
        };
        let Some(captured) = captured else { return Ok(None) };
        let original_octets = captured.original_octets;
        if original_octets > FRAME_OCTETS_MAX {
            return Err(Damage::FrameLength(original_octets).into());
        }
        let mut data = captured.data.to_vec();
        // Octets beyond the original length were not on the wire.
        data.resize(original_octets as usize, 0);
        let frame = Frame { data, original_octets, time_ns: captured.time_ns, index: self.frames };
        Ok(Some(frame))
    }
}

impl Iterator for Capture {
    type Item = Result<Frame, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.read() {
            Ok(None) => None,
            Ok(Some(frame)) => {
                self.frames += 1;
                Some(Ok(frame))
            }
            Err(stop) => {
                self.failed = true;
                Some(Err(stop.at(&self.path, self.source.offset(), self.frames)))
            }
        }
    }
}

impl Stop {
    fn at(self, path: &Path, offset: u64, frames: u64) -> CaptureError {
        let path = path.to_owned();
        match self {
            Self::Read(source) => CaptureError::Read { path, offset, source },
            Self::Damaged(damage) => CaptureError::Damaged { path, offset, frames, damage },
            Self::LinkType(link_type) => {
                CaptureError::LinkType { path, offset, link_type: format!("{link_type} ({})", link_type.0) }
            }
        }
    }
}
