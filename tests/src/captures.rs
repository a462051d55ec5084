//! Writes captures, for tests that read them back through the agent or through other tools.

/// A frame to be written.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// The frame, as far as it was captured.
    pub data: Vec<u8>,
    /// Its length on the wire.
    pub original_octets: u32,
}

impl Captured {
    /// A frame that was captured whole.
    ///
    /// # Panics
    /// When the frame is longer than 4 GiB.
    #[must_use]
    pub fn whole(time_ns: u64, data: Vec<u8>) -> Self {
        let original_octets = u32::try_from(data.len()).expect("a frame");
        Self { time_ns, data, original_octets }
    }
}

const NANOSECONDS: u64 = 1_000_000_000;
const ETHERNET: u32 = 1;
const SNAP_OCTETS: u32 = 256 * 1024;

/// A pcap file with times in nanoseconds.
///
/// # Panics
/// When a time is beyond 2106.
#[must_use]
pub fn pcap(frames: &[Captured]) -> Vec<u8> {
    let mut file = words(&[0xa1b2_3c4d, 4 << 16 | 2, 0, 0, SNAP_OCTETS, ETHERNET]);
    for frame in frames {
        let seconds = u32::try_from(frame.time_ns / NANOSECONDS).expect("before 2106");
        let fraction = u32::try_from(frame.time_ns % NANOSECONDS).expect("below a second");
        let captured = u32::try_from(frame.data.len()).expect("a frame");
        file.extend(words(&[seconds, fraction, captured, frame.original_octets]));
        file.extend(&frame.data);
    }
    file
}

/// A pcapng file of one section, with the frames on two interfaces in turn: one counts microseconds,
/// the other nanoseconds.
///
/// # Panics
/// When a frame is longer than 4 GiB.
#[must_use]
pub fn pcapng(frames: &[Captured]) -> Vec<u8> {
    let mut file = block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
    file.extend(block(1, &words(&[ETHERNET, SNAP_OCTETS])));
    // if_tsresol: code 9, one octet, 10^-9.
    file.extend(block(1, &words(&[ETHERNET, SNAP_OCTETS, 1 << 16 | 9, 9, 0])));
    for (index, frame) in frames.iter().enumerate() {
        let interface = u32::from(index % 2 == 1);
        let time = if interface == 0 { frame.time_ns / 1000 } else { frame.time_ns };
        let [high, low] = [time >> 32, time & 0xffff_ffff].map(|half| u32::try_from(half).expect("32 bits"));
        let captured = u32::try_from(frame.data.len()).expect("a frame");
        let mut content = words(&[interface, high, low, captured, frame.original_octets]);
        content.extend(&frame.data);
        file.extend(block(6, &content));
    }
    file
}

fn block(block_type: u32, content: &[u8]) -> Vec<u8> {
    let padding = content.len().next_multiple_of(4) - content.len();
    let octets = u32::try_from(12 + content.len() + padding).expect("a block");
    let mut block = words(&[block_type, octets]);
    block.extend(content);
    block.extend(std::iter::repeat_n(0, padding));
    block.extend(words(&[octets]));
    block
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
