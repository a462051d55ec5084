//! Captures made by hand, whole and damaged.

use std::io::{self, Cursor, Read};
use std::path::Path;

use super::{Capture, CaptureError, Damage, FRAME_OCTETS_MAX, Frame, Unit};

/// Writes numbers in the byte order of the capture.
#[derive(Clone, Copy)]
struct Order {
    is_big_endian: bool,
}

const ORDERS: [Order; 2] = [Order { is_big_endian: false }, Order { is_big_endian: true }];

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.is_big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.is_big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn words(self, numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| self.u32(*number)).collect()
    }

    fn pcap(self, magic: u32, link_type: u32) -> Vec<u8> {
        let version = [self.u16(2), self.u16(4)].concat();
        [self.u32(magic).to_vec(), version, self.words(&[0, 0, 65535, link_type])].concat()
    }

    fn record(self, seconds: u32, fraction: u32, original_octets: u32, data: &[u8]) -> Vec<u8> {
        let header = [seconds, fraction, u32::try_from(data.len()).unwrap(), original_octets];
        [self.words(&header), data.to_vec()].concat()
    }

    fn block(self, block_type: u32, content: &[u8]) -> Vec<u8> {
        let padding = vec![0; content.len().next_multiple_of(4) - content.len()];
        let octets = u32::try_from(12 + content.len() + padding.len()).unwrap();
        let start = self.words(&[block_type, octets]);
        [start, content.to_vec(), padding, self.u32(octets).to_vec()].concat()
    }

    fn section(self) -> Vec<u8> {
        let version = [self.u16(1), self.u16(0)].concat();
        let content = [self.u32(0x1a2b_3c4d).to_vec(), version, vec![0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &content)
    }

    fn interface(self, link_type: u16, snap_octets: u32, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut content = [self.u16(link_type).to_vec(), vec![0; 2], self.u32(snap_octets).to_vec()].concat();
        for (code, value) in options {
            content.extend(self.u16(*code));
            content.extend(self.u16(u16::try_from(value.len()).unwrap()));
            content.extend(value);
            content.resize(content.len().next_multiple_of(4), 0);
        }
        self.block(1, &content)
    }

    fn enhanced(self, interface: u32, time: u64, original_octets: u32, data: &[u8]) -> Vec<u8> {
        let (high, low) = (u32::try_from(time >> 32).unwrap(), u32::try_from(time & 0xffff_ffff).unwrap());
        let header = [interface, high, low, u32::try_from(data.len()).unwrap(), original_octets];
        self.block(6, &[self.words(&header), data.to_vec()].concat())
    }
}

fn open(capture: &[u8]) -> Result<Capture, CaptureError> {
    Capture::from_reader(Path::new("test"), Box::new(Cursor::new(capture.to_vec())))
}

/// The frames of a capture and the error that it ends with.
fn read(capture: &[u8]) -> (Vec<Frame>, Option<CaptureError>) {
    let mut frames = Vec::new();
    match open(capture) {
        Err(error) => return (frames, Some(error)),
        Ok(mut capture) => {
            for frame in capture.by_ref() {
                match frame {
                    Ok(frame) => frames.push(frame),
                    Err(error) => {
                        assert!(capture.next().is_none(), "nothing comes behind an error");
                        return (frames, Some(error));
                    }
                }
            }
        }
    }
    (frames, None)
}

fn check(capture: &[u8], expected: &[(&[u8], u64)]) {
    let (frames, error) = read(capture);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames.len(), expected.len());
    for (index, (frame, (data, time_ns))) in frames.iter().zip(expected).enumerate() {
        assert_eq!(frame.data, *data, "frame {index}");
        assert_eq!(frame.time_ns, *time_ns, "frame {index}");
        assert_eq!(frame.original_octets as usize, data.len());
        assert_eq!(frame.index, index as u64);
    }
}

fn check_damage(capture: &[u8], frames: usize, offset: usize, expected: Damage) {
    match read(capture) {
        (read, Some(CaptureError::Damaged { offset: at, frames: after, damage, .. })) => {
            assert_eq!((read.len(), after, at, damage), (frames, frames as u64, offset as u64, expected));
        }
        (read, other) => panic!("{} frames, then {other:?}, not {expected:?}", read.len()),
    }
}

