//! The short way stores what the long one stores, for every step that a policy may take on it.

use minimizer_common::permutation::Permutation;
use minimizer_common::plan::{LISTED_PLACES, Plan, Steps};
use minimizer_common::slot::{Count, Ipv6Form, Masks, Narrow, Wide};
use minimizer_common::tables::{Entry, Node, Roots};
use minimizer_common::tuple::{Tags, Tuple};

use super::{ipv4, ipv4_addresses, ipv6_addresses, ipv6_narrow, wide};
use crate::parser::common::{Ipv4Packet, Ipv6Packet, Transport, Vlan};
use crate::policy::minimize::{Classes, Pseudonyms, minimize};
use crate::policy::nodes::Nodes;

/// A number that looks random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.next().is_multiple_of(many)
    }

    fn transport(&mut self) -> Transport {
        let is_tcp = self.one_in(2);
        Transport {
            ports: self.next() as u32 & [u32::MAX, 0x00ff_00ff, 0x03ff_ffff][self.next() as usize % 3],
            control_bits: if is_tcp { self.next() as u16 & 0xfff } else { 0 },
            protocol: if is_tcp { 6 } else { 17 },
            traffic_class: self.next() as u8,
            vlan: if self.one_in(2) { Vlan::new(self.next() as u16) } else { Vlan::NONE },
        }
    }
}

/// The plans here have no pseudonyms.
struct NoKeys;

impl Pseudonyms for NoKeys {
    fn ipv4(&self) -> Option<&Permutation> {
        None
    }

    fn ipv6(&self) -> [u64; 2] {
        unreachable!("no pseudonyms")
    }
}

#[derive(Clone, Copy)]
struct NoTables;

impl Nodes for NoTables {
    fn node(&self, _: u32) -> Option<&Node> {
        None
    }

    fn entry(&self, _: u32) -> Option<Entry> {
        None
    }

    fn roots(&self) -> &Roots {
        unreachable!("no prefixes")
    }
}

/// The prefix of a word in memory order.
fn prefix(bits: u32) -> u64 {
    (u64::MAX.checked_shl(64 - bits).unwrap_or(0)).to_be()
}

/// What a policy may leave of fields, with the steps that say so.
fn plan(numbers: &mut Numbers, form: Ipv6Form) -> (Plan, bool, bool) {
    let mut plan = Plan::EXACT;
    let mut steps = Steps::NONE;
    let mut add = |condition: bool, step: Steps| {
        if condition {
            steps = steps.union(step);
        }
    };
    let mut ipv4_mask = || prefix(numbers.next() as u32 % 33) & 0xffff_ffff;
    plan.ipv4_masks = [ipv4_mask() | ipv4_mask() << 32; 2];
    let mut ipv6_mask = || match form {
        Ipv6Form::WIDE => [prefix(numbers.next() as u32 % 65), prefix(numbers.next() as u32 % 65)],
        Ipv6Form::NARROW => [prefix(numbers.next() as u32 % 49), 0],
        _ => [0; 2],
    };
    let (source, destination) = (ipv6_mask(), ipv6_mask());
    plan.ipv6_masks = [[source; 2], [destination; 2]];
    add(true, Steps::IPV4.union(Steps::IPV6));
    plan.ports_below = [(); 2].map(|()| [0, 1024, 49_152, 65_536][numbers.next() as usize % 4]);
    plan.port_classes = [(); 2].map(|()| [[0; 2], [1024, 49_152]][numbers.next() as usize % 2]);
    plan.listed_multipliers = [(); 2].map(|()| numbers.next() as u32 % 2 * 0x9e37_79b1);
    plan.listed_ports[1] = [(); LISTED_PLACES].map(|()| numbers.next() as u16);
    add(numbers.one_in(2), Steps::PORTS);
    let tag = |kept: bool, tags: Tags| if kept { tags.0 } else { 0 };
    let has_vlan = form != Ipv6Form::NARROW && numbers.one_in(2);
    plan.tags_mask = tag(has_vlan, Tags::VLAN)
        | tag(numbers.one_in(2), Tags::INTERFACE)
        | tag(form != Ipv6Form::LIKE_IPV4, Tags::VERSION);
    add(true, Steps::TAGS);
    let class = form != Ipv6Form::NARROW && numbers.one_in(2);
    let control_bits = [0, 0xfff, 0x03f][numbers.next() as usize % 3];
    plan.kind_mask =
        (u32::from(numbers.one_in(2)) * 0xff) | (u32::from(class) * 0xff00) | (control_bits << 16);
    add(true, Steps::KIND);
    let (first, last) = (numbers.one_in(2), numbers.one_in(2));
    add(!first, Steps::NO_START);
    add(!last, Steps::NO_END);
    plan.steps = steps.0;
    plan.ipv6_form = form.0;
    plan.slot_masks = Masks::of(plan.tags_mask, plan.kind_mask, first, last);
    (plan, first, last)
}

