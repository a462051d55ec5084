//! From a recipe to a frame, keeping track of what the rules say about it.

use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tags;
use minimizer_ebpf::parser::walk;

use super::recipe::{
    Carrier, Extension, Header, Ipv4, Ipv6, Network, OptionsHeader, Recipe, Transport, Vlan,
};
use super::tunnel::Carried;
use super::{Listed, Packet};

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
const PPPOE_SESSION: u16 = 0x8864;
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;

const VLAN_TAGS_MAX: usize = 4;
const MPLS_LABELS_MAX: usize = 8;
const EXTENSION_HEADERS_MAX: usize = 8;

impl Recipe {
    /// The frame.
    #[must_use]
    pub fn build(&self) -> Packet {
        let mut frame = Frame::default();
        frame.field([0x02, 0, 0, 0, 0, 1]);
        frame.field([0x02, 0, 0, 0, 0, 2]);
        let tags = frame.link(self);
        let counted = match &self.network {
            Network::Ipv4(ip) => frame.ipv4(ip, tags),
            Network::Ipv6(ip) => frame.ipv6(ip, tags, self.padding.len()),
            Network::Other(other) => {
                let mut data = other.data.as_slice();
                if let (Carrier::Mpls { .. }, Some((first, rest))) = (self.carrier, data.split_first()) {
                    // Its upper nibble tells that it is not IP.
                    frame.field([*first]);
                    frame.header_ends();
                    data = rest;
                }
                frame.octets.extend(data);
                frame.ends_as(Outcome::NonIp);
                None
            }
        };
        if let Some(at) = frame.pppoe_length_at {
            let length = frame.octets.len() - at - 2;
            frame.patch(at, length.min(usize::from(u16::MAX)));
        }
        frame.octets.extend(&self.padding);
        let expected = match (frame.outcome, counted) {
            (Some(outcome), _) => Err(outcome),
            (None, counted) => Ok(counted.expect("a frame that is not counted has an outcome")),
        };
        let Frame { octets, fields, headers_octets, carried, .. } = frame;
        let listed = match (expected, carried) {
            (Ok(_), Some(carried)) => Listed {
                headers_octets: carried.headers_octets,
                expected: match carried.expected {
                    Err(Outcome::NonIp) => expected,
                    inner => inner,
                },
            },
            _ => Listed { headers_octets, expected },
        };
        Packet { octets, headers_octets, fields, expected, listed }
    }

    /// The number that announces the network layer, in the place where `carrier` has it.
    fn network_protocol(&self) -> u16 {
        match (&self.network, self.carrier) {
            (Network::Other(other), _) => other.protocol,
            (Network::Ipv4(_), Carrier::Pppoe) => PPP_IPV4,
            (Network::Ipv6(_), Carrier::Pppoe) => PPP_IPV6,
            (Network::Ipv4(_), _) => IPV4,
            (Network::Ipv6(_), _) => IPV6,
        }
    }
}

/// A frame that is being built.
#[derive(Default)]
pub(super) struct Frame {
    pub octets: Vec<u8>,
    pub fields: Vec<std::ops::Range<usize>>,
    pub headers_octets: usize,
    pppoe_length_at: Option<usize>,
    pub gtp_u_length_at: Option<usize>,
    /// Set where the rules stop reading; what follows is not read any more.
    pub outcome: Option<Outcome>,
    /// What a tunnel behind the transport header carries, with octets counted from the frame's start.
    carried: Option<Carried>,
}

impl Frame {
    pub fn field(&mut self, octets: impl AsRef<[u8]>) {
        let start = self.octets.len();
        self.octets.extend(octets.as_ref());
        self.fields.push(start..self.octets.len());
    }

    /// A header that may be read ends here.
    pub fn header_ends(&mut self) {
        if self.outcome.is_none() {
            self.headers_octets = self.octets.len();
        }
    }