#[test]
fn pcap_in_both_byte_orders_and_precisions() {
    for order in ORDERS {
        for (magic, fraction_ns) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            let records =
                [order.record(7, 999_999, 3, &[1, 2, 3]), order.record(u32::MAX, 5, 0, &[])].concat();
            let capture = [order.pcap(magic, 1), records].concat();
            let times = [7_000_000_000 + 999_999 * fraction_ns, 4_294_967_295_000_000_000 + 5 * fraction_ns];
            check(&capture, &[(&[1, 2, 3], times[0]), (&[], times[1])]);
        }
    }
}

#[test]
fn pcap_with_long_record_headers() {
    let order = ORDERS[0];
    let mut record = order.record(1, 2, 2, &[8, 9]);
    record.splice(16..16, [0xee; 8]);
    check(&[order.pcap(0xa1b2_cd34, 1), record].concat(), &[(&[8, 9], 1_000_002_000)]);
}

#[test]
fn a_frame_cut_by_the_snap_length_is_zero_padded() {
    let order = ORDERS[0];
    let capture = [order.pcap(0xa1b2_c3d4, 1), order.record(0, 0, 5, &[1, 2])].concat();
    check(&capture, &[(&[1, 2, 0, 0, 0], 0)]);
    let capture = [order.section(), order.interface(1, 0, &[]), order.enhanced(0, 0, 4, &[9])].concat();
    check(&capture, &[(&[9, 0, 0, 0], 0)]);
}

#[test]
fn what_was_not_on_the_wire_is_not_given() {
    let order = ORDERS[1];
    let capture = [order.pcap(0xa1b2_c3d4, 1), order.record(0, 0, 1, &[1, 2])].concat();
    check(&capture, &[(&[1], 0)]);
}

#[test]
fn pcapng_with_several_interfaces_sections_and_other_blocks() {
    for order in ORDERS {
        let other = ORDERS[usize::from(!order.is_big_endian)];
        let offset_s = if order.is_big_endian { 2_i64.to_be_bytes() } else { 2_i64.to_le_bytes() };
        let capture = [
            order.section(),
            order.interface(1, 0, &[(2, b"eth0".to_vec())]),
            order.interface(1, 0, &[(9, vec![9])]),
            order.interface(1, 0, &[(9, vec![0x80 | 10]), (14, offset_s.to_vec())]),
            order.block(4, &[1, 2, 3]),
            order.enhanced(0, 3, 1, &[1]),
            order.enhanced(1, 3, 2, &[1, 2]),
            order.block(0x8000_0000, &[]),
            order.enhanced(2, 512, 4, &[1, 2, 3, 4]),
            other.section(),
            other.interface(1, 0, &[(9, vec![0])]),
            other.enhanced(0, 1 << 32, 5, &[1, 2, 3, 4, 5]),
        ];
        check(
            &capture.concat(),
            &[
                (&[1], 3000),
                (&[1, 2], 3),
                (&[1, 2, 3, 4], 2_500_000_000),
                (&[1, 2, 3, 4, 5], 4_294_967_296_000_000_000),
            ],
        );
    }
}

#[test]
fn times_beyond_64_bits_stay_at_the_end() {
    let order = ORDERS[0];
    for (options, time_ns) in [
        (vec![(9, vec![0])], u64::MAX),
        (vec![(9, vec![0x7f])], 0),
        (vec![(9, vec![0xff])], 0),
        (vec![(9, vec![0]), (14, i64::MIN.to_le_bytes().to_vec())], 0),
        (vec![(9, vec![9]), (14, i64::MAX.to_le_bytes().to_vec())], u64::MAX),
    ] {
        let capture = [order.section(), order.interface(1, 0, &options), order.enhanced(0, u64::MAX, 0, &[])];
        check(&capture.concat(), &[(&[], time_ns)]);
    }
}

