//! From a frame to its one outcome: counters, policy, flow table, spill log, residual counters.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use minimizer_common::generation::{InterfaceCounters, UNKNOWN_INTERFACE};
use minimizer_common::outcome::Outcome;
use minimizer_common::plan::Steps;
use minimizer_common::settings::{InterfaceEntry, LENGTH_BUFFER, interface_position};
use minimizer_common::tunnel::Tunnels;
use minimizer_common::tuple::{Tags, Tuple};
use minimizer_ebpf::parser::cursor::{Cursor, Frame, Stop};
use minimizer_ebpf::parser::walk::{Inner, Packet, Version, enter, walk_ipv4, walk_ipv6, walk_link};
use minimizer_ebpf::policy::judge::{Judgement, judge};
use minimizer_ebpf::policy::minimize::{Classes, minimize};
use minimizer_ebpf::table::group::{self, Count, Parts};
use minimizer_ebpf::table::hash;

use crate::program::clock::{self, Time};
use crate::program::constants::{SETTINGS, setting};
use crate::program::memory::{CONTROL, Displaced, Generation, PolicyTables, Run};

/// The frame for which the kernel runs the program.
#[derive(Clone, Copy)]
struct XdpFrame {
    context: *mut xdp_md,
    steps: Steps,
}

impl XdpFrame {
    #[inline(always)]
    fn of(context: *mut xdp_md) -> Self {
        Self { context, steps: Steps(setting!(plan.steps)) }
    }
}

// SAFETY: the kernel keeps `data..data_end` readable while the program runs.
unsafe impl Frame for XdpFrame {
    #[inline(always)]
    fn start(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { (*self.context).data as usize as *const u8 }
    }

    #[inline(always)]
    fn end(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { (*self.context).data_end as usize as *const u8 }
    }

    #[inline(always)]
    fn omits(&self, steps: Steps) -> bool {
        self.steps.intersects(steps)
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        if setting!(frame_length) == LENGTH_BUFFER {
            // SAFETY: the helper reads the context of this program.
            let octets = unsafe { bpf_xdp_get_buff_len(self.context) };
            octets as u32
        } else {
            (self.end() as usize - self.start() as usize) as u32
        }
    }
}

/// Counts a frame and returns the number of its outcome. If a listed tunnel carries a packet inside the
/// frame, the function counts that packet. It does nothing only if the agent left a map empty, which it never
/// does.
///
/// `TUNNELS` makes two programs. The one without tunnels has everything inlined.
#[inline(always)]
pub fn account<const TUNNELS: bool>(context: &XdpContext) -> Option<u8> {
    let run = Run::of_this_cpu()?;
    let control = CONTROL.get(0)?;
    // SAFETY: reads a field of the context.
    let if_index = unsafe { (*context.ctx).ingress_ifindex };
    let position = interface_position(if_index, control.interface_multiplier);
    let Some(interface) = InterfaceEntry(control.interfaces[position]).slot_of(if_index) else {
        let is_counted = count_unknown(context.ctx, run.generation, run.first_block);
        return is_counted.then_some(Outcome::UnknownInterface as u8);
    };
    let counters = run.interface(interface)?;

    // The clock is read before the walk, while few values occupy registers.
    let steps = Steps(setting!(plan.steps));
    let time = clock::now(counters, &run, control, steps)?;
    counters.seen_packets += 1;

    let place = Place { run, interface, time };
    let ended = if TUNNELS {
        count_inner_or_outer(context.ctx, &place)
    } else {
        count(context.ctx, counters, &place)
    };
    // An index would need a bounds check that panics, which BPF does not have.
    *counters.outcomes.get_mut(ended.0 as usize)? += 1;
    Some(ended.0 as u8)
}

/// Counts a frame of an interface that nobody watches. It reads no octet of the frame. Returns `false`, which never
/// happens, if a map is empty. A truth value fits in a register; an optional number would be returned in memory.
#[inline(never)]
fn count_unknown(context: *mut xdp_md, generation: &'static Generation, first_block: u32) -> bool {
    let Some(counters) = (Run { generation, first_block }).interface(UNKNOWN_INTERFACE) else { return false };
    counters.seen_packets += 1;
    counters.seen_octets += u64::from(XdpFrame::of(context).octets());
    counters.outcomes[Outcome::UnknownInterface as usize] += 1;
    true
}

/// How the walk of a frame ended: the number of an outcome, or a packet inside a tunnel. It is one word,
/// because a function in the kernel returns no more.
#[derive(Clone, Copy)]
struct Ended(u64);

impl Ended {
    const INNER: u64 = 1 << 63;
    const IPV6: u64 = 1 << 62;
    const OCTETS_SHIFT: u32 = 41;
    const OCTETS_MASK: u64 = (1 << 18) - 1;
    const OFFSET_SHIFT: u32 = 26;
    const OFFSET_MASK: u64 = (1 << 15) - 1;
    const TAGS_MASK: u64 = (1 << 26) - 1;

