//! From a frame to its one outcome: counters, policy, flow table, spill log, residual counters.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use minimizer_common::generation::{BURST, Head, InterfaceCounters, Latest, UNKNOWN_INTERFACE};
use minimizer_common::outcome::Outcome;
use minimizer_common::plan::Steps;
use minimizer_common::settings::{InterfaceEntry, Way, clock as pack, interface_position};
use minimizer_common::slot::{Count, Ipv6Form, Narrow, Wide};
use minimizer_common::tunnel::Tunnels;
use minimizer_common::tuple::Tags;
use minimizer_ebpf::parser::cursor::{Cursor, Frame as _, Stop};
use minimizer_ebpf::parser::walk::{Inner, Packet, Version, enter, walk_ipv4, walk_ipv6, walk_link};
use minimizer_ebpf::policy::judge::{Judgement, judge};
use minimizer_ebpf::policy::minimize::{self, Classes};
use minimizer_ebpf::policy::outer::{Outer, has_endpoint};
use minimizer_ebpf::table::burst;
use minimizer_ebpf::table::group;
use minimizer_ebpf::{untraced, untraced_word, whole};

use crate::program::clock::{self, Time};
use crate::program::constants::{SETTINGS, setting};
use crate::program::frame::XdpFrame;
use crate::program::memory::{Keys, PolicyTables, Run, counters};
use crate::program::outer;
use crate::program::short_way::{self, OTHER_SHAPE};
use crate::program::site::{Here, Site};

/// Counts a frame and returns the number of its outcome. If a listed tunnel carries a packet inside the
/// frame, the function counts that packet. It does nothing only if the agent left a map empty, which it never
/// does.
///
/// `TUNNELS` makes two programs, of which one looks into tunnels.
#[inline(always)]
pub fn account<const TUNNELS: bool>(context: &XdpContext) -> Option<u8> {
    let run = Run::of_this_cpu()?;
    let head = run.head();
    // Before the packet is read: the verifier then knows but one state here.
    if head.state.set_aside >= BURST as u64 {
        account_burst(run.start, run.first_block);
    }
    if head.state.waiting != 0 {
        account_waiting(run.start, run.first_block);
    }
    // SAFETY: reads a field of the context.
    let if_index = unsafe { (*context.ctx).ingress_ifindex };
    let position = interface_position(if_index, head.control.interface_multiplier);
    let Some(interface) = InterfaceEntry(head.control.interfaces[position]).slot_of(if_index) else {
        count_unknown(context.ctx, counters(head, UNKNOWN_INTERFACE));
        return Some(Outcome::UnknownInterface as u8);
    };
    let Head { interfaces, state, control, .. } = head;
    let counters = &mut interfaces[interface as usize];

    // The clock is read before the walk, while few values occupy registers.
    let time = clock::now(counters, state, control);
    counters.seen_packets += 1;

    let way = Way(setting!(way));
    let here = Here { site: Site { run, interface }, time };
    if way == Way::JUDGED {
        let now = pack(time.units, time.seconds);
        let ended =
            short_way::judge_common::<TUNNELS>(context.ctx, run.start, run.first_block, interface, now);
        if ended != OTHER_SHAPE {
            *head.interfaces[interface as usize].outcomes.get_mut(ended as usize)? += 1;
            return Some(ended as u8);
        }
    } else {
        let is_counted = if way == Way::EXACT {
            here.count_common::<TUNNELS, true>(XdpFrame { context: context.ctx, steps: Steps::NONE }, head)
        } else {
            here.count_common::<TUNNELS, false>(XdpFrame::of(context.ctx), head)
        };
        if is_counted.is_some() {
            head.interfaces[interface as usize].outcomes[Outcome::Counted as usize] += 1;
            return Some(Outcome::Counted as u8);
        }
    }
    // Another one: the common shapes need none on the stack. The verifier forgets whether the time fits into a narrow slot:
    // else it would walk all of this twice.
    let forgotten = |number: u32| untraced(whole(number.into()) as u32);
    let time = Time { units: forgotten(time.units), seconds: forgotten(time.seconds) };
    let here = Here { site: Site { run, interface: black_box(interface) }, time };
    let ended = if TUNNELS {
        count_inner_or_outer(context.ctx, head, &here).0
    } else {
        count(context.ctx, head, &here).0
    };
    if ended == Outcome::Counted as u64 {
        keep(run.start, run.first_block, interface);
    }
    // The compiler may know which outcomes a function returns, but the verifier does not.
    let ended = black_box(ended);
    // An index would need a bounds check that panics, which BPF does not have.
    *head.interfaces[interface as usize].outcomes.get_mut(ended as usize)? += 1;
    Some(ended as u8)
}

