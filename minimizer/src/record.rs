//! A record: what leaves this host for one flow of one interval.

use std::net::{Ipv4Addr, Ipv6Addr};

use minimizer_common::tuple::Tuple;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// Counts of one flow in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The flow.
    pub tuple: Tuple,
    /// Index of the interface that the packets came in on.
    pub ingress_interface: u32,
    /// OR of the packets' TCP control bits.
    pub control_bits: u16,
    /// Packets.
    pub packets: u64,
    /// Sum of the IP lengths that the headers declare.
    pub octets: u64,
    /// Begin of the time unit of the first packet, milliseconds since 1970.
    pub start_ms: u64,
    /// Begin of the time unit of the last packet, milliseconds since 1970.
    pub end_ms: u64,
}

/// How the two port fields of a tuple are to be read.
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
            6 => Self::Tcp,
            17 | 33 | 132 | 136 => Self::Ports,
            1 => Self::Icmp,
            58 => Self::IcmpV6,
            _ => Self::Other,
        }
    }
}

/// Serializes with the names of the IANA IPFIX registry as keys; see docs/RECORD.md.
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tuple = &self.tuple;
        let tags = tuple.tags();
        let mut map = serializer.serialize_map(None)?;
        if tags.is_ipv6() {
            let (source, destination) = tuple.ipv6();
            map.serialize_entry("sourceIPv6Address", &Ipv6Addr::from(source))?;
            map.serialize_entry("destinationIPv6Address", &Ipv6Addr::from(destination))?;
        } else {
            let (source, destination) = tuple.ipv4();
            map.serialize_entry("sourceIPv4Address", &Ipv4Addr::from(source))?;
            map.serialize_entry("destinationIPv4Address", &Ipv4Addr::from(destination))?;
        }
        let (first, second) = (tuple.source_port(), tuple.destination_port());
        let transport = Transport::of(tuple.protocol());
        if matches!(transport, Transport::Tcp | Transport::Ports) {
            map.serialize_entry("sourceTransportPort", &first)?;
            map.serialize_entry("destinationTransportPort", &second)?;
        }
        map.serialize_entry("protocolIdentifier", &tuple.protocol())?;
        map.serialize_entry("ipClassOfService", &tuple.traffic_class())?;
        match transport {
            Transport::Tcp => map.serialize_entry("tcpControlBits", &self.control_bits)?,
            Transport::Icmp => {
                map.serialize_entry("icmpTypeIPv4", &first)?;
                map.serialize_entry("icmpCodeIPv4", &second)?;
            }
            Transport::IcmpV6 => {
                map.serialize_entry("icmpTypeIPv6", &first)?;
                map.serialize_entry("icmpCodeIPv6", &second)?;
            }
            Transport::Ports | Transport::Other => {}
        }
        if let Some(vlan_id) = tags.vlan_id() {
            map.serialize_entry("vlanId", &vlan_id)?;
        }
        if let Some(vlan_id) = tags.customer_vlan_id() {
            map.serialize_entry("dot1qCustomerVlanId", &vlan_id)?;
        }
        map.serialize_entry("ingressInterface", &self.ingress_interface)?;
        map.serialize_entry("packetDeltaCount", &self.packets)?;
        map.serialize_entry("octetDeltaCount", &self.octets)?;
        map.serialize_entry("flowStartMilliseconds", &self.start_ms)?;
        map.serialize_entry("flowEndMilliseconds", &self.end_ms)?;
        map.end()
    }
}