    /// The walk ended with an outcome. There is none only if a map is empty, which never happens.
    #[inline(always)]
    fn with(outcome: Option<Outcome>) -> Self {
        Self(outcome.map_or(!Self::INNER, |outcome| outcome as u64))
    }

    /// The walk found a packet inside a tunnel and counted nothing yet. An offset has 15 bits. No frame has
    /// 2^18 octets. The link headers leave the bits of IP version and interface out of the tags.
    #[inline(always)]
    fn at(inner: &Inner, tags: Tags) -> Self {
        let version = if inner.version == Version::V6 { Self::IPV6 } else { 0 };
        Self(
            Self::INNER
                | version
                | (u64::from(inner.octets) & Self::OCTETS_MASK) << Self::OCTETS_SHIFT
                | (u64::from(inner.offset) & Self::OFFSET_MASK) << Self::OFFSET_SHIFT
                | u64::from(tags.0) & Self::TAGS_MASK,
        )
    }

    #[inline(always)]
    const fn is_inner(self) -> bool {
        self.0 & Self::INNER != 0
    }

    #[inline(always)]
    const fn inner(self) -> (Inner, Tags) {
        let inner = Inner {
            version: if self.0 & Self::IPV6 == 0 { Version::V4 } else { Version::V6 },
            offset: (self.0 >> Self::OFFSET_SHIFT & Self::OFFSET_MASK) as u32,
            octets: (self.0 >> Self::OCTETS_SHIFT & Self::OCTETS_MASK) as u32,
        };
        (inner, Tags((self.0 & Self::TAGS_MASK) as u32))
    }
}

/// Walks a frame and counts its packet. The code of the two IP versions stays apart to the end: joined code
/// would make each version carry values that only the other one needs.
#[inline(always)]
fn count(context: *mut xdp_md, counters: &mut InterfaceCounters, place: &Place) -> Ended {
    let mut cursor = Cursor::over(XdpFrame::of(context));
    let stop = match walk_link(&mut cursor) {
        Ok((tags, Version::V4)) => match walk_ipv4(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => {
                counters.seen_octets += u64::from(cursor.known_octets());
                return Ended::with(place.count::<false, false>(counters, &packet));
            }
            Err(stop) => stop,
        },
        Ok((tags, Version::V6)) => match walk_ipv6(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => {
                counters.seen_octets += u64::from(cursor.known_octets());
                return Ended::with(place.count::<true, false>(counters, &packet));
            }
            Err(stop) => stop,
        },
        Err(stop) => stop,
    };
    count_stop(&mut cursor, counters, stop)
}

/// Counts a frame at which the walk stopped. Its headers do not tell its length, so that this asks the
/// kernel.
#[inline(always)]
fn count_stop(cursor: &mut Cursor<XdpFrame>, counters: &mut InterfaceCounters, stop: Stop) -> Ended {
    let outcome = cursor.outcome(stop);
    counters.seen_octets += u64::from(cursor.known_octets());
    Ended::with(Some(outcome))
}

/// Counts the packet inside a tunnel, or else the outer packet. It makes two calls, one after the other:
/// nested calls would add their stacks up.
#[inline(always)]
fn count_inner_or_outer(context: *mut xdp_md, place: &Place) -> Ended {
    let outer = count_outer(context, place);
    if outer.is_inner() { count_inner(context, place, outer) } else { outer }
}

/// Counts a packet, unless a listed tunnel carries a packet inside it. The two IP versions share the code
/// from here on, since tunnels are the same in both.
#[inline(never)]
fn count_outer(context: *mut xdp_md, place: &Place) -> Ended {
    let Some(counters) = place.run.interface(place.interface) else { return Ended::with(None) };
    let listed = Tunnels(setting!(tunnels));
    let mut cursor = Cursor::over(XdpFrame::of(context));
    let walked = match walk_link(&mut cursor) {
        Ok((tags, Version::V4)) => walk_ipv4(&mut cursor, tags, listed).map(|walked| (tags, walked)),
        Ok((tags, Version::V6)) => walk_ipv6(&mut cursor, tags, listed).map(|walked| (tags, walked)),
        Err(stop) => Err(stop),
    };
    let (tags, (packet, inside)) = match walked {
        Ok(walked) => walked,
        Err(stop) => return count_stop(&mut cursor, counters, stop),
    };
    counters.seen_octets += u64::from(cursor.known_octets());
    let packet = packet.settled();
    match enter(&mut cursor, inside) {
        Ok(None) if packet.tags.is_ipv6() => Ended::with(place.count::<true, true>(counters, &packet)),
        Ok(None) => Ended::with(place.count::<false, true>(counters, &packet)),
        Ok(Some(inner)) => Ended::at(&inner, tags),
        Err(outcome) => Ended::with(Some(outcome)),
    }
}