#[test]
fn simple_and_obsolete_packet_blocks() {
    for order in ORDERS {
        let simple = |original: u32, data: &[u8]| order.block(3, &[&order.u32(original), data].concat());
        let header = [order.u16(0).to_vec(), order.u16(0xffff).to_vec(), order.words(&[0, 7, 3, 4])].concat();
        let capture = [
            order.section(),
            order.interface(1, 4, &[]),
            simple(3, &[1, 2, 3]),
            simple(6, &[1, 2, 3, 4]),
            order.block(2, &[header, vec![1, 2, 3]].concat()),
        ];
        check(&capture.concat(), &[(&[1, 2, 3], 0), (&[1, 2, 3, 4, 0, 0], 0), (&[1, 2, 3, 0], 7000)]);
    }
}

#[test]
fn a_pcap_truncated_at_every_length_gives_what_is_whole() {
    for order in ORDERS {
        let units = [
            order.pcap(0xa1b2_c3d4, 1),
            order.record(1, 0, 9, &[1, 2]),
            order.record(2, 0, 0, &[]),
            order.record(3, 0, 3, &[7, 8, 9]),
        ];
        truncate_at_every_length(&units, 1, |index| if index == 0 { Unit::FileHeader } else { Unit::Record });
    }
}

#[test]
fn a_pcapng_truncated_at_every_length_gives_what_is_whole() {
    for order in ORDERS {
        let units = [
            order.section(),
            order.interface(1, 0, &[]),
            order.enhanced(0, 1, 9, &[1, 2]),
            order.enhanced(0, 1, 5, &[1, 2, 3, 4, 5]),
        ];
        truncate_at_every_length(&units, 2, |_| Unit::Block);
    }
}

/// `units` hold a frame each, but for the first `headers` ones.
fn truncate_at_every_length(units: &[Vec<u8>], headers: usize, unit: fn(usize) -> Unit) {
    let capture = units.concat();
    for length in 0..capture.len() {
        let mut offset = 0;
        let whole = units.iter().take_while(|unit| {
            let fits = offset + unit.len() <= length;
            offset += if fits { unit.len() } else { 0 };
            fits
        });
        let whole = whole.count();
        let frames = whole.saturating_sub(headers);
        let capture = &capture[..length];
        if length < 4 {
            assert!(matches!(read(capture), (_, Some(CaptureError::NotACapture { .. }))), "{length}");
        } else if offset == length {
            let (read, error) = read(capture);
            assert!(error.is_none(), "{length}: {error:?}");
            assert_eq!(read.len(), frames, "{length}");
        } else {
            check_damage(capture, frames, offset, Damage::EndsInside(unit(whole)));
        }
    }
}

#[test]
fn damage_is_named_with_its_offset() {
    let order = ORDERS[0];
    let frame = order.enhanced(0, 0, 4, &[1, 2, 3, 4]);
    let start = [order.section(), order.interface(1, 0, &[]), frame.clone()].concat();
    let cases = [
        (order.enhanced(1, 0, 0, &[]), Damage::Interface { interface: 1, described: 1 }),
        (order.words(&[6, 11, 0, 11]), Damage::BlockLength(11)),
        (order.words(&[6, 13, 0, 13]), Damage::BlockLength(13)),
        (order.words(&[6, u32::MAX, 0, 0]), Damage::BlockLength(u32::MAX)),
        (order.words(&[9, 16, 0, 20]), Damage::BlockLengths { start: 16, end: 20 }),
        (order.block(6, &[0; 8]), Damage::Content(6)),
        (order.block(6, &order.words(&[0, 0, 0, 0xffff, 0])), Damage::Content(6)),
        (order.block(6, &order.words(&[0, 0, 0, u32::MAX, 0])), Damage::Content(6)),
        (order.block(2, &[0; 16]), Damage::Content(2)),
        (order.block(3, &order.words(&[5, 0])), Damage::Captured { claimed: 5, held: 4 }),
        (order.block(0x0a0d_0d0a, &order.words(&[0x1234_5678, 1, 0, 0])), Damage::ByteOrder(0x7856_3412)),
        (order.enhanced(0, 0, FRAME_OCTETS_MAX + 1, &[]), Damage::FrameLength(FRAME_OCTETS_MAX + 1)),
        ([order.section(), frame].concat(), Damage::Interface { interface: 0, described: 0 }),
    ];
    for (block, damage) in cases {
        let section_octets = if block.starts_with(&order.section()) { order.section().len() } else { 0 };
        check_damage(&[start.clone(), block].concat(), 1, start.len() + section_octets, damage);
    }
    let header = order.pcap(0xa1b2_c3d4, 1);
    let too_long = FRAME_OCTETS_MAX + 1;
    for record in [order.words(&[0, 0, too_long, too_long]), order.record(0, 0, too_long, &[1])] {
        check_damage(&[header.clone(), record].concat(), 0, header.len(), Damage::FrameLength(too_long));
    }
    let longest = vec![3; FRAME_OCTETS_MAX as usize];
    let record = order.record(0, 0, FRAME_OCTETS_MAX, &longest);
    check(&[header, record].concat(), &[(&longest, 0)]);
}

