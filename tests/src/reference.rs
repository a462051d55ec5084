//! What a policy leaves of a packet, said as simply as possible: one address, one prefix, one bit after the other.

mod pseudonyms;

use std::net::{Ipv4Addr, Ipv6Addr};

use minimizer::policy::class::Class;
use minimizer::policy::field::Field;
use minimizer::policy::indicators::Indicator;
use minimizer::policy::join::Collected;
use minimizer::policy::model::{Policy, Scope};
use minimizer::policy::prefixes::Prefix;
use minimizer::policy::transform::{AddressTransform, Transform};
use minimizer::records::record::Record;
use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::{Tags, Tuple};
use minimizer_ebpf::parser::walk::Packet;

use self::pseudonyms::pseudonym;
use crate::policies::{endpoints, truncated};

/// What distinguishes one stored record from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    ipv6: bool,
    addresses: [[u8; 16]; 2],
    ports: (u16, u16),
    protocol: u8,
    traffic_class: u8,
    vlan_ids: (Option<u16>, Option<u16>),
    interface: u32,
    selector_id: u64,
}

/// What is stored of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its key.
    pub key: Key,
    /// Its TCP control bits.
    pub control_bits: u16,
    /// Its time as the time of a first packet, in milliseconds since 1970; 0 when that is not stored.
    pub start_ms: u64,
    /// The same as the time of a last packet.
    pub end_ms: u64,
}

impl Key {
    /// The key of a record from the kernel, whose interface is `interface`.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let (tuple, tags) = (&record.tuple, record.tuple.tags());
        let addresses = if tags.is_ipv6() {
            let (source, destination) = tuple.ipv6();
            [source, destination]
        } else {
            assert_eq!(tuple.addresses[1..], [0; 3], "an IPv4 address has four octets");
            let (source, destination) = tuple.ipv4();
            [source, destination].map(|octets| {
                let mut address = [0; 16];
                address[..4].copy_from_slice(&octets);
                address
            })
        };
        Self {
            ipv6: tags.is_ipv6(),
            addresses,
            ports: (tuple.source_port(), tuple.destination_port()),
            protocol: tuple.protocol(),
            traffic_class: tuple.traffic_class(),
            vlan_ids: (tags.vlan_id(), tags.customer_vlan_id()),
            interface: record.ingress_interface,
            selector_id: record.selector_id,
        }
    }
}

impl Key {
    /// A record of this key alone. Its interface has slot 0 and this index.
    ///
    /// # Panics
    /// When only the second of two VLAN identifiers is stored, which no recipient could have.
    #[must_use]
    pub fn record(&self) -> Record {
        let words = |octets: [u8; 16]| {
            let (first, second) = octets.split_at(8);
            [first, second].map(|half| u64::from_ne_bytes(half.try_into().expect("eight")))
        };
        let [source, destination] = self.addresses;
        let addresses = if self.ipv6 {
            let ([first, second], [third, fourth]) = (words(source), words(destination));
            [first, second, third, fourth]
        } else {
            let octets = [&source[..4], &destination[..4]].concat();
            [u64::from_ne_bytes(octets.try_into().expect("eight")), 0, 0, 0]
        };
        let mut tags = if self.ipv6 { Tags::NONE.with_ipv6() } else { Tags::NONE };
        tags = match self.vlan_ids {
            (None, None) => tags,
            (Some(outer), None) => tags.with_vlan(outer),
            (Some(outer), Some(inner)) => tags.with_vlan(outer).with_vlan(inner),
            (None, Some(_)) => panic!("a second identifier alone"),
        };
        Record {
            tuple: Tuple::new(addresses, self.ports, tags, self.protocol, self.traffic_class),
            ingress_interface: self.interface,
            control_bits: 0,
            packets: 1,
            octets: 60,
            start_ms: 0,
            end_ms: 0,
            selector_id: self.selector_id,
        }
    }
}

/// How a packet came in.
pub struct Arrived {
    /// The outer packet, if the packet was in a tunnel.
    pub outer: Option<Packet>,
    /// The interface.
    pub interface: u32,
    /// The time, in milliseconds since 1970.
    pub time_ms: u64,
}

