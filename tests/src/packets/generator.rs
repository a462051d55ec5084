//! Recipes drawn at random, the same ones for the same seed.

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use super::Packet;
use super::recipe::{
    Carrier, Encapsulation, Extension, Header, Inner, Ipv4, Ipv6, Network, OptionsHeader, Other, Recipe,
    Transport, Vlan,
};

/// Protocols of which no header is read, in IPv4 and in IPv6 (where none is an extension header), and
/// which are no tunnels.
const OTHER_PROTOCOLS: [u8; 9] = [2, 46, 50, 59, 89, 103, 112, 253, 255];
/// Extension headers of IPv6 that mean nothing special to IPv4.
const IPV6_ONLY_PROTOCOLS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];
const OPTIONS_HEADERS: [OptionsHeader; 6] = [
    OptionsHeader::HopByHop,
    OptionsHeader::Routing,
    OptionsHeader::Destination,
    OptionsHeader::Mobility,
    OptionsHeader::Hip,
    OptionsHeader::Shim6,
];
const TAG_TYPES: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// ARP, LLDP, EAPOL, IS-IS over 802.3, an empty frame, a tag type that the rules do not know.
const OTHER_ETHER_TYPES: [u16; 6] = [0x0806, 0x88cc, 0x888e, 0x05dc, 0x0000, 0x9200];
/// LCP, IPCP, PAP.
const OTHER_PPP_PROTOCOLS: [u16; 3] = [0xc021, 0x8021, 0xc023];
const PAYLOAD_OCTETS_MAX: usize = 48;

/// Draws frames.
pub struct Generator {
    random: ChaCha8Rng,
}