/// Counts a frame of an interface that nobody watches. It reads no octet of the frame.
#[inline(never)]
fn count_unknown(context: *mut xdp_md, counters: &mut InterfaceCounters) {
    counters.seen_packets += 1;
    counters.seen_octets += u64::from(XdpFrame::of(context).octets());
    counters.outcomes[Outcome::UnknownInterface as usize] += 1;
}

/// Puts the packets that the CPU has set aside into slots. The first loop only reads their lines: no packet waits for the
/// line of another, so the processor fetches all of them at once. Packets whose first line is full wait.
#[inline(never)]
fn account_burst(start: *mut u8, first_block: u32) {
    let run = Run { start, first_block };
    let head = run.head();
    for place in &head.state.places {
        let Some(line) = run.first_line(*place) else { return };
        line.touch();
    }
    let Head { state, ring, waiting, .. } = head;
    for (place, image) in state.places.iter().zip(&*ring) {
        let Some(line) = run.first_line(*place) else { return };
        if !line.count(image, &mut state.slots_taken) {
            let index = state.waiting as usize % BURST;
            // Word by word: of the array at once the compiler makes a call that moves single octets.
            waiting[index] = image.map(whole);
            state.waiting_places[index] = *place;
            state.waiting += 1;
        }
    }
    // The last of the ring takes in no more packets.
    head.state.latest = Latest::default();
    head.state.set_aside = 0;
}

/// Puts one packet whose first line was full into a slot. Between two bursts come at least as many packets as a burst can
/// leave, and each of them does this once: a loop over all that wait would make the verifier walk it once for each.
#[inline(never)]
fn account_waiting(start: *mut u8, first_block: u32) {
    let mut run = Run { start, first_block };
    let Head { state, waiting, .. } = run.head();
    // In their order: the first packet of a flow gives it its first time.
    let index = state.waited as usize % BURST;
    state.waited += 1;
    if state.waited >= state.waiting {
        state.waited = 0;
        state.waiting = 0;
    }
    burst::displaced(&mut run, state.waiting_places[index], &mut waiting[index], &mut state.slots_taken);
}

/// How the walk of a frame ended: the number of an outcome, or a packet inside a tunnel. It is one word,
/// because a function in the kernel returns no more.
#[derive(Clone, Copy)]
struct Ended(u64);

impl Ended {
    const INNER: u64 = 1 << 63;
    const IPV6: u64 = 1 << 62;
    /// What the outer addresses say, of three bits.
    const OUTER_SHIFT: u32 = 59;
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
    const fn with_outer(self, said: u64) -> Self {
        Self(self.0 | (said & 7) << Self::OUTER_SHIFT)
    }