    pub fn ends_as(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Replaces a 16-bit field that was written as a placeholder.
    pub fn patch(&mut self, at: usize, number: usize) {
        let number = u16::try_from(number).expect("the packet fits its length field");
        self.octets[at..at + 2].copy_from_slice(&number.to_be_bytes());
    }

    /// EtherType, tags and carrier.
    fn link(&mut self, recipe: &Recipe) -> Tags {
        let carrier_type = match recipe.carrier {
            Carrier::Ethernet => recipe.network_protocol(),
            Carrier::Mpls { ether_type, .. } => ether_type,
            Carrier::Pppoe => PPPOE_SESSION,
        };
        let tags = self.tags(&recipe.vlans, carrier_type);
        match recipe.carrier {
            Carrier::Ethernet => {}
            Carrier::Mpls { labels, .. } => {
                for index in 0..labels {
                    if index == MPLS_LABELS_MAX {
                        self.ends_as(Outcome::MplsDepth);
                    }
                    self.field([0x12, 0x34]);
                    self.field([0x50 | u8::from(index + 1 == labels)]);
                    self.field([64]);
                    self.header_ends();
                }
            }
            Carrier::Pppoe => {
                self.field([0x11]);
                self.field([0]);
                self.field([0x00, 0x2a]);
                self.pppoe_length_at = Some(self.octets.len());
                self.field([0, 0]);
                self.field(recipe.network_protocol().to_be_bytes());
                self.header_ends();
            }
        }
        tags
    }

    /// The EtherType of an Ethernet header and the tags behind it.
    pub fn tags(&mut self, vlans: &[Vlan], carrier_type: u16) -> Tags {
        let ether_types = vlans.iter().map(|vlan| vlan.ether_type).chain([carrier_type]);
        let mut ether_types = ether_types.map(u16::to_be_bytes);
        self.field(ether_types.next().expect("the carrier's is the last"));
        self.header_ends();
        let mut tags = Tags::NONE;
        for (index, vlan) in vlans.iter().enumerate() {
            if index == VLAN_TAGS_MAX {
                self.ends_as(Outcome::VlanDepth);
            }
            tags = tags.with_vlan(vlan.control & 0xfff);
            self.field(vlan.control.to_be_bytes());
            self.field(ether_types.next().expect("one per tag and the carrier's"));
            self.header_ends();
        }
        tags
    }

    pub fn ipv4(&mut self, ip: &Ipv4, tags: Tags) -> Option<walk::Packet> {
        let start = self.octets.len();
        let header_words = 5 + ip.options.len() / 4;
        self.field([0x40 | u8::try_from(header_words).expect("60 octets at most")]);
        self.field([ip.type_of_service]);
        self.field([0, 0]);
        self.field([0xbe, 0xef]);
        self.field((ip.fragment_offset | u16::from(ip.more_fragments) << 13).to_be_bytes());
        self.field([64]);
        self.field([ip.transport.header.protocol()]);
        self.field([0, 0]);
        self.field(ip.source);
        self.field(ip.destination);
        if !ip.options.is_empty() {
            self.field(&ip.options);
        }
        self.header_ends();
        let is_whole = ip.fragment_offset == 0 && !ip.more_fragments;
        let transport = self.transport(&ip.transport, ip.fragment_offset == 0, is_whole, tags);
        let length = self.octets.len() - start;
        self.patch(start + 2, length);
        let [a, b, c, d] = ip.source;
        let [e, f, g, h] = ip.destination;
        Some(walk::Packet {
            addresses: [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), 0, 0, 0],
            ports: transport.0,
            tags,
            protocol: ip.transport.header.protocol(),
            traffic_class: ip.type_of_service,
            control_bits: transport.1,
            length_octets: u32::try_from(length).expect("patched into 16 bits"),
            may_carry: 0,
        })
    }

