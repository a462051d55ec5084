//! How a frame ends by the rules of the parser, and why tshark displays some otherwise.

use std::net::IpAddr;

/// How a frame ends by the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Counted for a flow.
    Counted {
        /// The flow.
        flow: Flow,
        /// IP length.
        octets: u64,
        /// TCP control bits.
        control_bits: u16,
    },
    /// Neither IPv4 nor IPv6.
    NonIp,
    /// Headers that do not add up.
    Malformed,
    /// More headers than the rules walk.
    Unsupported,
}

/// What distinguishes a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    /// Source and destination port, or ICMP type and code; zero where they may not be read.
    pub ports: (u16, u16),
    /// IPv4 type of service or IPv6 traffic class.
    pub traffic_class: u8,
    /// Identifiers of the two outermost tags.
    pub vlans: Vec<u16>,
}

/// Why the rules read a frame otherwise than tshark displays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// tshark goes on into the packet that a tunnel or an ICMP error carries; only the outer packet
    /// counts, the inner one is payload.
    OuterPacket,
    /// tshark finds IP below a protocol that the rules do not walk (802.2, MACsec, pseudowires,
    /// vendors' headers): non_ip.
    OtherCarrier,
    /// tshark shows an IP header whose length contradicts itself or the frame: malformed.
    IpLength,
    /// tshark shows what there is of an IP header of another version or below 20 octets: malformed.
    IpHeader,
    /// tshark shows what there is of a header that the frame cuts off: malformed.
    Truncated,
    /// tshark shows the ports of a transport header that is cut by the IP length: ports are 0.
    CutTransport,
    /// tshark walks more tags, labels or extension headers than the rules: unsupported.
    Depth,
    /// tshark shows an extension header that does not fit in the IP length: malformed.
    ExtensionLength,
    /// tshark walks the extension headers of IPv6 behind IPv4, too; there they are protocols.
    Ipv4Protocol,
    /// tshark walks protocol 62, which drafts of Mobile IPv6 used, as an extension header.
    OldMobility,
    /// tshark shows a PPPoE header of another version, type or code: malformed.
    PppoeHeader,
    /// Wireshark's time overflows for a fraction of more than a second; the agent adds it up.
    DamagedTime,
    /// tshark does not show a header that the rules read: it takes HIP, Shim6 and mobility headers for
    /// the end of the packet, gives up on options that do not parse, and takes some frames for ISL.
    /// The test reads it from the frame.
    NotShown,
}

impl Rule {
    /// The rule's reason, for the report.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::OuterPacket => "an inner packet is payload: the outer packet counts",
            Self::OtherCarrier => "IP below a protocol that is not walked is non_ip",
            Self::IpLength => "an IP length that contradicts its header or the frame is malformed",
            Self::IpHeader => "an IP header of another version or below 20 octets is malformed",
            Self::Truncated => "a frame that ends inside a header is malformed",
            Self::DamagedTime => "a fraction of more than a second is added to the seconds",
            Self::NotShown => "tshark stops in front of a header, which is read from the frame instead",
            Self::CutTransport => "a transport header that is cut by the IP length has no ports",
            Self::Depth => "more than 4 tags, 8 labels or 8 extension headers are unsupported",
            Self::ExtensionLength => "an extension header beyond the IP length is malformed",
            Self::Ipv4Protocol => "extension headers of IPv6 are not walked behind IPv4",
            Self::OldMobility => "protocol 62 is not an extension header any more",
            Self::PppoeHeader => "a PPPoE header that is not version 1, type 1, code 0 is malformed",
        }
    }
}