/// What a policy leaves of a packet.
///
/// # Errors
/// The outcome of a packet that is not to be collected.
pub fn stored(
    policy: &Policy,
    collected: &Collected,
    packet: &Packet,
    arrived: &Arrived,
    pseudonym_key: [u64; 2],
) -> Result<Stored, Outcome> {
    let Arrived { outer, interface, time_ms } = *arrived;
    let ipv6 = packet.tags.is_ipv6();
    let addresses = endpoints(packet);
    if policy.has_pseudonyms_of(ipv6) && addresses.iter().any(|address| looks_like_a_pseudonym(ipv6, address))
    {
        return Err(Outcome::ReservedAddress);
    }
    let is_endpoint = |ipv6: bool, address: [u8; 16]| {
        policy.tunnel_endpoints.iter().any(|prefix| covers(prefix, ipv6, address))
    };
    let may_carry = packet.may_carry != 0;
    if may_carry && policy.scope.is_some() && addresses.iter().any(|address| is_endpoint(ipv6, *address)) {
        return Err(Outcome::OutOfScope);
    }
    let classes = addresses.map(|address| class(policy, ipv6, address));
    if let Some(scope) = &policy.scope
        && !scope.directions.contains(&(classes[0], classes[1]))
    {
        return Err(Outcome::OutOfScope);
    }
    let selector_id = match &policy.selectors {
        None => 0,
        Some(indicators) => {
            selector(policy, indicators, packet, time_ms / 1000).ok_or(Outcome::NotSelected)?
        }
    };
    if let (Some(scope), Some(outer)) = (&policy.scope, &outer) {
        let ipv6 = outer.tags.is_ipv6();
        let ends = endpoints(outer);
        let parties = [0, 1].map(|side| {
            let class = class(policy, ipv6, ends[side]);
            let is_never = class == Class::Never;
            if is_endpoint(ipv6, ends[side]) && !is_never { classes[side] } else { class }
        });
        if !scope.directions.contains(&(parties[0], parties[1])) {
            return Err(Outcome::OutOfScope);
        }
    }
    let transform = |field: Field| collected.fields.get(&field).copied();
    let kept = |field: Field, value: u16| if transform(field).is_some() { value } else { 0 };
    let address_fields = if ipv6 {
        [Field::SourceIPv6Address, Field::DestinationIPv6Address]
    } else {
        [Field::SourceIPv4Address, Field::DestinationIPv4Address]
    };
    let address = |side: usize| {
        let scope = policy.scope.as_ref();
        address(scope, transform(address_fields[side]), classes[side], ipv6, addresses[side], pseudonym_key)
    };
    let any_address = [
        Field::SourceIPv4Address,
        Field::DestinationIPv4Address,
        Field::SourceIPv6Address,
        Field::DestinationIPv6Address,
    ];
    let (first, second) = packet.ports;
    let ports = match packet.protocol {
        1 => (kept(Field::IcmpTypeIPv4, first), kept(Field::IcmpCodeIPv4, second)),
        58 => (kept(Field::IcmpTypeIPv6, first), kept(Field::IcmpCodeIPv6, second)),
        _ => (
            port(transform(Field::SourceTransportPort), first),
            port(transform(Field::DestinationTransportPort), second),
        ),
    };
    let octet = |field: Field, value: u8| if transform(field).is_some() { value } else { 0 };
    let key = Key {
        ipv6: ipv6 && any_address.into_iter().any(|field| transform(field).is_some()),
        addresses: [address(0), address(1)],
        ports,
        protocol: octet(Field::ProtocolIdentifier, packet.protocol),
        traffic_class: octet(Field::IpClassOfService, packet.traffic_class),
        vlan_ids: (
            packet.tags.vlan_id().filter(|_| transform(Field::VlanId).is_some()),
            packet.tags.customer_vlan_id().filter(|_| transform(Field::Dot1qCustomerVlanId).is_some()),
        ),
        interface: if transform(Field::IngressInterface).is_some() { interface } else { 0 },
        selector_id: if transform(Field::SelectorId).is_some() { selector_id } else { 0 },
    };
    let control_bits = match transform(Field::TcpControlBits) {
        None => 0,
        Some(Transform::ControlBits { mask }) => packet.control_bits & mask,
        Some(_) => packet.control_bits,
    };
    let time = |field: Field| match transform(field) {
        Some(Transform::Coarsened { unit }) => {
            let unit = u64::try_from(unit.as_millis()).expect("at most an hour");
            time_ms - time_ms % unit
        }
        _ => 0,
    };
    Ok(Stored {
        key,
        control_bits,
        start_ms: time(Field::FlowStartMilliseconds),
        end_ms: time(Field::FlowEndMilliseconds),
    })
}