    pub fn ipv6(&mut self, ip: &Ipv6, tags: Tags, padding_octets: usize) -> Option<walk::Packet> {
        let start = self.octets.len();
        let first_word = 6 << 28 | u32::from(ip.traffic_class) << 20 | ip.flow_label & 0xf_ffff;
        let jumbo = ip.is_jumbogram.then_some(OptionsHeader::HopByHop as u8);
        let next_headers = jumbo.into_iter().chain(ip.extensions.iter().map(Extension::protocol));
        let mut next_headers = next_headers.chain([ip.transport.header.protocol()]);
        let mut next_header = || next_headers.next().expect("one per header and the transport's");
        self.field(first_word.to_be_bytes());
        self.field([0, 0]);
        let mut protocol = next_header();
        self.field([protocol]);
        self.field([64]);
        self.field(ip.source);
        self.field(ip.destination);
        self.header_ends();

        let jumbo_at = self.octets.len() + 4;
        if ip.is_jumbogram {
            protocol = next_header();
            self.field([protocol]);
            self.field([0]);
            self.field([0xc2, 4]);
            self.field([0; 4]);
            self.header_ends();
        }
        let mut is_first = true;
        let mut is_whole = true;
        let walked = ip.extensions.iter().enumerate();
        for (index, extension) in
            walked.map(|(index, extension)| (index + usize::from(ip.is_jumbogram), extension))
        {
            if is_first && index == EXTENSION_HEADERS_MAX {
                self.ends_as(Outcome::Ipv6ExtensionDepth);
            }
            let next = next_header();
            self.extension(extension, next);
            if is_first {
                protocol = next;
                self.header_ends();
            }
            if let Extension::Fragment { offset, more } = extension {
                is_first &= *offset == 0;
                is_whole &= *offset == 0 && !more;
            }
        }
        let transport = self.transport(&ip.transport, is_first, is_whole, tags);
        let payload = self.octets.len() - start - 40;
        let length = if ip.is_jumbogram {
            let payload = u32::try_from(payload).expect("far below 4 GiB");
            self.octets[jumbo_at..jumbo_at + 4].copy_from_slice(&payload.to_be_bytes());
            // The rules count a jumbogram as long as the frame is.
            self.octets.len() - start + padding_octets
        } else {
            self.patch(start + 4, payload);
            payload + 40
        };
        let word = |address: &[u8; 16], half: usize| {
            u64::from_ne_bytes(address[half * 8..half * 8 + 8].try_into().expect("8 of 16 octets"))
        };
        Some(walk::Packet {
            addresses: [
                word(&ip.source, 0),
                word(&ip.source, 1),
                word(&ip.destination, 0),
                word(&ip.destination, 1),
            ],
            ports: transport.0,
            tags: tags.with_ipv6(),
            protocol,
            traffic_class: ip.traffic_class,
            control_bits: transport.1,
            length_octets: u32::try_from(length).expect("far below 4 GiB"),
            may_carry: 0,
        })
    }

    fn extension(&mut self, extension: &Extension, next_header: u8) {
        self.field([next_header]);
        match *extension {
            Extension::Options { header, units } => {
                self.field([units]);
                // A routing type without a meaning, or PadN; then padding to the end.
                self.field(if header == OptionsHeader::Routing { [253, 0] } else { [1, 4] });
                self.field([0; 4]);
                self.octets.extend(std::iter::repeat_n(0, usize::from(units) * 8));
            }
            Extension::Fragment { offset, more } => {
                self.field([0]);
                self.field((offset << 3 | u16::from(more)).to_be_bytes());
                self.field([0xde, 0xad, 0xbe, 0xef]);
            }
            Extension::Authentication { units } => {
                self.field([units]);
                self.field([0, 0]);
                self.field([0, 0, 1, 0]);
                self.octets.extend(std::iter::repeat_n(0x5a, usize::from(units) * 4));
            }
        }
    }

