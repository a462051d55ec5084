//! The short way of a packet of a common shape: read with few bounds checks, judged if the policy judges, and counted without a
//! call.

use aya_ebpf::bindings::xdp_md;
use minimizer_common::generation::Head;
use minimizer_common::outcome::Outcome;
use minimizer_common::plan::Steps;
use minimizer_common::slot::{Ipv6Form, Narrow, Wide};
use minimizer_common::tunnel::{Tunnel, Tunnels};
use minimizer_ebpf::parser::common::{self, Ipv4Packet, Ipv6Packet, Link, TAGGED, Transport, UNTAGGED, Vlan};
use minimizer_ebpf::parser::walk::Version;
use minimizer_ebpf::policy::judge::{Judgement, judge};
use minimizer_ebpf::policy::minimize::{self, Classes};
use minimizer_ebpf::policy::short;
use minimizer_ebpf::untraced;

use crate::program::clock::{self, Time};
use crate::program::constants::{SETTINGS, setting};
use crate::program::frame::XdpFrame;
use crate::program::memory::{Keys, PolicyTables, Run, counters};
use crate::program::site::{Here, Site};

/// The packet has no common shape.
pub const OTHER_SHAPE: u64 = u64::MAX;

impl Here {
    /// Counts a packet of a common shape, or sets it aside, under a policy that judges nothing. `None`, and nothing is
    /// counted, if the packet has another shape, or another tunnel may be behind its headers. `EXACT` says that the
    /// policy keeps every field as it is.
    #[inline(always)]
    pub fn count_common<const TUNNELS: bool, const EXACT: bool>(
        &self,
        frame: XdpFrame,
        head: &mut Head,
    ) -> Option<Outcome> {
        if self.time.units >> Narrow::TIME_BITS != 0 {
            return None;
        }
        match common::link(&frame)? {
            Link { version, vlan: None } => {
                self.count_behind::<TUNNELS, EXACT, UNTAGGED>(frame, head, version, Vlan::NONE)
            }
            Link { version, vlan: Some(vlan) } => {
                self.count_behind::<TUNNELS, EXACT, TAGGED>(frame, head, version, vlan)
            }
        }
    }

    /// The same behind the link headers, of which there are `LINK` octets.
    #[inline(always)]
    fn count_behind<const TUNNELS: bool, const EXACT: bool, const LINK: usize>(
        &self,
        frame: XdpFrame,
        head: &mut Head,
        version: Version,
        vlan: Vlan,
    ) -> Option<Outcome> {
        let Self { site: site @ Site { interface, .. }, time: Time { units, .. } } = *self;
        let plan = &SETTINGS.plan;
        let (frame_octets, length_octets) = if version == Version::V4 {
            let (packet, frame_octets) = ipv4::<TUNNELS, EXACT, LINK>(frame, vlan)?;
            let addresses = short::ipv4_addresses::<EXACT>(plan, packet.addresses);
            site.keep_narrow::<EXACT>(
                head,
                &short::ipv4::<EXACT>(plan, &packet, addresses, interface, units),
            );
            (frame_octets, packet.length_octets)
        } else {
            let packet = ipv6::<TUNNELS, EXACT, LINK>(frame, vlan)?;
            let Ipv6Packet { frame_octets, length_octets, transport, .. } = packet;
            let addresses = short::ipv6_addresses::<EXACT>(plan, packet.addresses);
            if EXACT || setting!(plan.ipv6_form) == Ipv6Form::WIDE.0 {
                let tags = transport.vlan.tags.with_ipv6().with_interface(interface);
                let slot = short::wide::<EXACT>(plan, &transport, tags, addresses, length_octets, units);
                site.keep_wide::<EXACT>(head, &slot);
            } else {
                site.keep_narrow::<EXACT>(
                    head,
                    &short::ipv6_narrow(plan, &packet, addresses, interface, units),
                );
            }
            (frame_octets, length_octets)
        };
        let counters = counters(head, interface);
        counters.seen_octets += u64::from(frame_octets);
        counters.octets_counted += u64::from(length_octets);
        Some(Outcome::Counted)
    }