fn looks_like_a_pseudonym(ipv6: bool, octets: &[u8; 16]) -> bool {
    if ipv6 { octets.starts_with(b"\xfdminimiz") } else { octets[0] >= 240 && octets[..4] != [255; 4] }
}

/// Whether an address lies in a prefix, bit by bit.
fn covers(prefix: &Prefix, ipv6: bool, address: [u8; 16]) -> bool {
    prefix.ipv6 == ipv6 && truncated(address, prefix.bits) == prefix.octets
}

fn class(policy: &Policy, ipv6: bool, address: [u8; 16]) -> Class {
    let Some(scope) = &policy.scope else { return Class::Foreign };
    // What the scope lists, by the number of bits that it has of this address.
    let mut listed = listed(scope, ipv6, address);
    let carried = if ipv6 { carried(policy, address) } else { Vec::new() };
    for Carried { bits, ipv4, .. } in &carried {
        listed
            .extend(self::listed(scope, false, *ipv4).into_iter().map(|(more, class)| (bits + more, class)));
    }
    if listed.iter().any(|(_, class)| *class == Class::Never) {
        return Class::Never;
    }
    // The innermost IPv4 address decides, unless the scope lists what carries it.
    let least = carried.iter().map(|carried| carried.bits).max().unwrap_or(0);
    let mut longest: Option<(u8, Class)> = None;
    for (bits, class) in listed.into_iter().filter(|(bits, _)| *bits >= least) {
        if longest.is_none_or(|(other, _)| bits > other) {
            longest = Some((bits, class));
        }
    }
    let is_special = match carried.iter().find(|carried| carried.bits == least) {
        Some(Carried { ipv4, .. }) => is_special_ipv4(*ipv4),
        None if ipv6 => is_special_ipv6(Ipv6Addr::from(address)),
        None => is_special_ipv4(address),
    };
    let otherwise = if is_special { Class::Special } else { Class::Foreign };
    longest.map_or(otherwise, |(_, class)| class)
}

/// The lengths and classes of the scope's prefixes that cover an address.
fn listed(scope: &Scope, ipv6: bool, address: [u8; 16]) -> Vec<(u8, Class)> {
    let covering = scope.prefixes.iter().filter(|(prefix, _)| covers(prefix, ipv6, address));
    covering.map(|(prefix, class)| (prefix.bits, *class)).collect()
}

/// An IPv4 address that an IPv6 address carries.
struct Carried {
    /// The number of bits in front of it.
    bits: u8,
    ipv4: [u8; 16],
    is_nat64: bool,
}

