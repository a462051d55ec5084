//! Indicators: their text, and files of them.

use jiff::Timestamp;
use minimizer_common::protocol::{Protocol, Transport};
use thiserror::Error;

use crate::policy::prefixes::{Prefix, PrefixError, content};

/// What a policy looks for at an endpoint of a packet. An endpoint is an address and the port beside it.
///
/// An indicator selects a packet if the packet's source or destination matches all given parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indicator {
    /// Its number, which the record has as `selectorId`; above 0.
    pub id: u64,
    /// From this moment on the indicator matches nothing.
    pub expires: Option<Timestamp>,
    /// The prefix of the endpoint's address.
    pub prefix: Option<Prefix>,
    /// The packet's protocol.
    pub protocol: Option<u8>,
    /// The ranges (first, last) of the endpoint's port; any port if empty.
    pub ports: Vec<(u16, u16)>,
}

/// What is wrong with the text of an indicator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IndicatorError {
    /// It has too few words, or too many.
    #[error(
        "an indicator is `ID EXPIRY ADDRESS [PROTOCOL[/PORTS]]`, like `17 2026-12-31T00:00:00Z 198.51.100.7 tcp/443`"
    )]
    Words,
    /// The id is not a number.
    #[error("`{0}` is no number of an indicator: allowed are 1 to 18446744073709551615")]
    Id(String),
    /// The expiry is not a moment.
    #[error(
        "`{0}` is no expiry: allowed are `-` and a moment with its offset, like 2026-12-31T00:00:00Z, from 1970 to 2105"
    )]
    Expiry(String),
    /// The address is not a prefix.
    #[error("{0}; `*` is any address")]
    Prefix(#[from] PrefixError),
    /// The protocol is unknown.
    #[error("`{0}` is no protocol: allowed are {names} and numbers from 0 to 255", names = names())]
    Protocol(String),
    /// The protocol has no ports.
    #[error("`{0}` has no ports: only tcp, udp, udplite, sctp and dccp have")]
    NoPorts(String),
    /// The ports are not numbers or ranges.
    #[error(
        "`{0}` are no ports: allowed are numbers from 1 to 65535 and ranges like 1000-2000, with commas between"
    )]
    Ports(String),
    /// It would select every packet.
    #[error("`*` without a protocol selects every packet: name one, or leave the selectors out")]
    Everything,
}

fn names() -> String {
    Protocol::ALL.map(|protocol| protocol.word).join(", ")
}

/// The name of a protocol, or its number.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    Protocol::numbered(protocol).map_or_else(|| protocol.to_string(), |protocol| protocol.word.to_owned())
}

impl Indicator {
    /// Reads `ID EXPIRY ADDRESS [PROTOCOL[/PORTS]]`.
    ///
    /// # Errors
    /// See [`IndicatorError`].
    pub fn parse(text: &str) -> Result<Self, IndicatorError> {
        let mut words = text.split_whitespace();
        let (Some(id), Some(expires), Some(prefix)) = (words.next(), words.next(), words.next()) else {
            return Err(IndicatorError::Words);
        };
        let what = words.next();
        if words.next().is_some() {
            return Err(IndicatorError::Words);
        }
        let id = number(id).filter(|id| *id > 0).ok_or_else(|| IndicatorError::Id(id.to_owned()))?;
        let expires = match expires {
            "-" => None,
            text => Some(expiry(text).ok_or_else(|| IndicatorError::Expiry(text.to_owned()))?),
        };
        let prefix = match prefix {
            "*" => None,
            text => Some(Prefix::parse(text)?),
        };
        let (protocol, ports) = match what {
            None => (None, Vec::new()),
            Some(what) => {
                let (protocol, ports) = traffic(what)?;
                (Some(protocol), ports)
            }
        };
        if prefix.is_none() && protocol.is_none() {
            return Err(IndicatorError::Everything);
        }
        Ok(Self { id, expires, prefix, protocol, ports })
    }

    /// Address, protocol and ports, as a person would write them.
    #[must_use]
    pub fn what(&self) -> String {
        let mut what = self.prefix.map_or_else(|| "*".to_owned(), |prefix| prefix.to_string());
        if let Some(protocol) = self.protocol {
            what += &format!(" {}", protocol_name(protocol));
        }
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
            .collect();
        if ports.is_empty() { what } else { format!("{what}/{}", ports.join(",")) }
    }
}