    /// Judges a packet of a common shape, and counts it or sets it aside if the policy collects it. `None`, and nothing is
    /// counted, as in [`Self::count_common`].
    #[inline(always)]
    fn judge_common<const TUNNELS: bool>(&self, frame: XdpFrame, head: &mut Head) -> Option<Outcome> {
        if self.time.units >> Narrow::TIME_BITS != 0 {
            return None;
        }
        let Link { version, vlan } = common::link(&frame)?;
        // Only the reading differs with the link headers: what follows is here once for each version.
        if version == Version::V4 {
            let (packet, frame_octets) = match vlan {
                None => ipv4::<TUNNELS, false, UNTAGGED>(frame, Vlan::NONE),
                Some(vlan) => ipv4::<TUNNELS, false, TAGGED>(frame, vlan),
            }?;
            counters(head, self.site.interface).seen_octets += u64::from(frame_octets);
            let packet = Ipv4Packet {
                transport: packet.transport.settled(),
                length_octets: untraced(packet.length_octets),
                ..packet
            };
            self.judge_ipv4(head, &packet)
        } else {
            let packet = match vlan {
                None => ipv6::<TUNNELS, false, UNTAGGED>(frame, Vlan::NONE),
                Some(vlan) => ipv6::<TUNNELS, false, TAGGED>(frame, vlan),
            }?;
            counters(head, self.site.interface).seen_octets += u64::from(packet.frame_octets);
            let packet = Ipv6Packet {
                transport: packet.transport.settled(),
                length_octets: untraced(packet.length_octets),
                ..packet
            };
            self.judge_ipv6(head, &packet)
        }
    }

    #[inline(always)]
    fn judge_ipv4(&self, head: &mut Head, packet: &Ipv4Packet) -> Option<Outcome> {
        let Self { site: site @ Site { interface, .. }, time: Time { units, .. } } = *self;
        let plan = &SETTINGS.plan;
        let Ipv4Packet { length_octets, transport, .. } = packet;
        let whole = [packet.addresses, 0, 0, 0];
        let (classes, selector) = match self.judged::<false>(&whole, transport) {
            Ok(judged) => judged,
            Err(outcome) => return Some(outcome),
        };
        counters(head, interface).octets_counted += u64::from(*length_octets);
        let keys = Keys { key: [0; 2], generation: head.state.generation };
        let kept = minimize::addresses::<false>(&PolicyTables, plan, whole, classes, &keys)?;
        if selector >> Narrow::SELECTOR_BITS == 0 {
            let mut slot = short::ipv4::<false>(plan, packet, kept[0], interface, units);
            slot[1] |= Narrow::selector(selector);
            site.keep_narrow::<false>(head, &slot);
        } else {
            let tags = transport.vlan.tags.with_interface(interface);
            let mut slot = short::wide::<false>(plan, transport, tags, kept, *length_octets, units);
            slot[2] |= Wide::selector(selector);
            site.keep_wide::<false>(head, &slot);
        }
        Some(Outcome::Counted)
    }

    #[inline(always)]
    fn judge_ipv6(&self, head: &mut Head, packet: &Ipv6Packet) -> Option<Outcome> {
        let Self { site: site @ Site { interface, .. }, time: Time { units, .. } } = *self;
        let plan = &SETTINGS.plan;
        let Ipv6Packet { addresses, length_octets, transport, .. } = packet;
        let (classes, selector) = match self.judged::<true>(addresses, transport) {
            Ok(judged) => judged,
            Err(outcome) => return Some(outcome),
        };
        counters(head, interface).octets_counted += u64::from(*length_octets);
        let keys = Keys { key: head.state.pseudonym_key, generation: 0 };
        let kept = minimize::addresses::<true>(&PolicyTables, plan, *addresses, classes, &keys)?;
        if setting!(plan.ipv6_form) != Ipv6Form::WIDE.0 && selector >> Narrow::SELECTOR_BITS == 0 {
            let mut slot = short::ipv6_narrow(plan, packet, kept, interface, units);
            slot[1] |= Narrow::selector(selector);
            site.keep_narrow::<false>(head, &slot);
        } else {
            let tags = transport.vlan.tags.with_ipv6().with_interface(interface);
            let mut slot = short::wide::<false>(plan, transport, tags, kept, *length_octets, units);
            slot[2] |= Wide::selector(selector);
            site.keep_wide::<false>(head, &slot);
        }
        Some(Outcome::Counted)
    }