/// The IPv4 addresses that an IPv6 address carries. The translations of a policy drawn here are of NAT64 and have 96 bits.
fn carried(policy: &Policy, address: [u8; 16]) -> Vec<Carried> {
    let ipv4 = |first: usize| {
        let mut ipv4 = [0; 16];
        ipv4[..4].copy_from_slice(&address[first..first + 4]);
        ipv4
    };
    let text = Ipv6Addr::from(address).segments();
    let mut carried = Vec::new();
    if text[0] == 0x2002 {
        carried.push(Carried { bits: 16, ipv4: ipv4(2), is_nat64: false });
    }
    let is_nat64 = text[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let is_mapped = text[..6] == [0, 0, 0, 0, 0, 0xffff];
    let mut own = policy.translations.iter().map(|translation| translation.prefix);
    let is_own = own.any(|prefix| prefix.octets[..12] == address[..12]);
    if is_nat64 || is_mapped || is_own {
        carried.push(Carried { bits: 96, ipv4: ipv4(12), is_nat64: is_nat64 || is_own });
    }
    carried
}

fn is_special_ipv4(octets: [u8; 16]) -> bool {
    let address = Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
    let [first, second, third, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || first == 100 && second & 0xc0 == 64
        || [first, second, third] == [192, 0, 0]
        || [first, second, third] == [192, 88, 99]
}

fn is_special_ipv6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || segments[0] & 0xffc0 == 0xfec0
        || segments[..6] == [0; 6]
        || segments[..6] == [0, 0, 0, 0, 0xffff, 0]
        || segments[..3] == [0x64, 0xff9b, 1]
        || segments[..3] == [0x100, 0, 0] && segments[3] < 2
        || segments[..2] == [0x2001, 0]
        || segments[0] == 0x2001 && segments[1] & 0xfff0 == 0x10
        || segments[0] == 0x5f00
}

/// TCP, UDP, DCCP, SCTP and UDP-Lite, which have ports: what tests compare the program with has a list of its own.
pub const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// The id of the indicator that selects a packet: of those that match the source, else the destination, the one
/// with the longest prefix, and of these the first. An indicator of IPv4 also matches where an IPv6 address carries the address.
/// Those without an address come last: by source port, destination port, protocol.
fn selector(policy: &Policy, indicators: &[Indicator], packet: &Packet, now: u64) -> Option<u64> {
    let is_current = |indicator: &&Indicator| {
        indicator.expires.is_none_or(|expires| u64::try_from(expires.as_second()).is_ok_and(|end| now < end))
    };
    let has_ports = WITH_PORTS.contains(&packet.protocol);
    let is_port = |indicator: &Indicator, port: u16| {
        indicator.ports.is_empty()
            || has_ports && indicator.ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
    };
    let is_protocol =
        |indicator: &Indicator| indicator.protocol.is_none_or(|protocol| protocol == packet.protocol);
    let current = || indicators.iter().filter(is_current).filter(|indicator| is_protocol(indicator));
    let ports = [packet.ports.0, packet.ports.1];
    let ipv6 = packet.tags.is_ipv6();
    let is_host = |prefix: Prefix| prefix.bits == if prefix.ipv6 { 128 } else { 32 };
    // Other forms of single addresses than those of NAT64 are looked for only where prefixes are.
    let has_prefixes = policy.scope.is_some()
        || indicators.iter().any(|indicator| indicator.prefix.is_some_and(|it| !is_host(it)));
    for (address, port) in endpoints(packet).into_iter().zip(ports) {
        let carried = if ipv6 { carried(policy, address) } else { Vec::new() };
        // The bits that decide, and whether the indicator names them as they are.
        let decides = |prefix: Prefix| {
            if covers(&prefix, ipv6, address) {
                return Some((prefix.bits, true));
            }
            let is_seen = |form: &&Carried| has_prefixes || form.is_nat64 || !is_host(prefix);
            let forms = carried.iter().filter(is_seen).filter(|form| covers(&prefix, false, form.ipv4));
            forms.map(|form| (form.bits + prefix.bits, false)).max()
        };
        let mut found: Option<((u8, bool), u64)> = None;
        for indicator in current().filter(|indicator| is_port(indicator, port)) {
            let Some(bits) = indicator.prefix.and_then(decides) else { continue };
            if found.is_none_or(|(most, _)| bits > most) {
                found = Some((bits, indicator.id));
            }
        }
        if let Some((_, id)) = found {
            return Some(id);
        }
    }
    let anywhere = || current().filter(|indicator| indicator.prefix.is_none());
    for port in ports {
        let mut with_ports = anywhere().filter(|indicator| !indicator.ports.is_empty());
        if let Some(indicator) = with_ports.find(|indicator| is_port(indicator, port)) {
            return Some(indicator.id);
        }
    }
    anywhere().find(|indicator| indicator.ports.is_empty()).map(|indicator| indicator.id)
}

fn address(
    scope: Option<&Scope>,
    transform: Option<Transform>,
    class: Class,
    ipv6: bool,
    octets: [u8; 16],
    key: [u64; 2],
) -> [u8; 16] {
    let transform = match transform {
        None => return [0; 16],
        Some(Transform::Address { foreign, domestic }) => {
            if class == Class::Domestic {
                domestic
            } else {
                foreign
            }
        }
        Some(_) => AddressTransform::Exact,
    };
    match transform {
        AddressTransform::Omitted => [0; 16],
        AddressTransform::Exact => octets,
        AddressTransform::Truncated { bits } => truncated(octets, bits),
        AddressTransform::Pseudonym => pseudonym(scope, ipv6, octets, key),
        AddressTransform::PrefixPreserving(_) => panic!("not in the kernel"),
    }
}

fn port(transform: Option<Transform>, port: u16) -> u16 {
    match transform {
        None => 0,
        Some(Transform::PortClasses) => match port {
            0..=1023 => 0,
            1024..=49_151 => 1024,
            49_152.. => 49_152,
        },
        Some(Transform::ServicePorts { below }) if port >= below => 0,
        Some(Transform::ListedPorts { below, listed }) if port >= below && !listed.has(port) => 0,
        Some(Transform::StoredPorts { below, listed })
            if port >= below && listed.is_none_or(|listed| !listed.has(port)) =>
        {
            match port {
                0..=1023 => 0,
                1024..=49_151 => 49_151,
                49_152.. => 65_535,
            }
        }
        Some(_) => port,
    }
}