#[test]
fn the_short_way_stores_what_the_long_one_stores() {
    let mut numbers = Numbers(1);
    for round in 0..30_000 {
        let form = [Ipv6Form::WIDE, Ipv6Form::NARROW, Ipv6Form::LIKE_IPV4][round % 3];
        let (plan, has_first, has_last) = plan(&mut numbers, form);
        let interface = numbers.next() as u32 % 32;
        let units = numbers.next() as u32 & 0xffff;
        let length_octets = numbers.next() as u32 % 65_576;
        let count = |control_bits| Count {
            octets: length_octets.into(),
            control_bits,
            first: if has_first { units } else { 0 },
            last: if has_last { units } else { 0 },
        };
        let frame_octets = length_octets + 14;

        let transport = numbers.transport();
        let packet = Ipv4Packet { frame_octets, length_octets, addresses: numbers.next(), transport };
        let kept =
            minimize::<false>(&NoTables, &plan, &packet.packet(), interface, Classes::default(), &NoKeys);
        let (tuple, control_bits): (Tuple, u16) = kept.expect("needs no key");
        assert!(Narrow::holds_ipv4(&tuple, &count(control_bits)));
        let expected = Narrow::ipv4(&tuple, &count(control_bits));
        let addresses = ipv4_addresses::<false>(&plan, packet.addresses);
        let short = ipv4::<false>(&plan, &packet, addresses, interface, units);
        assert_eq!(short, expected, "{plan:#?} {packet:?}");
        let exact = &Plan::EXACT;
        assert_eq!(ipv4_addresses::<false>(exact, packet.addresses), packet.addresses);
        assert_eq!(
            ipv4::<true>(exact, &packet, packet.addresses, interface, units),
            ipv4::<false>(exact, &packet, packet.addresses, interface, units)
        );
        // An IPv4 flow takes a wide slot if a narrow one does not hold it.
        let tags = packet.transport.vlan.tags.with_interface(interface);
        let short = wide::<false>(&plan, &packet.transport, tags, [addresses, 0, 0, 0], length_octets, units);
        assert_eq!(short, Wide::of(&tuple, &count(control_bits)), "{plan:#?} {packet:?}");

        let addresses = [(); 4].map(|()| numbers.next());
        let packet = Ipv6Packet { frame_octets, length_octets, addresses, transport: numbers.transport() };
        let kept =
            minimize::<true>(&NoTables, &plan, &packet.packet(), interface, Classes::default(), &NoKeys);
        let (tuple, control_bits) = kept.expect("needs no key");
        let count = count(control_bits);
        let kept = ipv6_addresses::<false>(&plan, addresses);
        assert_eq!(ipv6_addresses::<false>(exact, addresses), ipv6_addresses::<true>(exact, addresses));
        if form == Ipv6Form::WIDE {
            let tags = packet.transport.vlan.tags.with_ipv6().with_interface(interface);
            let short = wide::<false>(&plan, &packet.transport, tags, kept, length_octets, units);
            assert_eq!(short, Wide::of(&tuple, &count), "{plan:#?} {packet:?}");
            assert_eq!(
                wide::<true>(exact, &packet.transport, tags, addresses, length_octets, units),
                wide::<false>(exact, &packet.transport, tags, addresses, length_octets, units)
            );
        } else {
            let expected = if form == Ipv6Form::NARROW {
                Narrow::ipv6(&tuple, &count)
            } else {
                Narrow::ipv4(&tuple, &count)
            };
            assert_eq!(ipv6_narrow(&plan, &packet, kept, interface, units), expected, "{plan:#?} {packet:?}");
        }
    }
}