    #[inline(always)]
    const fn outer(self) -> Outer {
        Outer((self.0 >> Self::OUTER_SHIFT) as u32 & 7)
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

/// Counts the packet of which the next place in the ring has the image, or leaves it there. The verifier knows nothing about
/// what it reads from the ring: it walks this once, and not once for each kind of packet.
#[inline(never)]
fn keep(start: *mut u8, first_block: u32, interface: u32) {
    let run = Run { start, first_block };
    let head = run.head();
    let site = Site { run, interface };
    let image = head.ring[head.state.set_aside as usize % BURST];
    if group::is_wide(&image) {
        site.keep_wide::<false>(head, &image);
    } else {
        site.keep_narrow::<false>(head, &group::narrow_words(&image));
    }
}

/// Reads a frame of any shape and puts the image of its packet into the next place of the ring. The caller keeps it.
#[inline(never)]
fn count(context: *mut xdp_md, head: &mut Head, here: &Here) -> Ended {
    let mut cursor = Cursor::over(XdpFrame::of(context));
    let stop = match walk_link(&mut cursor) {
        Ok((tags, Version::V4)) => match walk_ipv4(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => {
                counters(head, here.site.interface).seen_octets += u64::from(cursor.known_octets());
                return Ended::with(here.count::<false>(head, &packet.settled(), Outer::NOTHING));
            }
            Err(stop) => stop,
        },
        Ok((tags, Version::V6)) => match walk_ipv6(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => {
                counters(head, here.site.interface).seen_octets += u64::from(cursor.known_octets());
                return Ended::with(here.count::<true>(head, &packet.settled(), Outer::NOTHING));
            }
            Err(stop) => stop,
        },
        Err(stop) => stop,
    };
    count_stop(&mut cursor, counters(head, here.site.interface), stop)
}

/// Counts a frame at which the walk stopped. Its headers do not tell its length, so that this asks the
/// kernel.
#[inline(always)]
fn count_stop(cursor: &mut Cursor<XdpFrame>, counters: &mut InterfaceCounters, stop: Stop) -> Ended {
    let outcome = cursor.outcome(stop);
    counters.seen_octets += u64::from(cursor.known_octets());
    Ended::with(Some(outcome))
}

/// Counts the packet inside a tunnel, or else the outer packet. It makes its calls one after the other:
/// nested calls would add their stacks up.
#[inline(always)]
fn count_inner_or_outer(context: *mut xdp_md, head: &mut Head, here: &Here) -> Ended {
    let outer = count_outer(context, head, here);
    if !outer.is_inner() {
        return outer;
    }
    // The parties of a scope are told apart by all addresses.
    let has_scope = Steps(setting!(plan.steps)).intersects(Steps::SCOPE);
    let said = if has_scope { outer::judge(context) } else { 0 };
    // Else the verifier would walk the inner packet once for everything that can be said of the outer one.
    let outer = Ended(untraced_word(outer.with_outer(said).0));
    count_inner(context, head, here, outer)
}

/// Counts a packet, unless a listed tunnel carries a packet inside it. The two IP versions share the code
/// from here on, since tunnels are the same in both.
#[inline(never)]
fn count_outer(context: *mut xdp_md, head: &mut Head, here: &Here) -> Ended {
    let listed = Tunnels(setting!(tunnels));
    let mut cursor = Cursor::over(XdpFrame::of(context));
    let walked = match walk_link(&mut cursor) {
        Ok((tags, Version::V4)) => walk_ipv4(&mut cursor, tags, listed).map(|walked| (tags, walked)),
        Ok((tags, Version::V6)) => walk_ipv6(&mut cursor, tags, listed).map(|walked| (tags, walked)),
        Err(stop) => Err(stop),
    };
    let (tags, (packet, inside)) = match walked {
        Ok(walked) => walked,
        Err(stop) => return count_stop(&mut cursor, counters(head, here.site.interface), stop),
    };
    counters(head, here.site.interface).seen_octets += u64::from(cursor.known_octets());
    let packet = packet.settled();
    // Whether it is one of a tunnel nobody knows, nor between whom.
    if packet.may_carry != 0 && !is_reserved(&packet) && has_endpoint(&SETTINGS.plan, &packet) {
        return Ended::with(Some(Outcome::OutOfScope));
    }
    match enter(&mut cursor, inside) {
        Ok(None) => here.count_settled(head, &packet, Outer::NOTHING),
        Ok(Some(inner)) => Ended::at(&inner, tags),
        Err(outcome) => Ended::with(Some(outcome)),
    }
}

#[inline(always)]
fn is_reserved(packet: &Packet) -> bool {
    if packet.tags.is_ipv6() {
        minimize::is_reserved::<true>(&SETTINGS.plan, &packet.addresses)
    } else {
        minimize::is_reserved::<false>(&SETTINGS.plan, &packet.addresses)
    }
}

#[inline(never)]
fn count_inner(context: *mut xdp_md, head: &mut Head, here: &Here, outer: Ended) -> Ended {
    let said = outer.outer();
    let (Inner { version, offset, octets }, tags) = outer.inner();
    let mut cursor = Cursor::within(XdpFrame::of(context), offset, octets);
    let walked = match version {
        Version::V4 => walk_ipv4(&mut cursor, tags, Tunnels::NONE),
        Version::V6 => walk_ipv6(&mut cursor, tags, Tunnels::NONE),
    };
    match walked {
        Ok((packet, _)) => here.count_settled(head, &packet.settled(), said),
        Err(stop) => Ended::with(Some(cursor.outcome(stop))),
    }
}

impl Here {
    /// See [`Self::count`]; the verifier no longer knows anything of the packet.
    #[inline(always)]
    fn count_settled(&self, head: &mut Head, packet: &Packet, outer: Outer) -> Ended {
        Ended::with(if packet.tags.is_ipv6() {
            self.count::<true>(head, packet, outer)
        } else {
            self.count::<false>(head, packet, outer)
        })
    }

    /// Puts the image of a packet, as the policy leaves it, into the next place of the ring.
    #[inline(always)]
    fn count<const IPV6: bool>(&self, head: &mut Head, packet: &Packet, outer: Outer) -> Option<Outcome> {
        let Self { site: Site { interface, .. }, time } = *self;
        let plan = &SETTINGS.plan;
        let steps = Steps(setting!(plan.steps));
        if minimize::is_reserved::<IPV6>(plan, &packet.addresses) {
            return Some(Outcome::ReservedAddress);
        }
        let judges = steps.intersects(Steps::SCOPE.union(Steps::SELECT));
        let Judgement { source_class, destination_class, selector } = if judges {
            let Packet { addresses, ports, protocol, .. } = packet;
            match judge::<IPV6>(&PolicyTables, plan, addresses, *ports, *protocol, time.seconds) {
                Ok(judgement) => judgement,
                Err(outcome) => return Some(outcome),
            }
        } else {
            Judgement { source_class: 0, destination_class: 0, selector: 0 }
        };
        let classes = Classes { source: source_class, destination: destination_class };
        if !outer.permits(plan, classes) {
            return Some(Outcome::OutOfScope);
        }
        let octets = u64::from(packet.length_octets);
        counters(head, interface).octets_counted += octets;
        let keys = Keys { key: head.state.pseudonym_key, generation: head.state.generation };
        let (mut tuple, control_bits) =
            minimize::minimize::<IPV6>(&PolicyTables, plan, packet, interface, classes, &keys)?;
        if steps.intersects(Steps::SELECTOR) {
            tuple.selector = selector;
        }
        let count = Count {
            octets,
            control_bits,
            first: if steps.intersects(Steps::NO_START) { 0 } else { time.units },
            last: if steps.intersects(Steps::NO_END) { 0 } else { time.units },
        };
        let form = Ipv6Form(setting!(plan.ipv6_form));
        let image = &mut head.ring[head.state.set_aside as usize % BURST];
        if IPV6 && form == Ipv6Form::NARROW && Narrow::holds_ipv6(&count) {
            [image[0], image[1], image[2], image[3]] = Narrow::ipv6(&tuple, &count);
        } else if (!IPV6 || form == Ipv6Form::LIKE_IPV4) && Narrow::holds_ipv4(&tuple, &count) {
            [image[0], image[1], image[2], image[3]] = Narrow::ipv4(&tuple, &count);
        } else {
            *image = Wide::of(&tuple, &count);
        }
        Some(Outcome::Counted)
    }
}
