//! Prefixes: their text, and files of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// A prefix: an address whose bits behind the length are zero. An IPv4 address takes the first four octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Whether it is an IPv6 prefix.
    pub ipv6: bool,
    /// The address in network byte order; for IPv4 in the first four octets.
    pub octets: [u8; 16],
    /// Its length in bits: 0 to 32, or 0 to 128.
    pub bits: u8,
}

/// What is wrong with the text of a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// The text is not an address.
    #[error("`{0}` is no prefix: allowed are like 192.0.2.0/24, 2001:db8::/32, or a single address")]
    NoPrefix(String),
    /// The length is not a length of such a prefix.
    #[error("`{text}` has no length from 0 to {longest} behind its slash")]
    Length {
        /// The text.
        text: String,
        /// The longest length of such a prefix.
        longest: u8,
    },
    /// Bits behind the prefix are not zero.
    #[error("`{text}` has bits set behind its length: write {fix}, or the length that is meant")]
    HostBits {
        /// The text.
        text: String,
        /// The prefix with zeroes there.
        fix: Prefix,
    },
    /// An IPv4 address in the form of IPv6 sockets. No packet has it.
    #[error("`{0}` is an IPv4 address written as IPv6, which no packet carries: write it as IPv4")]
    Mapped(String),
}

impl Prefix {
    /// Reads a prefix, or an address as a prefix of its full length.
    ///
    /// # Errors
    /// See [`PrefixError`].
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let no_prefix = || PrefixError::NoPrefix(text.to_owned());
        // This test spares the slower of two attempts, which matters for hundreds of thousands of lines.
        let (ipv6, octets, longest) = if address.contains(':') {
            let address: Ipv6Addr = address.parse().map_err(|_| no_prefix())?;
            (true, address.octets(), 128)
        } else {
            let address: Ipv4Addr = address.parse().map_err(|_| no_prefix())?;
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            (false, octets, 32)
        };
        let bits = match bits {
            None => longest,
            // The parser of `u8` would also accept a sign.
            Some(bits) => Some(bits)
                .filter(|bits| bits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|bits| bits.parse().ok())
                .filter(|bits| *bits <= longest)
                .ok_or_else(|| PrefixError::Length { text: text.to_owned(), longest })?,
        };
        if ipv6 && bits >= 96 && octets[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
            return Err(PrefixError::Mapped(text.to_owned()));
        }
        let fix = Self { ipv6, octets: truncated(octets, bits), bits };
        if fix.octets == octets { Ok(fix) } else { Err(PrefixError::HostBits { text: text.to_owned(), fix }) }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        if self.ipv6 {
            return Ipv6Addr::from(self.octets).into();
        }
        let [first, second, third, fourth, ..] = self.octets;
        Ipv4Addr::new(first, second, third, fourth).into()
    }

    /// Its first `bits` bits: a prefix that covers it.
    #[must_use]
    pub fn shortened(&self, bits: u8) -> Self {
        Self { ipv6: self.ipv6, octets: truncated(self.octets, bits), bits }
    }

    /// Whether every address of the other prefix lies in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.ipv6 == other.ipv6
            && self.bits <= other.bits
            && truncated(other.octets, self.bits) == self.octets
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address(), self.bits)
    }
}

/// The first bits, with zeroes behind them.
fn truncated(octets: [u8; 16], bits: u8) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (u128::from_be_bytes(octets) & mask).to_be_bytes()
}

/// The content of a line without its comment and surrounding space; `None` if nothing is left.
pub(super) fn content(line: &str) -> Option<&str> {
    let content = line.split_once(['#', ';']).map_or(line, |(content, _)| content).trim();
    (!content.is_empty()).then_some(content)
}

/// The prefixes of a file, each with its line number. Each line has one; `#` and `;` begin a comment.
///
/// A line that is not a prefix gives an error. The lines behind it are read nevertheless.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, Result<Prefix, PrefixError>)> {
    let numbered = text.lines().enumerate();
    numbered.filter_map(|(index, line)| Some((index + 1, Prefix::parse(content(line)?))))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{Prefix, lines};

    #[test]
    fn prefixes_are_read_and_printed() {
        for (text, printed) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
            ("2001:db8:0:8000::/49", "2001:db8:0:8000::/49"),
        ] {
            assert_eq!(Prefix::parse(text).map(|prefix| prefix.to_string()), Ok(printed.to_owned()));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_fix() {
        for (text, part) in [
            ("192.0.2.1/24", "write 192.0.2.0/24"),
            ("2001:db8::1/64", "write 2001:db8::/64"),
            ("192.0.2.0/33", "from 0 to 32"),
            ("192.0.2.0/", "from 0 to 32"),
            ("192.0.2.0/+8", "from 0 to 32"),
            ("2001:db8::/129", "from 0 to 128"),
            ("192.0.2/24", "is no prefix"),
            ("example.net", "is no prefix"),
            ("::ffff:192.0.2.1", "write it as IPv4"),
        ] {
            let said = Prefix::parse(text).expect_err(text).to_string();
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn comments_are_those_of_lists_that_others_publish() {
        // The form of Spamhaus DROP, and that of DShield and FireHOL.
        let text = "; Spamhaus DROP List 2026/11/30\r\n; Last-Modified: x\r\n1.10.16.0/20 ; SBL256894\r\n\
                    2.56.192.0/22;SBL459831\r\n# other\n 203.0.113.7\t# one address\n\n";
        let read: Vec<_> =
            lines(text).map(|(line, prefix)| (line, prefix.map(|it| it.to_string()))).collect();
        let expected = [(3, "1.10.16.0/20"), (4, "2.56.192.0/22"), (6, "203.0.113.7/32")];
        assert_eq!(read, expected.map(|(line, text)| (line, Ok(text.to_owned()))));
    }

    #[test]
    fn covering_is_by_bits_and_version() {
        let prefix = |text| Prefix::parse(text).expect("is one");
        assert!(prefix("192.0.2.0/24").covers(&prefix("192.0.2.128/25")));
        assert!(!prefix("192.0.2.128/25").covers(&prefix("192.0.2.0/24")));
        assert!(!prefix("0.0.0.0/0").covers(&prefix("::/0")));
    }

    #[test]
    fn hundreds_of_thousands_of_lines_are_read() {
        let mut text = String::from("# all of a /8\n\n");
        for number in 0..300_000_u32 {
            let [_, first, second, third] = number.to_be_bytes();
            writeln!(text, "{first}.{second}.{third}.0/24 # one").expect("a string takes everything");
        }
        let prefixes: Vec<_> = lines(&text).collect();
        assert_eq!(prefixes.len(), 300_000);
        assert!(prefixes.iter().all(|(_, prefix)| prefix.is_ok()));
        assert_eq!(prefixes[0].0, 3);
    }
}