    /// Ports (or type and code) and control bits, as far as the rules let them be read.
    fn transport(
        &mut self,
        transport: &Transport,
        is_first: bool,
        is_whole: bool,
        tags: Tags,
    ) -> ((u16, u16), u16) {
        let start = self.octets.len();
        let fields = self.fields.len();
        let mut octets = Self::default();
        octets.transport_header(&transport.header);
        for field in &octets.fields {
            self.field(&octets.octets[field.clone()]);
        }
        match &transport.inner {
            None => self.octets.extend(&transport.payload),
            Some(inner) => {
                let tunnel_start = self.octets.len();
                let mut carried = self.tunnel(inner, tags);
                carried.headers_octets += tunnel_start;
                self.carried = is_whole.then_some(carried);
                if let Header::Udp { .. } = transport.header {
                    self.patch(start + 4, self.octets.len() - start);
                }
            }
        }
        let end = start + transport.cut.unwrap_or(usize::MAX).min(self.octets.len() - start);
        self.octets.truncate(end);
        let kept = self.fields.split_off(fields);
        self.fields.extend(kept.into_iter().filter(|field| field.end <= end));
        match transport.header.read() {
            Some((read_octets, ports, control_bits)) if is_first && end - start >= read_octets => {
                if self.outcome.is_none() {
                    self.headers_octets = start + read_octets;
                }
                (ports, control_bits)
            }
            _ => ((0, 0), 0),
        }
    }

    fn transport_header(&mut self, header: &Header) {
        let mut ports = |(source, destination): (u16, u16)| {
            self.field(source.to_be_bytes());
            self.field(destination.to_be_bytes());
        };
        match *header {
            Header::Tcp { ports: numbers, control_bits, options } => {
                ports(numbers);
                self.field([1, 2, 3, 4]);
                self.field([5, 6, 7, 8]);
                self.field((u16::from(5 + options) << 12 | control_bits).to_be_bytes());
                self.field([0xff, 0xff]);
                self.field([0, 0]);
                self.field([0, 0]);
                if options > 0 {
                    self.field(vec![1; usize::from(options) * 4]);
                }
            }
            Header::Udp { ports: numbers } | Header::UdpLite { ports: numbers } => {
                ports(numbers);
                self.field([0, 8]);
                self.field([0, 0]);
            }
            Header::Sctp { ports: numbers } => {
                ports(numbers);
                self.field([9, 9, 9, 9]);
                self.field([0; 4]);
            }
            Header::Dccp { ports: numbers, is_extended } => {
                ports(numbers);
                self.field([if is_extended { 4 } else { 3 }]);
                self.field([0]);
                self.field([0, 0]);
                self.field([2 << 1 | u8::from(is_extended)]);
                self.field([0; 3]);
                if is_extended {
                    self.field([0; 4]);
                }
            }
            Header::Icmp { message_type, code } | Header::Icmpv6 { message_type, code } => {
                self.field([message_type]);
                self.field([code]);
                self.field([0, 0]);
                self.field([0; 4]);
            }
            Header::Other { .. } => {}
        }
    }
}

impl Header {
    /// The protocol number.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match *self {
            Self::Tcp { .. } => 6,
            Self::Udp { .. } => 17,
            Self::UdpLite { .. } => 136,
            Self::Sctp { .. } => 132,
            Self::Dccp { .. } => 33,
            Self::Icmp { .. } => 1,
            Self::Icmpv6 { .. } => 58,
            Self::Other { protocol } => protocol,
        }
    }

    /// Octets that must be there for the header to be read, and what is kept of it.
    fn read(&self) -> Option<(usize, (u16, u16), u16)> {
        Some(match *self {
            Self::Tcp { ports, control_bits, .. } => (20, ports, control_bits),
            Self::Udp { ports } | Self::UdpLite { ports } => (8, ports, 0),
            Self::Sctp { ports } | Self::Dccp { ports, .. } => (12, ports, 0),
            Self::Icmp { message_type, code } | Self::Icmpv6 { message_type, code } => {
                (4, (u16::from(message_type), u16::from(code)), 0)
            }
            Self::Other { .. } => return None,
        })
    }
}

impl Extension {
    fn protocol(&self) -> u8 {
        match self {
            Self::Options { header, .. } => *header as u8,
            Self::Fragment { .. } => 44,
            Self::Authentication { .. } => 51,
        }
    }
}
