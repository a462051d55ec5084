//! A frame described header by header, as data.

/// A frame, from the outside in.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Tags behind the Ethernet addresses, outermost first.
    pub vlans: Vec<Vlan>,
    /// What lies between Ethernet and the network layer.
    pub carrier: Carrier,
    /// The network layer and what it carries.
    pub network: Network,
    /// Octets behind the packet: Ethernet padding, a frame check sequence, a trailer.
    pub padding: Vec<u8>,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Vlan {
    /// EtherType that announces the tag.
    pub ether_type: u16,
    /// Priority (3 bits), drop eligibility (1 bit), identifier (12 bits).
    pub control: u16,
}

/// What lies between Ethernet and the network layer.
#[derive(Clone, Copy, Debug)]
pub enum Carrier {
    /// Nothing.
    Ethernet,
    /// A label stack.
    Mpls {
        /// Unicast or upstream-assigned.
        ether_type: u16,
        /// Labels, one at least; the last has the bottom-of-stack bit.
        labels: usize,
    },
    /// A PPPoE session.
    Pppoe,
}

/// The network layer.
#[derive(Clone, Debug)]
pub enum Network {
    /// IPv4.
    Ipv4(Ipv4),
    /// IPv6.
    Ipv6(Ipv6),
    /// Anything else.
    Other(Other),
}

/// What is not IP.
#[derive(Clone, Debug)]
pub struct Other {
    /// EtherType, 802.3 length or PPP protocol; below MPLS the data's first nibble tells.
    pub protocol: u16,
    /// The content.
    pub data: Vec<u8>,
}

/// An IPv4 packet.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Type of service.
    pub type_of_service: u8,
    /// More-fragments flag.
    pub more_fragments: bool,
    /// In units of 8 octets.
    pub fragment_offset: u16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// A multiple of 4 octets, 40 at most.
    pub options: Vec<u8>,
    /// What the packet carries.
    pub transport: Transport,
}

/// An IPv6 packet.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// Traffic class.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Extension headers.
    pub extensions: Vec<Extension>,
    /// Payload length 0, and the true one in a hop-by-hop option in front of `extensions`.
    pub is_jumbogram: bool,
    /// What the packet carries.
    pub transport: Transport,
}

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug)]
pub enum Extension {
    /// One whose length counts units of 8 octets beyond the first.
    Options {
        /// Which.
        header: OptionsHeader,
        /// Its length field.
        units: u8,
    },
    /// Fragment header (RFC 8200).
    Fragment {
        /// In units of 8 octets, 13 bits.
        offset: u16,
        /// More-fragments flag.
        more: bool,
    },
    /// Authentication header (RFC 4302), whose length counts units of 4 octets beyond the second.
    Authentication {
        /// Its length field.
        units: u8,
    },
}

/// Extension headers whose length counts units of 8 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OptionsHeader {
    /// RFC 8200.
    HopByHop = 0,
    /// RFC 8200.
    Routing = 43,
    /// RFC 8200.
    Destination = 60,
    /// RFC 6275.
    Mobility = 135,
    /// RFC 7401.
    Hip = 139,
    /// RFC 5533.
    Shim6 = 140,
}

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub struct Transport {
    /// The header.
    pub header: Header,
    /// What follows the header, if there is no tunnel.
    pub payload: Vec<u8>,
    /// The tunnel that begins behind the header.
    pub inner: Option<Box<Inner>>,
    /// Octets of header and payload that are in the IP packet, when that is not all of them.
    pub cut: Option<usize>,
}

/// A transport header.
#[derive(Clone, Copy, Debug)]
pub enum Header {
    /// TCP.
    Tcp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Twelve bits.
        control_bits: u16,
        /// Options, in units of 4 octets.
        options: u8,
    },
    /// UDP.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// UDP-Lite.
    UdpLite {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// SCTP.
    Sctp {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// DCCP, with 48-bit sequence numbers or without.
    Dccp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Whether the generic header is 16 octets long instead of 12.
        is_extended: bool,
    },
    /// ICMP (protocol 1).
    Icmp {
        /// Type.
        message_type: u8,
        /// Code.
        code: u8,
    },
    /// ICMPv6 (protocol 58).
    Icmpv6 {
        /// Type.
        message_type: u8,
        /// Code.
        code: u8,
    },
    /// A protocol of which no header is read.
    Other {
        /// Its number.
        protocol: u8,
    },
}

/// What a tunnel carries.
#[derive(Clone, Debug)]
pub struct Inner {
    /// The tunnel's header.
    pub encapsulation: Encapsulation,
    /// The tags of the Ethernet frame that is carried, if one is and not a bare packet.
    pub vlans: Option<Vec<Vlan>>,
    /// The packet.
    pub network: Network,
}

/// A tunnel's header.
#[derive(Clone, Debug)]
pub enum Encapsulation {
    /// GTP-U (3GPP TS 29.281).
    GtpU {
        /// Version and protocol type, in the upper four bits.
        version_type: u8,
        /// E, S and PN.
        flags: u8,
        /// 255 when a packet is carried.
        message_type: u8,
        /// Length fields of the extension headers, which are there when E is set.
        extensions: Vec<u8>,
    },
    /// VXLAN (RFC 7348).
    Vxlan {
        /// Of which 0x08 says that it is VXLAN.
        flags: u8,
    },
    /// GRE (RFC 2784, RFC 2890).
    Gre {
        /// Checksum, routing, key and sequence flags, and the version.
        flags_version: u16,
    },
    /// None: IP in IP.
    None,
}
