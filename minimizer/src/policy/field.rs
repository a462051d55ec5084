//! The fields that a record can have: one list that gives their names, numbers and sources.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! fields {
    ($($variant:ident, $name:literal, $number:literal, $kind:ident, $source:literal;)+) => {
        /// A field of a record, by its name in the IANA IPFIX registry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = $source] #[serde(rename = $name)] $variant,)+
        }

        impl Field {
            /// All fields, in the order of a record.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Name in the IANA IPFIX registry.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What comes before its value in a JSON object: a comma, its name as a key, a colon.
            #[must_use]
            pub const fn json_key(self) -> &'static str {
                match self { $(Self::$variant => concat!(",\"", $name, "\":"),)+ }
            }

            /// Number in the IANA IPFIX registry.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The kind of its value, which decides how it can be transformed.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)+ }
            }

            /// The bytes that it comes from.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $(Self::$variant => $source,)+ }
            }
        }
    };
}

/// The kind of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    Ipv4Address,
    /// An IPv6 address.
    Ipv6Address,
    /// A port.
    Port,
    /// TCP control bits.
    ControlBits,
    /// A number that a policy keeps or omits: a type, a code, an identifier.
    Number,
    /// A count.
    Count,
    /// A time.
    Time,
}

fields! {
    SourceIPv4Address, "sourceIPv4Address", 8, Ipv4Address, "IPv4 header, bytes 12-15";
    DestinationIPv4Address, "destinationIPv4Address", 12, Ipv4Address, "IPv4 header, bytes 16-19";
    SourceIPv6Address, "sourceIPv6Address", 27, Ipv6Address, "IPv6 header, bytes 8-23";
    DestinationIPv6Address, "destinationIPv6Address", 28, Ipv6Address, "IPv6 header, bytes 24-39";
    SourceTransportPort, "sourceTransportPort", 7, Port, "TCP, UDP, UDP-Lite, SCTP or DCCP header, bytes 0-1";
    DestinationTransportPort, "destinationTransportPort", 11, Port, "TCP, UDP, UDP-Lite, SCTP or DCCP header, bytes 2-3";
    ProtocolIdentifier, "protocolIdentifier", 4, Number, "IPv4 header, byte 9; the last IPv6 next header that is walked";
    IpClassOfService, "ipClassOfService", 5, Number, "IPv4 header, byte 1; IPv6 header, traffic class";
    TcpControlBits, "tcpControlBits", 6, ControlBits, "TCP header, bytes 12-13, lower 12 bits, OR of all packets";
    IcmpTypeIPv4, "icmpTypeIPv4", 176, Number, "ICMP header, byte 0";
    IcmpCodeIPv4, "icmpCodeIPv4", 177, Number, "ICMP header, byte 1";
    IcmpTypeIPv6, "icmpTypeIPv6", 178, Number, "ICMPv6 header, byte 0";
    IcmpCodeIPv6, "icmpCodeIPv6", 179, Number, "ICMPv6 header, byte 1";
    VlanId, "vlanId", 58, Number, "outermost 802.1Q or 802.1ad tag, lower 12 bits";
    Dot1qCustomerVlanId, "dot1qCustomerVlanId", 245, Number, "second tag, lower 12 bits";
    IngressInterface, "ingressInterface", 10, Number, "no packet byte: the interface's index";
    SelectorId, "selectorId", 302, Number, "no packet byte: the number of the indicator that matched";
    PacketDeltaCount, "packetDeltaCount", 2, Count, "no packet byte: packets";
    OctetDeltaCount, "octetDeltaCount", 1, Count, "IPv4 header, bytes 2-3; 40 + IPv6 header, bytes 4-5";
    FlowStartMilliseconds, "flowStartMilliseconds", 152, Time, "no packet byte: time of the first packet";
    FlowEndMilliseconds, "flowEndMilliseconds", 153, Time, "no packet byte: time of the last packet";
}

impl Field {
    /// The field of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.name() == name)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u32);

impl Fields {
    /// No field.
    pub const NONE: Self = Self(0);
    /// Every field.
    pub const ALL: Self = Self((1 << Field::ALL.len()) - 1);

    /// The set and one field more.
    #[must_use]
    pub const fn with(self, field: Field) -> Self {
        Self(self.0 | 1 << field as u32)
    }

    /// The fields that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the field is in the set.
    #[must_use]
    pub const fn has(self, field: Field) -> bool {
        self.0 & 1 << field as u32 != 0
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<Iter: IntoIterator<Item = Field>>(fields: Iter) -> Self {
        fields.into_iter().fold(Self::NONE, Self::with)
    }
}
