//! The short way of a packet of a common shape under a policy that judges nothing: every step is a mask, and the masks are
//! those of the words of a slot.
//!
//! It stores what [`crate::policy::minimize`] stores.

use minimizer_common::plan::{Plan, Steps};
use minimizer_common::slot::{HALF_WORDS, Narrow, USED, WIDE, Wide};

use crate::parser::common::{Ipv4Packet, Ipv6Packet, Transport};
use crate::policy::minimize::port;
use crate::policy::nodes::constant;

/// The narrow slot of one IPv4 packet. The time must fit. `EXACT` says that the policy keeps every field as it is.
#[inline(always)]
#[must_use]
pub fn ipv4<const EXACT: bool>(
    plan: &Plan,
    packet: &Ipv4Packet,
    interface: u32,
    units: u32,
) -> [u64; HALF_WORDS] {
    let Ipv4Packet { addresses, length_octets, transport, .. } = packet;
    [
        if EXACT { *addresses } else { addresses & constant!(plan.ipv4_masks[0]) },
        narrow_transport::<EXACT>(plan, transport),
        narrow_marks::<EXACT>(plan, transport, interface) | Narrow::octets(*length_octets),
        narrow_times::<EXACT>(plan, units),
    ]
}

/// The narrow slot of one IPv6 packet. The policy keeps a short address or none, and the time must fit.
#[inline(always)]
#[must_use]
pub fn ipv6_narrow(plan: &Plan, packet: &Ipv6Packet, interface: u32, units: u32) -> [u64; HALF_WORDS] {
    let Ipv6Packet { addresses: [source, _, destination, _], length_octets, transport, .. } = packet;
    let source = source & constant!(plan.ipv6_masks[0][0][0]);
    let destination = destination & constant!(plan.ipv6_masks[1][0][0]);
    let version = constant!(plan.slot_masks.narrow_marks) & Narrow::IPV6;
    [
        source | destination << Narrow::IPV6_ADDRESS_BITS,
        narrow_transport::<false>(plan, transport) | destination >> 16 << 32,
        narrow_marks::<false>(plan, transport, interface) | version | Narrow::octets(*length_octets),
        narrow_times::<false>(plan, units),
    ]
}

/// The wide slot of one IPv6 packet. `EXACT` says that the policy keeps every field as it is.
#[inline(always)]
#[must_use]
pub fn ipv6_wide<const EXACT: bool>(
    plan: &Plan,
    packet: &Ipv6Packet,
    interface: u32,
    units: u32,
) -> [u64; 2 * HALF_WORDS] {
    let Ipv6Packet { addresses, length_octets, transport, .. } = packet;
    let Transport { ports, control_bits, protocol, traffic_class, vlan } = *transport;
    let [mut source, mut source_end, mut destination, mut destination_end] = *addresses;
    let kind = u64::from(protocol) | u64::from(traffic_class) << 8;
    let mut times = u64::from(units) | u64::from(units) << 32;
    let mut counters = kind << Wide::KIND_SHIFT | u64::from(control_bits) << Wide::CONTROL_BITS_SHIFT;
    let ports = if EXACT { ports } else { kept_ports(plan, ports) };
    let tags = vlan.tags.with_ipv6().with_interface(interface);
    let mut transport = u64::from(ports) | u64::from(tags.0) << 32;
    if !EXACT {
        let masks = &plan.slot_masks;
        source &= constant!(plan.ipv6_masks[0][0][0]);
        source_end &= constant!(plan.ipv6_masks[0][0][1]);
        destination &= constant!(plan.ipv6_masks[1][0][0]);
        destination_end &= constant!(plan.ipv6_masks[1][0][1]);
        times &= constant!(masks.wide_times);
        counters &= constant!(masks.wide_counters);
        transport &= constant!(masks.wide_transport);
    }
    let volume = USED | WIDE | u64::from(*length_octets) << Wide::OCTETS_SHIFT;
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
