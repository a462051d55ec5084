//! Records as lines of JSON: octet for octet what `Record::with` serializes, without the cost of serde's generality.

use std::convert::Infallible;
use std::net::Ipv6Addr;

use crate::policy::field::{Field, Fields};
use crate::records::fields::{Number, Reader, Variant, done, read_all};
use crate::records::record::Record;

/// More octets than a line has when all fields are present and as long as possible.
const LINE_OCTETS_MAX: usize = 768;

/// Appends a line for each record, with these fields.
pub fn append(lines: &mut Vec<u8>, records: &[Record], fields: Fields) {
    for record in records {
        // Reserved for the whole line, so that the vector rarely has to grow while its pieces are appended.
        lines.reserve(LINE_OCTETS_MAX);
        append_line(lines, record, fields);
    }
}

fn append_line(octets: &mut Vec<u8>, record: &Record, fields: Fields) {
    let begin = octets.len();
    done(read_all(fields, Variant::of(record), &mut Line { octets, record }));
    // Each entry begins with a comma; the first one becomes the brace of the object.
    match octets.get_mut(begin) {
        Some(comma) => *comma = b'{',
        None => octets.push(b'{'),
    }
    octets.extend_from_slice(b"}\n");
}

/// The entries of one record's object.
struct Line<'line> {
    octets: &'line mut Vec<u8>,
    record: &'line Record,
}

impl Line<'_> {
    #[inline(always)]
    fn key(&mut self, field: Field) -> &mut Vec<u8> {
        self.octets.extend_from_slice(field.json_key().as_bytes());
        self.octets
    }
}

impl Reader for Line<'_> {
    type Error = Infallible;

    #[inline(always)]
    fn number<N: Number>(&mut self, field: Field, of: impl Fn(&Record) -> N) -> Result<(), Infallible> {
        let value = of(self.record);
        number(self.key(field), value);
        Ok(())
    }

    #[inline(always)]
    fn ipv4(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 4]) -> Result<(), Infallible> {
        let value = of(self.record);
        ipv4(self.key(field), value);
        Ok(())
    }

    #[inline(always)]
    fn ipv6(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 16]) -> Result<(), Infallible> {
        let value = of(self.record);
        ipv6(self.key(field), value);
        Ok(())
    }
}

