//! A record: what leaves this host for one flow of one interval.

use std::net::{Ipv4Addr, Ipv6Addr};

use minimizer_common::tuple::{Slot, Tuple};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::policy::field::{Field, Fields};

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
    /// Number of the indicator that selected the packets; 0 when there is none.
    pub selector_id: u64,
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

impl Record {
    /// What a slot counted. `if_indices` has the interface's index by slot number; `milliseconds` turns a slot's time unit
    /// into milliseconds since 1970. The number of an indicator is the kernel's.
    #[must_use]
    pub fn of(slot: &Slot, if_indices: &[u32], milliseconds: impl Fn(u32) -> u64) -> Self {
        let tuple = slot.tuple();
        let interface = usize::try_from(tuple.tags().interface()).unwrap_or(usize::MAX);
        Self {
            tuple,
            ingress_interface: if_indices.get(interface).copied().unwrap_or(0),
            control_bits: slot.control_bits(),
            packets: u64::from(slot.packets()),
            octets: slot.octets(),
            start_ms: milliseconds(slot.first()),
            end_ms: milliseconds(slot.last()),
            selector_id: slot.selector().into(),
        }
    }

    /// The record with these fields and no other, to be serialized with the names of the IANA IPFIX registry
    /// as keys; see docs/RECORD.md. A field that the packets do not have is absent.
    #[must_use]
    pub const fn with(&self, fields: Fields) -> Shown<'_> {
        Shown { record: self, fields }
    }
}

/// The fields of a record that may be shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'record> {
    record: &'record Record,
    fields: Fields,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, fields } = *self;
        let tuple = &record.tuple;
        let tags = tuple.tags();
        let mut map = serializer.serialize_map(None)?;
        macro_rules! entry {
            ($field:ident, $value:expr) => {
                if fields.has(Field::$field) {
                    map.serialize_entry(Field::$field.name(), &$value)?;
                }
            };
        }
        if tags.is_ipv6() {
            let (source, destination) = tuple.ipv6();
            entry!(SourceIPv6Address, Ipv6Addr::from(source));
            entry!(DestinationIPv6Address, Ipv6Addr::from(destination));
        } else {
            let (source, destination) = tuple.ipv4();
            entry!(SourceIPv4Address, Ipv4Addr::from(source));
            entry!(DestinationIPv4Address, Ipv4Addr::from(destination));
        }
        let (first, second) = (tuple.source_port(), tuple.destination_port());
        let transport = Transport::of(tuple.protocol());
        if matches!(transport, Transport::Tcp | Transport::Ports) {
            entry!(SourceTransportPort, first);
            entry!(DestinationTransportPort, second);
        }
        entry!(ProtocolIdentifier, tuple.protocol());
        entry!(IpClassOfService, tuple.traffic_class());
        match transport {
            Transport::Tcp => entry!(TcpControlBits, record.control_bits),
            Transport::Icmp => {
                entry!(IcmpTypeIPv4, first);
                entry!(IcmpCodeIPv4, second);
            }
            Transport::IcmpV6 => {
                entry!(IcmpTypeIPv6, first);
                entry!(IcmpCodeIPv6, second);
            }
            Transport::Ports | Transport::Other => {}
        }
        if let Some(vlan_id) = tags.vlan_id() {
            entry!(VlanId, vlan_id);
        }
        if let Some(vlan_id) = tags.customer_vlan_id() {
            entry!(Dot1qCustomerVlanId, vlan_id);
        }
        entry!(IngressInterface, record.ingress_interface);
        if record.selector_id != 0 {
            entry!(SelectorId, record.selector_id);
        }
        entry!(PacketDeltaCount, record.packets);
        entry!(OctetDeltaCount, record.octets);
        entry!(FlowStartMilliseconds, record.start_ms);
        entry!(FlowEndMilliseconds, record.end_ms);
        map.end()
    }
}
