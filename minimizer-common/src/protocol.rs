//! Protocols of the IP header: their numbers and names, and what their first four octets mean.

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP.
pub const DCCP: u8 = 33;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// How the two port fields of a [`Tuple`](crate::tuple::Tuple) are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP: ports and control bits.
    Tcp,
    /// UDP, UDP-Lite, SCTP, DCCP: ports.
    Ports,
    /// ICMP: type and code.
    Icmp,
    /// ICMPv6: type and code.
    IcmpV6,
    /// A protocol without ports.
    Other,
}

impl Transport {
    /// The reading for a protocol number.
    #[must_use]
    pub const fn of(protocol: u8) -> Self {
        match protocol {
            TCP => Self::Tcp,
            UDP | DCCP | SCTP | UDP_LITE => Self::Ports,
            ICMP => Self::Icmp,
            ICMPV6 => Self::IcmpV6,
            _ => Self::Other,
        }
    }

    /// Whether packets have a source and a destination port.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Ports)
    }
}

/// The protocols that metrics tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolClass {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// All others.
    Other,
}

impl ProtocolClass {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// The class of a protocol number.
    #[must_use]
    pub const fn of(protocol: u8) -> Self {
        match protocol {
            TCP => Self::Tcp,
            UDP => Self::Udp,
            ICMP | ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }
}

/// A protocol that has a name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its number in the IANA registry.
    pub number: u8,
    /// Its name in indicators.
    pub word: &'static str,
    /// Its name in tables.
    pub title: &'static str,
}

impl Protocol {
    /// All that have names, by number.
    pub const ALL: [Self; 16] = [
        Self { number: ICMP, word: "icmp", title: "ICMP" },
        Self { number: 2, word: "igmp", title: "IGMP" },
        Self { number: 4, word: "ipip", title: "IP-in-IP" },
        Self { number: TCP, word: "tcp", title: "TCP" },
        Self { number: UDP, word: "udp", title: "UDP" },
        Self { number: DCCP, word: "dccp", title: "DCCP" },
        Self { number: 41, word: "ipv6", title: "IPv6" },
        Self { number: 47, word: "gre", title: "GRE" },
        Self { number: 50, word: "esp", title: "ESP" },
        Self { number: 51, word: "ah", title: "AH" },
        Self { number: ICMPV6, word: "icmpv6", title: "ICMPv6" },
        Self { number: 89, word: "ospf", title: "OSPF" },
        Self { number: 103, word: "pim", title: "PIM" },
        Self { number: 112, word: "vrrp", title: "VRRP" },
        Self { number: SCTP, word: "sctp", title: "SCTP" },
        Self { number: UDP_LITE, word: "udplite", title: "UDP-Lite" },
    ];

    /// The protocol of that number, if it has a name.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number == number)
    }

    /// The protocol of that name in indicators, in any case.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.word.eq_ignore_ascii_case(word))
    }
}