impl Generator {
    /// A generator that draws the same frames whenever it has the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The source of randomness, for what is done with the frames.
    pub fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }

    /// A frame.
    pub fn packet(&mut self) -> Packet {
        self.recipe().build()
    }

    /// A recipe.
    pub fn recipe(&mut self) -> Recipe {
        let vlans = *self.choose(&[0, 0, 0, 1, 1, 2, 3, 4, 5]);
        let vlans = (0..vlans)
            .map(|_| Vlan { ether_type: *self.choose(&TAG_TYPES), control: self.random.random() })
            .collect();
        let carrier = match self.random.random_range(0..6) {
            0 => Carrier::Mpls {
                ether_type: *self.choose(&[0x8847, 0x8848]),
                labels: *self.choose(&[1, 1, 2, 3, 7, 8, 9]),
            },
            1 => Carrier::Pppoe,
            _ => Carrier::Ethernet,
        };
        let network = self.network(carrier, true);
        let is_jumbogram = matches!(&network, Network::Ipv6(ip) if ip.is_jumbogram);
        let padding = match self.random.random_range(0..4) {
            // A jumbogram's length is that of its frame: padding would be part of it.
            _ if is_jumbogram => 0,
            0 => 46,
            1 => self.random.random_range(1..=20),
            _ => 0,
        };
        Recipe { vlans, carrier, network, padding: self.octets(padding) }
    }

    /// A recipe for a frame that does not fit in one page, often not even with its headers.
    pub fn large_recipe(&mut self) -> Recipe {
        let mut recipe = self.recipe();
        recipe.padding.clear();
        match &mut recipe.network {
            Network::Ipv4(ip) => enlarge(&mut ip.transport, 9000),
            Network::Ipv6(ip) => {
                for extension in &mut ip.extensions {
                    match extension {
                        // A jumbogram fills the kernel's buffers without them.
                        _ if ip.is_jumbogram => {}
                        Extension::Options { units, .. } => *units = self.random.random_range(100..=255),
                        Extension::Authentication { units } => *units = self.random.random_range(200..=255),
                        Extension::Fragment { .. } => {}
                    }
                }
                enlarge(&mut ip.transport, if ip.is_jumbogram { 66_000 } else { 9000 });
                ip.transport.cut = None;
            }
            Network::Other(other) => other.data.resize(9000, 0x77),
        }
        recipe
    }

    fn network(&mut self, carrier: Carrier, is_outer: bool) -> Network {
        match self.random.random_range(0..16) {
            0 => Network::Other(self.other(carrier)),
            1..=7 => Network::Ipv4(self.ipv4(is_outer)),
            _ => Network::Ipv6(self.ipv6(is_outer)),
        }
    }

    fn other(&mut self, carrier: Carrier) -> Other {
        // Below MPLS the first octet tells, and it must not be one of the padding.
        let octets_min = usize::from(matches!(carrier, Carrier::Mpls { .. }));
        let octets = self.random.random_range(octets_min..=PAYLOAD_OCTETS_MAX);
        let mut data = self.octets(octets);
        let protocol = match carrier {
            Carrier::Pppoe => *self.choose(&OTHER_PPP_PROTOCOLS),
            _ => *self.choose(&OTHER_ETHER_TYPES),
        };
        // Neither of IP's versions: a control word (0, 1) or anything else.
        let nibble = *self.choose(&[0, 1, 2, 3, 5, 7, 8, 9, 10, 15]);
        if let Some(first) = data.first_mut() {
            *first = *first & 0x0f | nibble << 4;
        }
        Other { protocol, data }
    }

    fn ipv4(&mut self, is_outer: bool) -> Ipv4 {
        let options = *self.choose(&[0, 0, 0, 1, 2, 5, 10]);
        let (fragment_offset, more_fragments) = *self.choose(&[
            (0, false),
            (0, false),
            (0, false),
            (0, true),
            (1, true),
            (185, false),
            (0x1fff, true),
        ]);
        let (source, destination) = (self.host(), self.host());
        Ipv4 {
            type_of_service: *self.choose(&[0, 0, 0x2e << 2, 0xff]),
            more_fragments,
            fragment_offset,
            source: [10, 0, 0, source],
            destination: [192, 0, 2, destination],
            options: self.octets(options * 4),
            transport: self.transport(false, is_outer),
        }
    }

    fn ipv6(&mut self, is_outer: bool) -> Ipv6 {
        let extensions = *self.choose(&[0, 0, 0, 1, 1, 2, 3, 7, 8, 9]);
        let mut address = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (source, destination) = (self.host(), self.host());
        address[15] = source;
        let source = match self.random.random_range(0..8) {
            0 => self.carrier_of([192, 0, 2, source]),
            1 => self.carrier_of([10, 0, 0, source]),
            _ => address,
        };
        address[15] = destination;
        address[7] = 1;
        Ipv6 {
            traffic_class: *self.choose(&[0, 0, 0x2e << 2, 0xff, 0x5a]),
            flow_label: self.random.random_range(0..1 << 20),
            source,
            destination: address,
            extensions: (0..extensions).map(|_| self.extension()).collect(),
            // An inner jumbogram would be longer than its frame says.
            is_jumbogram: is_outer && self.random.random_range(0..16) == 0,
            transport: self.transport(true, is_outer),
        }
    }

    /// An IPv6 address that carries an IPv4 address: of NAT64, IPv4-mapped, or of 6to4.
    fn carrier_of(&mut self, ipv4: [u8; 4]) -> [u8; 16] {
        let mut address = [0; 16];
        let first = match self.random.random_range(0..3) {
            0 => {
                address[..4].copy_from_slice(&[0, 0x64, 0xff, 0x9b]);
                12
            }
            1 => {
                address[10..12].copy_from_slice(&[0xff, 0xff]);
                12
            }
            _ => {
                address[..2].copy_from_slice(&[0x20, 0x02]);
                2
            }
        };
        address[first..first + 4].copy_from_slice(&ipv4);
        address
    }

    fn extension(&mut self) -> Extension {
        match self.random.random_range(0..8) {
            0 => {
                let offset = *self.choose(&[0, 0, 1, 0x1fff]);
                Extension::Fragment { offset, more: self.random.random() }
            }
            1 => Extension::Authentication { units: *self.choose(&[0, 1, 4, 5]) },
            _ => {
                let header = *self.choose(&OPTIONS_HEADERS);
                Extension::Options { header, units: *self.choose(&[0, 0, 0, 1, 2, 5]) }
            }
        }
    }

    fn transport(&mut self, is_ipv6: bool, is_outer: bool) -> Transport {
        if is_outer && self.random.random_range(0..4) == 0 {
            return self.tunnel();
        }
        let ports = (*self.choose(&[53, 443, 49152, 65535]), *self.choose(&[53, 80, 443, 8080]));
        let message_type = *self.choose(&[0, 3, 8, 11, 128, 135]);
        let code = *self.choose(&[0, 1, 3, 0xff]);
        let header = match self.random.random_range(0..9) {
            0 | 1 => Header::Tcp {
                ports,
                control_bits: *self.choose(&[0x002, 0x012, 0x010, 0x011, 0x004, 0xfff, 0x000]),
                options: *self.choose(&[0, 0, 3, 5, 10]),
            },
            2 => Header::Udp { ports },
            3 => Header::UdpLite { ports },
            4 => Header::Sctp { ports },
            5 => Header::Dccp { ports, is_extended: self.random.random() },
            6 => Header::Icmp { message_type, code },
            7 => Header::Icmpv6 { message_type, code },
            _ if !is_ipv6 && self.random.random() => {
                Header::Other { protocol: *self.choose(&IPV6_ONLY_PROTOCOLS) }
            }
            _ => Header::Other { protocol: *self.choose(&OTHER_PROTOCOLS) },
        };
        let octets = self.random.random_range(0..=PAYLOAD_OCTETS_MAX);
        let cut = (self.random.random_range(0..8) == 0).then(|| self.random.random_range(0..=21));
        Transport { header, payload: self.octets(octets), inner: None, cut }
    }

    /// A tunnel, now and then one that carries no packet or has a header that is not walked.
    fn tunnel(&mut self) -> Transport {
        let mut network = self.network(Carrier::Mpls { ether_type: 0, labels: 1 }, false);
        let source = *self.choose(&[49152, 50000, 65535]);
        let (header, encapsulation, has_link) = match self.random.random_range(0..6) {
            0 | 1 => (Header::Udp { ports: (source, 2152) }, self.gtp_u(), false),
            2 => {
                let flags = *self.choose(&[0x08, 0x08, 0x08, 0xff, 0x00, 0xf7]);
                (Header::Udp { ports: (source, 4789) }, Encapsulation::Vxlan { flags }, true)
            }
            3 | 4 => {
                let options = *self.choose(&[0, 0, 0x2000, 0x1000, 0x8000, 0x3000, 0xb000]);
                let odd = *self.choose(&[0, 0, 0, 0, 0, 0x4000, 0x0001, 0x0880]);
                let encapsulation = Encapsulation::Gre { flags_version: options | odd };
                (Header::Other { protocol: 47 }, encapsulation, self.random.random())
            }
            _ => {
                if matches!(network, Network::Other(_)) {
                    network = Network::Ipv4(self.ipv4(false));
                }
                let protocol = if matches!(network, Network::Ipv4(_)) { 4 } else { 41 };
                (Header::Other { protocol }, Encapsulation::None, false)
            }
        };
        let vlans = *self.choose(&[0, 0, 0, 1, 2, 4, 5]);
        let vlans = has_link.then(|| {
            (0..vlans)
                .map(|_| Vlan { ether_type: *self.choose(&TAG_TYPES), control: self.random.random() })
                .collect()
        });
        let inner = Box::new(Inner { encapsulation, vlans, network });
        Transport { header, payload: Vec::new(), inner: Some(inner), cut: None }
    }

    fn gtp_u(&mut self) -> Encapsulation {
        let extensions = *self.choose(&[0, 1, 1, 2, 7, 8, 9]);
        let extensions = (0..extensions).map(|_| *self.choose(&[1, 1, 1, 1, 1, 2, 3, 0])).collect::<Vec<_>>();
        Encapsulation::GtpU {
            version_type: *self.choose(&[0x30, 0x30, 0x30, 0x30, 0x30, 0x20, 0x50]),
            flags: *self.choose(&[0, 0, 1, 2, 3, 4, 4, 6, 7]),
            message_type: *self.choose(&[255, 255, 255, 255, 255, 1, 254]),
            extensions,
        }
    }

    fn host(&mut self) -> u8 {
        self.random.random_range(1..=8)
    }

    fn octets(&mut self, length: usize) -> Vec<u8> {
        let mut octets = vec![0; length];
        self.random.fill_bytes(&mut octets);
        octets
    }

    fn choose<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        among.choose(&mut self.random).expect("there is something to choose from")
    }
}

/// Makes a packet long, or the packet inside of it.
fn enlarge(transport: &mut Transport, octets: usize) {
    match &mut transport.inner {
        None => transport.payload.resize(octets, 0x77),
        Some(inner) => match &mut inner.network {
            Network::Ipv4(ip) => enlarge(&mut ip.transport, octets.min(9000)),
            Network::Ipv6(ip) => enlarge(&mut ip.transport, octets.min(9000)),
            Network::Other(other) => other.data.resize(octets.min(9000), 0x77),
        },
    }
}