fn number(line: &mut Vec<u8>, number: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn ipv4(line: &mut Vec<u8>, octets: [u8; 4]) {
    line.push(b'"');
    dotted(line, octets);
    line.push(b'"');
}

fn dotted(line: &mut Vec<u8>, [a, b, c, d]: [u8; 4]) {
    for octet in [a, b, c] {
        number(line, octet);
        line.push(b'.');
    }
    number(line, d);
}

/// The form of RFC 5952.
fn ipv6(line: &mut Vec<u8>, octets: [u8; 16]) {
    let groups = Ipv6Addr::from(octets).segments();
    line.push(b'"');
    if let [0, 0, 0, 0, 0, 0xffff, ..] = groups {
        let [.., a, b, c, d] = octets;
        line.extend_from_slice(b"::ffff:");
        dotted(line, [a, b, c, d]);
        line.push(b'"');
        return;
    }
    let (skipped, groups_skipped) = longest_zeros(groups);
    let mut group = 0;
    while group < groups.len() {
        if group == skipped && groups_skipped > 1 {
            line.extend_from_slice(b"::");
            group += groups_skipped;
            continue;
        }
        if group != 0 && !(groups_skipped > 1 && group == skipped + groups_skipped) {
            line.push(b':');
        }
        hexadecimal(line, groups[group]);
        group += 1;
    }
    line.push(b'"');
}

/// Begin and length of the longest run of groups that are 0; the first of several.
fn longest_zeros(groups: [u16; 8]) -> (usize, usize) {
    let (mut longest, mut run) = ((0, 0), (0, 0));
    for (position, group) in groups.into_iter().enumerate() {
        run = match (group, run) {
            (0, (_, 0)) => (position, 1),
            (0, (begin, length)) => (begin, length + 1),
            _ => (0, 0),
        };
        if run.1 > longest.1 {
            longest = run;
        }
    }
    longest
}

/// A number without leading zeros.
fn hexadecimal(line: &mut Vec<u8>, number: u16) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = [12, 8, 4, 0].map(|shift| DIGITS[usize::from(number >> shift & 0xf)]);
    let first = match number {
        0x1000.. => 0,
        0x100.. => 1,
        0x10.. => 2,
        _ => 3,
    };
    line.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
pub mod tests {
    use std::net::Ipv6Addr;

    use minimizer_common::tuple::{Tags, Tuple};
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::{LINE_OCTETS_MAX, append, ipv6};
    use crate::policy::field::{Field, Fields};
    use crate::records::record::Record;

    /// A record of any kind; half of its numbers are as large as they can be, or 0.
    pub fn record(random: &mut ChaCha8Rng) -> Record {
        let mut number = |max: u64| match random.random_range(0..4) {
            0 => 0,
            1 => max,
            _ => random.random_range(0..=max),
        };
        let mut tags = Tags::NONE;
        for _ in 0..number(2) {
            tags = tags.with_vlan(u16::try_from(number(0xfff)).unwrap());
        }
        let mut addresses = [number(u64::MAX), 0, 0, 0];
        if number(1) == 1 {
            tags = tags.with_ipv6();
            addresses = [(); 4].map(|()| number(u64::MAX));
        }
        let protocol = [1, 6, 17, 33, 47, 58, 132, 136][usize::try_from(number(7)).unwrap()];
        let mut short = || u16::try_from(number(0xffff)).unwrap();
        let (ports, control_bits) = ((short(), short()), short() & 0xfff);
        Record {
            tuple: Tuple::new(addresses, ports, tags, protocol, u8::try_from(number(255)).unwrap()),
            ingress_interface: u32::try_from(number(u64::from(u32::MAX))).unwrap(),
            control_bits,
            packets: number(u64::MAX),
            octets: number(u64::MAX),
            start_ms: number(u64::MAX),
            end_ms: number(u64::MAX),
            selector_id: number(u64::MAX),
        }
    }

    #[test]
    fn a_line_is_what_serde_writes() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let (mut all, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            let record = record(&mut random);
            let fields = match random.random_range(0..3) {
                0 => Fields::ALL,
                _ => Field::ALL.iter().copied().filter(|_| random.random()).collect(),
            };
            let begin = expected.len();
            serde_json::to_writer(&mut expected, &record.with(fields)).unwrap();
            expected.push(b'\n');
            append(&mut all, &[record], fields);
            assert_eq!(
                String::from_utf8_lossy(&all[begin..]),
                String::from_utf8_lossy(&expected[begin..]),
                "{record:?}"
            );
            assert!(all.len() - begin <= LINE_OCTETS_MAX);
        }
        append(&mut all, &[record(&mut random)], Fields::NONE);
        assert!(all.ends_with(b"\n{}\n"));
    }

    #[test]
    fn ipv6_addresses_are_as_rfc_5952_writes_them() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for zeros in 0..=255_u8 {
            let mut groups: [u16; 8] = [(); 8].map(|()| random.random_range(1..=0xffff));
            for (bit, group) in groups.iter_mut().enumerate() {
                *group = if zeros >> bit & 1 == 1 { 0 } else { *group >> random.random_range(0..16) };
            }
            for groups in [groups, [0, 0, 0, 0, 0, 0xffff, groups[6], groups[7]]] {
                let address = Ipv6Addr::from(groups);
                let mut line = b"::".to_vec();
                ipv6(&mut line, address.octets());
                assert_eq!(String::from_utf8_lossy(&line), format!("::\"{address}\""));
            }
        }
    }
}