    /// The classes of a packet's addresses, and the number of the indicator that is stored with it.
    #[inline(always)]
    fn judged<const IPV6: bool>(
        &self,
        addresses: &[u64; 4],
        transport: &Transport,
    ) -> Result<(Classes, u32), Outcome> {
        let plan = &SETTINGS.plan;
        let steps = Steps(setting!(plan.steps));
        if minimize::is_reserved::<IPV6>(plan, addresses) {
            return Err(Outcome::ReservedAddress);
        }
        if !steps.intersects(Steps::SCOPE.union(Steps::SELECT)) {
            return Ok((Classes::default(), 0));
        }
        let Transport { ports, protocol, .. } = *transport;
        let ports = ((ports >> 16) as u16, ports as u16);
        let Judgement { source_class, destination_class, selector } =
            judge::<IPV6>(&PolicyTables, plan, addresses, ports, protocol, self.time.seconds)?;
        let classes = Classes { source: source_class, destination: destination_class };
        Ok((classes, if steps.intersects(Steps::SELECTOR) { selector } else { 0 }))
    }
}

/// Judges a packet of a common shape and returns the number of its outcome, or [`OTHER_SHAPE`]; see [`Here::judge_common`]. A
/// function of its own, for the stack that it takes.
#[inline(never)]
pub fn judge_common<const TUNNELS: bool>(
    context: *mut xdp_md,
    start: *mut u8,
    first_block: u32,
    interface: u32,
    time: u64,
) -> u64 {
    let run = Run { start, first_block };
    let here = Here { site: Site { run, interface }, time: clock::read(time) };
    let ended = here.judge_common::<TUNNELS>(XdpFrame::of(context), run.head());
    ended.map_or(OTHER_SHAPE, |outcome| outcome as u64)
}

/// The packet of a frame, or the one in its tunnel, and the octets of the frame.
#[inline(always)]
fn ipv4<const TUNNELS: bool, const EXACT: bool, const LINK: usize>(
    frame: XdpFrame,
    vlan: Vlan,
) -> Option<(Ipv4Packet, u32)> {
    let packet = common::ipv4::<EXACT, LINK>(&frame, vlan)?;
    let frame_octets = packet.frame_octets;
    if !TUNNELS || !packet.transport.may_be_tunnel() {
        return Some((packet, frame_octets));
    }
    // A scope judges the outer addresses, too: the walk asks for that.
    let has_scope = Steps(setting!(plan.steps)).intersects(Steps::SCOPE);
    if has_scope || !Tunnels(setting!(tunnels)).has(Tunnel::GtpU) || !packet.transport.may_be_gtp_u() {
        return None;
    }
    Some((common::ipv4_in_gtp_u::<EXACT, LINK>(&frame, &packet)?, frame_octets))
}

/// The packet of a frame in which no listed tunnel can be.
#[inline(always)]
fn ipv6<const TUNNELS: bool, const EXACT: bool, const LINK: usize>(
    frame: XdpFrame,
    vlan: Vlan,
) -> Option<Ipv6Packet> {
    let packet = common::ipv6::<EXACT, LINK>(&frame, vlan)?;
    if TUNNELS && packet.transport.may_be_tunnel() { None } else { Some(packet) }
}