#[inline(never)]
fn count_inner(context: *mut xdp_md, place: &Place, outer: Ended) -> Ended {
    let Some(counters) = place.run.interface(place.interface) else { return Ended::with(None) };
    let (Inner { version, offset, octets }, tags) = outer.inner();
    let mut cursor = Cursor::within(XdpFrame::of(context), offset, octets);
    let stop = match version {
        Version::V4 => match walk_ipv4(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => return Ended::with(place.count::<false, true>(counters, &packet.settled())),
            Err(stop) => stop,
        },
        Version::V6 => match walk_ipv6(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => return Ended::with(place.count::<true, true>(counters, &packet.settled())),
            Err(stop) => stop,
        },
    };
    Ended::with(Some(cursor.outcome(stop)))
}

/// Where and when a packet arrived.
#[derive(Clone, Copy)]
struct Place {
    run: Run,
    interface: u32,
    time: Time,
}

impl Place {
    /// Puts the packet into a record, or into a residual counter if there is no room. `SETTLED` says that the
    /// verifier no longer knows anything about the packet.
    #[inline(always)]
    fn count<const IPV6: bool, const SETTLED: bool>(
        &self,
        counters: &mut InterfaceCounters,
        packet: &Packet,
    ) -> Option<Outcome> {
        let Self { run, interface, time } = *self;
        let plan = &SETTINGS.plan;
        let steps = Steps(setting!(plan.steps));
        let judges = steps.intersects(Steps::SCOPE.union(Steps::SELECT));
        let packet = &if judges && !SETTLED { packet.settled() } else { *packet };
        let Judgement { source_class, destination_class, selector } = if judges {
            let Packet { addresses, ports, protocol, .. } = packet;
            match judge::<IPV6>(&PolicyTables, plan, addresses, *ports, *protocol, time.seconds) {
                Ok(judgement) => judgement,
                Err(outcome) => return Some(outcome),
            }
        } else {
            Judgement { source_class: 0, destination_class: 0, selector: 0 }
        };
        let octets = u64::from(packet.length_octets);
        counters.octets_counted += octets;
        let classes = Classes { source: source_class, destination: destination_class };
        let (mut tuple, control_bits) =
            minimize::<IPV6>(plan, packet, interface, classes, || run.pseudonym_key())?;
        if steps.intersects(Steps::SELECTOR) {
            tuple.selector = selector;
        }
        let count = Count {
            octets,
            control_bits,
            first: if steps.intersects(Steps::NO_START) { 0 } else { time.units },
            last: if steps.intersects(Steps::NO_END) { 0 } else { time.units },
        };
        let parts = Parts {
            addresses: !steps.intersects(if IPV6 { Steps::NO_IPV6 } else { Steps::NO_IPV4 }),
            transport: !steps.intersects(Steps::NO_TRANSPORT),
            selector: steps.intersects(Steps::SELECTOR),
        };
        let keys = &SETTINGS.hash_keys;
        let position = if IPV6 { hash::ipv6(keys, &tuple, parts) } else { hash::ipv4(keys, &tuple, parts) };
        // SAFETY: the block is a group, and only this CPU writes it.
        if let Some(slot) = unsafe { group::find::<IPV6>(run.group(position)?, position, &tuple, parts) } {
            group::count::<IPV6>(slot, &tuple, count);
            return Some(Outcome::Counted);
        }
        // The compiler would turn stores of several known zeroes into a call of memset, which the verifier
        // refuses.
        let zero = black_box(0);
        let [first, second, third, fourth] = tuple.addresses;
        let addresses = if IPV6 { [first, second, third, fourth] } else { [first, zero, zero, zero] };
        let packet = Displaced { tuple: Tuple { addresses, ..tuple }, count, position, interface };
        let recorded = displaced(run.generation, run.first_block, &packet)?;
        Some(if recorded { Outcome::Counted } else { Outcome::Overflow })
    }
}

/// Counts a packet in its second group or in the spill log and returns `true`; otherwise counts it in a
/// residual counter and returns `false`. It is a function of its own, because few packets need it and its
/// registers would cost the others.
#[inline(never)]
fn displaced(generation: &'static Generation, first_block: u32, packet: &Displaced) -> Option<bool> {
    let run = Run { generation, first_block };
    let position = hash::second(packet.position);
    // The unused address words of an IPv4 tuple are zero, in the packet and in the table.
    let group = run.group(position)?;
    // SAFETY: the block is a group, and only this CPU writes it.
    if let Some(slot) = unsafe { group::find::<true>(group, position, &packet.tuple, Parts::ALL) } {
        group::count::<true>(slot, &packet.tuple, packet.count);
        return Some(true);
    }
    run.spill(packet)
}
