//! The rules of the parser, walked over the fields that tshark shows of a frame.

use std::net::IpAddr;

use anyhow::Context as _;

use super::Frame;
use super::reading::layers;
use super::rule::{Flow, Reading, Rule};

const VLAN_TAGS_MAX: usize = 4;
const MPLS_LABELS_MAX: usize = 8;
const EXTENSION_HEADERS_MAX: usize = 8;
const OLD_MOBILITY: u8 = 62;

/// The rules over one frame.
pub(super) struct Rules<'frame> {
    pub(super) frame: &'frame Frame,
    pub(super) octets: &'frame [u8],
    /// Those that mattered.
    pub(super) rules: Vec<Rule>,
}

impl Rules<'_> {
    /// The field at this very position, if tshark shows it.
    fn shown(&self, at: u32, name: &str) -> Option<&str> {
        let mut fields = self.frame.parts.iter().filter(|part| !part.is_protocol && part.name == name);
        fields.find(|part| part.position == at && !part.show.is_empty()).map(|part| part.show.as_str())
    }

    /// The field at this position as tshark shows it, or else the `value` of the octets there.
    fn number<const WIDTH: usize>(
        &mut self,
        at: u32,
        name: &str,
        value: fn([u8; WIDTH]) -> u32,
    ) -> anyhow::Result<u32> {
        if let Some(show) = self.shown(at, name) {
            let number = match show.strip_prefix("0x") {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
                None => show.parse(),
            };
            return number.with_context(|| format!("{name} is {show}"));
        }
        Ok(value(self.raw(at)?))
    }

    /// Octets that tshark does not show.
    fn raw<const WIDTH: usize>(&mut self, at: u32) -> anyhow::Result<[u8; WIDTH]> {
        let at = usize::try_from(at)?;
        let octets = self.octets.get(at..at + WIDTH).and_then(|octets| octets.try_into().ok());
        if !self.rules.contains(&Rule::NotShown) {
            self.rules.push(Rule::NotShown);
        }
        octets.with_context(|| format!("{WIDTH} octets at {at} lie behind {}", layers(self.frame)))
    }

    fn octet(&mut self, at: u32, name: &str) -> anyhow::Result<u8> {
        Ok(u8::try_from(self.number(at, name, |[octet]| octet.into())?)?)
    }

    fn word(&mut self, at: u32, name: &str) -> anyhow::Result<u16> {
        Ok(u16::try_from(self.number(at, name, |octets| u16::from_be_bytes(octets).into())?)?)
    }

    fn octets_from(&self, position: u32) -> u32 {
        self.frame.octets.saturating_sub(position)
    }

    /// Ends the reading by a rule.
    fn ends(&mut self, rule: Rule) -> anyhow::Result<Reading> {
        self.rules.push(rule);
        Ok(match rule {
            Rule::OtherCarrier => Reading::NonIp,
            Rule::Depth => Reading::Unsupported,
            _ => Reading::Malformed,
        })
    }

    /// Walks from the Ethernet header on.
    pub(super) fn link(&mut self) -> anyhow::Result<Reading> {
        if self.octets_from(0) < 14 {
            return self.ends(Rule::Truncated);
        }
        let name = if self.shown(12, "eth.type").is_some() { "eth.type" } else { "eth.len" };
        let mut ether_type = self.word(12, name)?;
        let mut position = 14;
        let mut vlans = Vec::new();
        while matches!(ether_type, 0x8100 | 0x88a8 | 0x9100) {
            if vlans.len() == VLAN_TAGS_MAX {
                return self.ends(Rule::Depth);
            }
            if self.octets_from(position) < 4 {
                return self.ends(Rule::Truncated);
            }
            // The names depend on the tag and on the next one.
            let first = |names: &[&'static str], at| {
                names.iter().copied().find(|name| self.shown(at, name).is_some()).unwrap_or(names[0])
            };
            let id = first(&["vlan.id", "ieee8021ad.id", "ieee8021ad.svid", "ieee8021ad.cvid"], position);
            let next = first(&["vlan.etype", "ieee8021ah.etype", "vlan.len"], position + 2);
            vlans.push(self.word(position, id)? & 0xfff);
            ether_type = self.word(position + 2, next)?;
            position += 4;
        }
        vlans.truncate(2);
        match ether_type {
            0x0800 => self.ipv4(position, vlans),
            0x86dd => self.ipv6(position, vlans),
            0x8847 | 0x8848 => self.mpls(position, vlans),
            0x8864 => self.pppoe(position, vlans),
            _ => self.ends(Rule::OtherCarrier),
        }
    }

    fn mpls(&mut self, mut position: u32, vlans: Vec<u16>) -> anyhow::Result<Reading> {
        for _ in 0..MPLS_LABELS_MAX {
            if self.octets_from(position) < 4 {
                return self.ends(Rule::Truncated);
            }
            // tshark places all fields of a label at its start.
            let bottom = self.number(position, "mpls.bottom", |[_, _, octet]| u32::from(octet & 1))?;
            position += 4;
            if bottom == 1 {
                let below =
                    self.frame.parts.iter().find(|part| part.is_protocol && part.position == position);
                return match below.map(|part| part.name.as_str()) {
                    Some("ip") => self.ipv4(position, vlans),
                    Some("ipv6") => self.ipv6(position, vlans),
                    _ => self.ends(Rule::OtherCarrier),
                };
            }
        }
        self.ends(Rule::Depth)
    }

    fn pppoe(&mut self, position: u32, vlans: Vec<u16>) -> anyhow::Result<Reading> {
        if self.octets_from(position) < 8 {
            return self.ends(Rule::Truncated);
        }
        let version = self.number(position, "pppoe.version", |[octet]| u32::from(octet >> 4))?;
        let session_type = self.number(position, "pppoe.type", |[octet]| u32::from(octet & 0x0f))?;
        if (version, session_type, self.octet(position + 1, "pppoe.code")?) != (1, 1, 0) {
            return self.ends(Rule::PppoeHeader);
        }
        match self.word(position + 6, "ppp.protocol")? {
            0x0021 => self.ipv4(position + 8, vlans),
            0x0057 => self.ipv6(position + 8, vlans),
            _ => self.ends(Rule::OtherCarrier),
        }
    }

    fn ipv4(&mut self, position: u32, vlans: Vec<u16>) -> anyhow::Result<Reading> {
        if self.octets_from(position) < 20 {
            return self.ends(Rule::Truncated);
        }
        let version = self.number(position, "ip.version", |[octet]| u32::from(octet >> 4))?;
        let header_octets = self.number(position, "ip.hdr_len", |[octet]| u32::from(octet & 0x0f) * 4)?;
        if version != 4 || header_octets < 20 {
            return self.ends(Rule::IpHeader);
        }
        let octets = u32::from(self.word(position + 2, "ip.len")?);
        if octets < header_octets || octets > self.octets_from(position) {
            return self.ends(Rule::IpLength);
        }
        let protocol = self.octet(position + 9, "ip.proto")?;
        let is_later = self.word(position + 6, "ip.frag_offset")? & 0x1fff != 0;
        let left = if is_later { 0 } else { octets - header_octets };
        if extension(protocol).is_some() {
            self.rules.push(Rule::Ipv4Protocol);
        }
        let (ports, control_bits) = self.transport(position + header_octets, protocol, left)?;
        let flow = Flow {
            source: self.ipv4_address(position + 12, "ip.src")?,
            destination: self.ipv4_address(position + 16, "ip.dst")?,
            protocol,
            ports,
            traffic_class: self.octet(position + 1, "ip.dsfield")?,
            vlans,
        };
        Ok(Reading::Counted { flow, octets: octets.into(), control_bits })
    }

    fn ipv4_address(&mut self, at: u32, name: &str) -> anyhow::Result<IpAddr> {
        Ok(match self.shown(at, name) {
            Some(show) => show.parse()?,
            None => self.raw::<4>(at)?.into(),
        })
    }

    fn ipv6_address(&mut self, at: u32, name: &str) -> anyhow::Result<IpAddr> {
        Ok(match self.shown(at, name) {
            Some(show) => show.parse()?,
            None => self.raw::<16>(at)?.into(),
        })
    }

    fn ipv6(&mut self, position: u32, vlans: Vec<u16>) -> anyhow::Result<Reading> {
        if self.octets_from(position) < 40 {
            return self.ends(Rule::Truncated);
        }
        if self.number(position, "ipv6.version", |[octet]| u32::from(octet >> 4))? != 6 {
            return self.ends(Rule::IpHeader);
        }
        let mut octets = 40 + u32::from(self.word(position + 4, "ipv6.plen")?);
        if octets > self.octets_from(position) {
            return self.ends(Rule::IpLength);
        }
        let mut protocol = self.octet(position + 6, "ipv6.nxt")?;
        let mut at = position + 40;
        if octets == 40 && protocol == 0 && self.octets_from(at) >= 8 {
            // The jumbo payload option comes first.
            if self.octet(at + 2, "ipv6.opt.type")? == 0xc2 && self.octet(at + 3, "ipv6.opt.length")? == 4 {
                octets = self.octets_from(position);
            }
        }
        let mut left = octets - 40;
        for walked in 0.. {
            let Some(header) = extension(protocol) else { break };
            if walked == EXTENSION_HEADERS_MAX {
                return self.ends(Rule::Depth);
            }
            if left < 8 {
                return self.ends(Rule::ExtensionLength);
            }
            let header_octets = match header.length {
                Length::Eights(name) => (u32::from(self.octet(at + 1, name)?) + 1) * 8,
                Length::Fours(name) => (u32::from(self.octet(at + 1, name)?) + 2) * 4,
                Length::Fixed => 8,
            };
            if left < header_octets {
                return self.ends(Rule::ExtensionLength);
            }
            // Only the fragment header, which has no length, has an offset.
            let is_later = matches!(header.length, Length::Fixed)
                && self.number(at + 2, "ipv6.fraghdr.offset", |octets| {
                    u32::from(u16::from_be_bytes(octets) >> 3)
                })? != 0;
            protocol = self.octet(at, header.next_header)?;
            at += header_octets;
            left -= header_octets;
            if is_later {
                left = 0;
                break;
            }
        }
        if protocol == OLD_MOBILITY {
            self.rules.push(Rule::OldMobility);
        }
        let (ports, control_bits) = self.transport(at, protocol, left)?;
        let class = |[high, low]: [u8; 2]| u32::from(high << 4 | low >> 4);
        let flow = Flow {
            source: self.ipv6_address(position + 8, "ipv6.src")?,
            destination: self.ipv6_address(position + 24, "ipv6.dst")?,
            protocol,
            ports,
            traffic_class: u8::try_from(self.number(position, "ipv6.tclass", class)?)?,
            vlans,
        };
        Ok(Reading::Counted { flow, octets: octets.into(), control_bits })
    }

    /// Ports and control bits of the transport header at `position`, of which `left` octets are in
    /// the IP packet.
    fn transport(&mut self, at: u32, protocol: u8, left: u32) -> anyhow::Result<((u16, u16), u16)> {
        let needed = match protocol {
            6 => 20,
            17 | 136 => 8,
            132 | 33 => 12,
            1 | 58 => 4,
            _ => return Ok(((0, 0), 0)),
        };
        if left < needed {
            self.rules.push(Rule::CutTransport);
            return Ok(((0, 0), 0));
        }
        if let 1 | 58 = protocol {
            let name = if protocol == 1 { "icmp" } else { "icmpv6" };
            let message_type = self.octet(at, &format!("{name}.type"))?;
            let code = self.octet(at + 1, &format!("{name}.code"))?;
            return Ok(((message_type.into(), code.into()), 0));
        }
        let name = match protocol {
            6 => "tcp",
            132 => "sctp",
            33 => "dccp",
            // UDP-Lite has the fields of UDP.
            _ => "udp",
        };
        let source = self.word(at, &format!("{name}.srcport"))?;
        let destination = self.word(at + 2, &format!("{name}.dstport"))?;
        let control_bits = if protocol == 6 { self.word(at + 12, "tcp.flags")? & 0xfff } else { 0 };
        Ok(((source, destination), control_bits))
    }
}

/// The fields of an extension header.
struct Extension {
    next_header: &'static str,
    length: Length,
}

/// How an extension header tells its length, and in which field.
enum Length {
    /// Units of 8 octets, the first not counted.
    Eights(&'static str),
    /// Units of 4 octets, the first two not counted.
    Fours(&'static str),
    /// Always 8 octets.
    Fixed,
}

fn extension(protocol: u8) -> Option<Extension> {
    let (next_header, length) = match protocol {
        0 => ("ipv6.hopopts.nxt", Length::Eights("ipv6.hopopts.len")),
        43 => ("ipv6.routing.nxt", Length::Eights("ipv6.routing.len")),
        44 => ("ipv6.fraghdr.nxt", Length::Fixed),
        51 => ("ah.next_header", Length::Fours("ah.length")),
        60 => ("ipv6.dstopts.nxt", Length::Eights("ipv6.dstopts.len")),
        135 => ("mip6.proto", Length::Eights("mip6.hlen")),
        139 => ("hip.proto", Length::Eights("hip.hdr_len")),
        140 => ("shim6.nxt", Length::Eights("shim6.len")),
        _ => return None,
    };
    Some(Extension { next_header, length })
}