/// Reads digits only: the library's parser also accepts a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The kernel compares seconds in 32 bits. 0 would match nothing.
fn expiry(text: &str) -> Option<Timestamp> {
    let expiry: Timestamp = text.parse().ok()?;
    u32::try_from(expiry.as_second()).is_ok_and(|seconds| seconds > 0).then_some(expiry)
}

fn traffic(text: &str) -> Result<(u8, Vec<(u16, u16)>), IndicatorError> {
    let (name, ports) = match text.split_once('/') {
        Some((name, ports)) => (name, Some(ports)),
        None => (text, None),
    };
    let known = Protocol::named(name).map(|protocol| protocol.number);
    let protocol = known.or_else(|| number(name));
    let protocol = protocol.ok_or_else(|| IndicatorError::Protocol(name.to_owned()))?;
    let Some(ports) = ports else { return Ok((protocol, Vec::new())) };
    if !Transport::of(protocol).has_ports() {
        return Err(IndicatorError::NoPorts(name.to_owned()));
    }
    let ranges: Option<Vec<_>> = ports.split(',').map(range).collect();
    Ok((protocol, merged(ranges.ok_or_else(|| IndicatorError::Ports(ports.to_owned()))?)))
}

/// A packet without a readable port has port 0: an indicator for port 0 would select fragments.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (0 < first && first <= last).then_some((first, last))
}

/// The same ports in the fewest ranges.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// The indicators of a file, each with its line number. Each line has one; `#` begins a comment.
///
/// A line that is not an indicator gives an error. The lines behind it are read nevertheless.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, Result<Indicator, IndicatorError>)> {
    let numbered = text.lines().enumerate();
    numbered.filter_map(|(index, line)| Some((index + 1, Indicator::parse(content(line)?))))
}

#[cfg(test)]
mod tests {
    use super::{Indicator, lines};

    #[test]
    fn indicators_are_read() {
        let read = |text| Indicator::parse(text).expect(text);
        let indicator = read("1001 2026-12-31T00:00:00Z 198.51.100.7 tcp/443,8000-8080,8081,444");
        assert_eq!((indicator.id, indicator.protocol), (1001, Some(6)));
        assert_eq!(indicator.ports, [(443, 444), (8000, 8081)]);
        assert_eq!(indicator.expires.expect("has one").to_string(), "2026-12-31T00:00:00Z");
        assert_eq!(indicator.what(), "198.51.100.7/32 tcp/443-444,8000-8081");
        assert_eq!(read("1 2026-12-31T09:00:00+09:00 2001:db8::/32").what(), "2001:db8::/32");
        assert_eq!(read("18446744073709551615 - * 47").what(), "* gre");
        assert_eq!(read("7 - * UDP/53").protocol, Some(17));
    }

    #[test]
    fn what_is_none_is_refused_with_what_is_allowed() {
        for (text, part) in [
            ("1 -", "ID EXPIRY ADDRESS"),
            ("1 - * tcp 443", "ID EXPIRY ADDRESS"),
            ("0 - 192.0.2.1", "allowed are 1 to"),
            ("+1 - 192.0.2.1", "allowed are 1 to"),
            ("18446744073709551616 - 192.0.2.1", "allowed are 1 to"),
            ("1 2026-12-31 192.0.2.1", "with its offset"),
            ("1 2026-12-31T00:00:00 192.0.2.1", "with its offset"),
            ("1 1969-12-31T00:00:00Z 192.0.2.1", "from 1970"),
            ("1 2106-12-31T00:00:00Z 192.0.2.1", "to 2105"),
            ("1 - 192.0.2.1/24", "write 192.0.2.0/24"),
            ("1 - * quic", "icmp, igmp, ipip, tcp"),
            ("1 - * 256", "0 to 255"),
            ("1 - * icmp/8", "has no ports"),
            ("1 - * tcp/", "are no ports"),
            ("1 - * tcp/0", "from 1 to 65535"),
            ("1 - * tcp/20-10", "ranges"),
            ("1 - *", "selects every packet"),
        ] {
            let said = Indicator::parse(text).expect_err(text).to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn a_file_has_comments_and_lines() {
        let read: Vec<_> = lines("# list\n\n1 - 192.0.2.1 # one\nnonsense\n").collect();
        assert_eq!(read.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4]);
        assert!(read[0].1.is_ok() && read[1].1.is_err());
    }
}
