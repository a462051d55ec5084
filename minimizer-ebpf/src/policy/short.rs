//! The short way of a packet of a common shape: what is left of its addresses, and the masks of the other words of its slot.
//!
//! It stores what [`crate::policy::minimize`] stores.

use minimizer_common::plan::{Plan, Steps};
use minimizer_common::slot::{HALF_WORDS, Narrow, USED, WIDE, Wide};
use minimizer_common::tuple::Tags;

use crate::parser::common::{Ipv4Packet, Ipv6Packet, Transport};
use crate::policy::minimize::port;
use crate::policy::nodes::constant;

/// What the plan keeps of IPv4 addresses if it treats all alike. `EXACT` says that the policy keeps every field as it is.
#[inline(always)]
#[must_use]
pub fn ipv4_addresses<const EXACT: bool>(plan: &Plan, addresses: u64) -> u64 {
    if EXACT { addresses } else { addresses & constant!(plan.ipv4_masks[0]) }
}

/// What the plan keeps of IPv6 addresses if it treats all alike; see [`ipv4_addresses`].
#[inline(always)]
#[must_use]
pub fn ipv6_addresses<const EXACT: bool>(plan: &Plan, addresses: [u64; 4]) -> [u64; 4] {
    if EXACT {
        return addresses;
    }
    let [source, source_end, destination, destination_end] = addresses;
    [
        source & constant!(plan.ipv6_masks[0][0][0]),
        source_end & constant!(plan.ipv6_masks[0][0][1]),
        destination & constant!(plan.ipv6_masks[1][0][0]),
        destination_end & constant!(plan.ipv6_masks[1][0][1]),
    ]
}

/// The narrow slot of one IPv4 packet. `addresses` are what the plan keeps of them; the time must fit.
#[inline(always)]
#[must_use]
pub fn ipv4<const EXACT: bool>(
    plan: &Plan,
    packet: &Ipv4Packet,
    addresses: u64,
    interface: u32,
    units: u32,
) -> [u64; HALF_WORDS] {
    let Ipv4Packet { length_octets, transport, .. } = packet;
    [
        addresses,
        narrow_transport::<EXACT>(plan, transport),
        narrow_marks::<EXACT>(plan, transport, interface) | Narrow::octets(*length_octets),
        narrow_times::<EXACT>(plan, units),
    ]
}

/// The narrow slot of one IPv6 packet. The policy keeps a short address or none, and the time must fit.
#[inline(always)]
#[must_use]
pub fn ipv6_narrow(
    plan: &Plan,
    packet: &Ipv6Packet,
    addresses: [u64; 4],
    interface: u32,
    units: u32,
) -> [u64; HALF_WORDS] {
    let Ipv6Packet { length_octets, transport, .. } = packet;
    let [source, _, destination, _] = addresses;
    let version = constant!(plan.slot_masks.narrow_marks) & Narrow::IPV6;
    [
        source | destination << Narrow::IPV6_ADDRESS_BITS,
        narrow_transport::<false>(plan, transport) | destination >> 16 << 32,
        narrow_marks::<false>(plan, transport, interface) | version | Narrow::octets(*length_octets),
        narrow_times::<false>(plan, units),
    ]
}

/// The wide slot of one packet. `addresses` are what the plan keeps of them. `tags` tell the IP version.
#[inline(always)]
#[must_use]
pub fn wide<const EXACT: bool>(
    plan: &Plan,
    transport: &Transport,
    tags: Tags,
    addresses: [u64; 4],
    length_octets: u32,
    units: u32,
) -> [u64; 2 * HALF_WORDS] {
    let Transport { ports, control_bits, protocol, traffic_class, .. } = *transport;
    let [source, source_end, destination, destination_end] = addresses;
    let kind = u64::from(protocol) | u64::from(traffic_class) << 8;
    let mut times = u64::from(units) | u64::from(units) << 32;
    let mut counters = kind << Wide::KIND_SHIFT | u64::from(control_bits) << Wide::CONTROL_BITS_SHIFT;
    let ports = if EXACT { ports } else { kept_ports(plan, ports) };
    let mut transport = u64::from(ports) | u64::from(tags.0) << 32;
    if !EXACT {
        let masks = &plan.slot_masks;
        times &= constant!(masks.wide_times);
        counters &= constant!(masks.wide_counters);
        transport &= constant!(masks.wide_transport);
    }
    let volume = USED | WIDE | u64::from(length_octets) << Wide::OCTETS_SHIFT;
    let counters = USED | WIDE | counters | Wide::ONE_PACKET;
    [source, source_end, volume, times, destination, destination_end, counters, transport]
}

#[inline(always)]
fn narrow_transport<const EXACT: bool>(plan: &Plan, transport: &Transport) -> u64 {
    let Transport { ports, traffic_class, vlan, .. } = *transport;
    let ports = if EXACT { ports } else { kept_ports(plan, ports) };
    let word = u64::from(ports) | u64::from(traffic_class) << Narrow::TRAFFIC_CLASS_SHIFT | vlan.narrow;
    if EXACT { word } else { word & constant!(plan.slot_masks.narrow_transport) }
}

#[inline(always)]
fn narrow_marks<const EXACT: bool>(plan: &Plan, transport: &Transport, interface: u32) -> u64 {
    let Transport { control_bits, protocol, .. } = *transport;
    let word = u64::from(protocol) << Narrow::PROTOCOL_SHIFT
        | u64::from(interface) << Narrow::INTERFACE_SHIFT
        | u64::from(control_bits) << Narrow::CONTROL_BITS_SHIFT;
    USED | if EXACT { word } else { word & constant!(plan.slot_masks.narrow_marks) }
}

#[inline(always)]
fn narrow_times<const EXACT: bool>(plan: &Plan, units: u32) -> u64 {
    // Both times at once: the time fits in the bits of one.
    let word = u64::from(units * (1 | 1 << Narrow::TIME_BITS));
    Narrow::ONE_PACKET | if EXACT { word } else { word & constant!(plan.slot_masks.narrow_times) }
}

/// What the plan keeps of the ports, which are one number.
#[inline(always)]
fn kept_ports(plan: &Plan, ports: u32) -> u32 {
    if Steps(constant!(plan.steps)).intersects(Steps::PORTS) {
        u32::from(port(plan, 0, (ports >> 16) as u16)) << 16 | u32::from(port(plan, 1, ports as u16))
    } else {
        ports
    }
}

#[cfg(test)]
mod tests;
