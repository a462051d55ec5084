//! What lies in a tunnel, and what the rules say about it when the tunnel is listed.

use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tags;
use minimizer_ebpf::parser::walk;

use super::build::{Frame, IPV4, IPV6};
use super::recipe::{Encapsulation, Inner, Network};

const ETHERNET: u16 = 0x6558;
const GTP_U_EXTENSION_HEADERS_MAX: usize = 8;

/// How a listed tunnel ends: what is counted, and how far the rules read.
pub(super) struct Carried {
    /// The inner packet; `NonIp` when the outer one is counted.
    pub expected: Result<walk::Packet, Outcome>,
    /// Octets from the start of the tunnel's header up to the last one that may be read.
    pub headers_octets: usize,
}

impl Frame {
    /// Appends a tunnel's header and its content to an outer packet with these tags.
    pub(super) fn tunnel(&mut self, inner: &Inner, tags: Tags) -> Carried {
        let mut part = Self::default();
        part.encapsulation(inner);
        let counted = match &inner.network {
            Network::Ipv4(ip) => part.ipv4(ip, tags),
            Network::Ipv6(ip) => part.ipv6(ip, tags, 0),
            Network::Other(other) => {
                let mut data = other.data.as_slice();
                if let (Encapsulation::GtpU { .. }, Some((first, rest))) =
                    (&inner.encapsulation, data.split_first())
                {
                    // Its upper nibble tells that it is not IP.
                    part.field([*first]);
                    part.header_ends();
                    data = rest;
                }
                part.octets.extend(data);
                part.ends_as(Outcome::NonIp);
                None
            }
        };
        if let Some(at) = part.gtp_u_length_at {
            let length = part.octets.len() - at - 6;
            part.patch(at, length);
        }
        let start = self.octets.len();
        self.octets.extend(&part.octets);
        self.fields.extend(part.fields.iter().map(|field| start + field.start..start + field.end));
        let expected = match (part.outcome, counted) {
            (Some(outcome), _) => Err(outcome),
            (None, counted) => Ok(counted.expect("what is not counted has an outcome")),
        };
        Carried { expected, headers_octets: part.headers_octets }
    }

    fn encapsulation(&mut self, inner: &Inner) {
        let ether_type = match &inner.network {
            Network::Ipv4(_) => IPV4,
            Network::Ipv6(_) => IPV6,
            Network::Other(other) => other.protocol,
        };
        match &inner.encapsulation {
            Encapsulation::GtpU { version_type, flags, message_type, extensions } => {
                self.gtp_u(version_type | flags, *message_type, extensions);
            }
            Encapsulation::Vxlan { flags } => {
                self.field([*flags]);
                self.field([0; 3]);
                self.field([0, 0, 42]);
                self.field([0]);
                self.header_ends();
                if flags & 0x08 == 0 {
                    self.ends_as(Outcome::NonIp);
                }
                self.inner_ethernet(ether_type, inner);
            }
            Encapsulation::Gre { flags_version } => {
                let protocol_type = if inner.vlans.is_some() { ETHERNET } else { ether_type };
                self.field(flags_version.to_be_bytes());
                self.field(protocol_type.to_be_bytes());
                self.header_ends();
                if flags_version & 0x0007 != 0 {
                    self.ends_as(Outcome::NonIp);
                } else if flags_version & 0x4000 != 0 {
                    self.ends_as(Outcome::GreRouting);
                }
                for flag in [0x8000, 0x2000, 0x1000] {
                    if flags_version & flag != 0 {
                        self.field([0xab, 0xcd, 0, 1]);
                    }
                }
                if ![IPV4, IPV6, ETHERNET].contains(&protocol_type) {
                    self.ends_as(Outcome::NonIp);
                }
                if inner.vlans.is_some() {
                    self.inner_ethernet(ether_type, inner);
                }
            }
            Encapsulation::None => {}
        }
    }

    fn gtp_u(&mut self, flags: u8, message_type: u8, extensions: &[u8]) {
        self.field([flags]);
        self.field([message_type]);
        self.gtp_u_length_at = Some(self.octets.len());
        self.field([0, 0]);
        self.field([0, 0, 0, 7]);
        self.header_ends();
        if flags & 0xf0 != 0x30 || message_type != 255 {
            self.ends_as(Outcome::NonIp);
        }
        if flags & 0x07 == 0 {
            return;
        }
        let walked = if flags & 0x04 == 0 { &[] } else { extensions };
        // A PDU session container, whatever its length: nothing in it is read.
        let kind = |index: usize| if index < walked.len() { 0x85 } else { 0 };
        self.field([0x12, 0x34]);
        self.field([0]);
        // Without the flag the number of an extension header means nothing.
        self.field([if flags & 0x04 == 0 { 0x85 } else { kind(0) }]);
        self.header_ends();
        for (index, units) in walked.iter().enumerate() {
            if index == GTP_U_EXTENSION_HEADERS_MAX {
                self.ends_as(Outcome::GtpUExtensionDepth);
            }
            self.field([*units]);
            self.header_ends();
            if *units == 0 {
                self.ends_as(Outcome::GtpUExtensionHeader);
                return;
            }
            self.octets.extend(std::iter::repeat_n(0x11, usize::from(*units) * 4 - 2));
            self.field([kind(index + 1)]);
            self.header_ends();
        }
    }

    fn inner_ethernet(&mut self, ether_type: u16, inner: &Inner) {
        self.field([0x02, 0, 0, 0, 0, 3]);
        self.field([0x02, 0, 0, 0, 0, 4]);
        let vlans = inner.vlans.as_deref().unwrap_or_default();
        self.tags(vlans, ether_type);
    }
}