#[test]
fn another_link_type_is_named() {
    let order = ORDERS[0];
    match open(&order.pcap(0xa1b2_c3d4, 113)).err() {
        Some(error @ CaptureError::LinkType { .. }) => {
            assert!(error.to_string().contains("LINUX_SLL (113)"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // The upper bits of the field describe frame check sequences.
    check(&order.pcap(0xa1b2_c3d4, 0x2400_0001), &[]);
    let capture = [
        order.section(),
        order.interface(1, 0, &[]),
        order.interface(101, 0, &[]),
        order.enhanced(0, 0, 0, &[]),
        order.enhanced(1, 0, 0, &[]),
    ];
    let offset = capture[..4].concat().len() as u64;
    match read(&capture.concat()) {
        (frames, Some(CaptureError::LinkType { offset: at, .. })) => {
            assert_eq!((frames.len(), at), (1, offset))
        }
        (_, other) => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_capture_is_told_by_its_start() {
    for (start, hexadecimal) in
        [(&b""[..], "[]"), (&b"\x1f\x8b"[..], "[1f 8b]"), (&b"{\"a\": 1}"[..], "[7b 22 61 22]")]
    {
        let error = open(start).err().expect("is no capture");
        assert!(matches!(error, CaptureError::NotACapture { .. }));
        let message = error.to_string();
        assert!(message.contains("test is not a capture"), "{message}");
        assert!(message.contains(hexadecimal), "{message}");
    }
}

#[test]
fn a_missing_file_is_named_with_the_systems_reason() {
    let error = Capture::open(Path::new("/nonexistent/capture.pcap")).err().expect("does not open");
    assert!(matches!(error, CaptureError::Open { .. }));
    assert!(error.to_string().contains("/nonexistent/capture.pcap"), "{error}");
    let error = Capture::open(Path::new("/")).err().expect("is a directory");
    assert!(matches!(error, CaptureError::Read { offset: 0, .. }), "{error}");
}

/// Gives one octet at a time, and fails at the end.
struct Trickle {
    octets: Vec<u8>,
    at: usize,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(octet) = self.octets.get(self.at) else { return Err(io::Error::other("link down")) };
        buffer[0] = *octet;
        self.at += 1;
        Ok(1)
    }
}

#[test]
fn a_reader_may_give_little_and_fail() {
    let order = ORDERS[0];
    let octets = [order.pcap(0xa1b2_c3d4, 1), order.record(1, 0, 2, &[1, 2])].concat();
    let end = octets.len() as u64;
    let reader = Box::new(Trickle { octets, at: 0 });
    let mut capture = Capture::from_reader(Path::new("test"), reader).expect("opens");
    assert_eq!(capture.next().expect("a frame").expect("whole").data, [1, 2]);
    match capture.next() {
        Some(Err(CaptureError::Read { offset, source, .. })) => {
            assert_eq!((offset, source.to_string().as_str()), (end, "link down"));
        }
        other => panic!("{other:?}"),
    }
}
