//! One group under hand-made positions.

use std::collections::BTreeSet;
use std::vec::Vec;

use minimizer_common::generation::{GROUP_HALVES, Group, HALF_SHIFT};
use minimizer_common::slot::{Count, Counted, Half, Line, Narrow, Wide};
use minimizer_common::tuple::{Tags, Tuple};

use super::{
    Image, NARROW_HALVES, WIDE_LINES, add_narrow, add_wide, count, count_narrow, count_wide,
    first_line_steps, is_wide, line, narrow_half, narrow_words, wide_line,
};

const EMPTY: Group = Group([Half([0; 4]); GROUP_HALVES]);
const ONE: Count = Count { octets: 100, control_bits: 0x002, first: 7, last: 7 };
/// The most octets that a packet can have.
const PACKET_MAX: u64 = (1 << 18) - 1;

fn ipv4(flow: u64) -> Tuple {
    Tuple::new([flow, 0, 0, 0], (1, 2), Tags::NONE, 6, 0x2e)
}

fn ipv6(addresses: [u64; 4]) -> Tuple {
    Tuple::new(addresses, (1, 2), Tags::NONE.with_ipv6(), 6, 0)
}

fn narrow(tuple: &Tuple, count: &Count) -> Image {
    let [a, b, c, d] =
        if tuple.tags().is_ipv6() { Narrow::ipv6(tuple, count) } else { Narrow::ipv4(tuple, count) };
    // What the ring has behind a narrow slot is of another packet.
    [a, b, c, d, u64::MAX, u64::MAX, u64::MAX, u64::MAX]
}

fn wide(tuple: &Tuple, count: &Count) -> Image {
    Wide::of(tuple, count)
}

fn add(group: &mut Group, position: u32, image: &Image) -> bool {
    count(group, position, image, 0, &mut 0)
}

/// The position whose probing starts at a half.
const fn at_half(half: usize) -> u32 {
    (half as u32) << HALF_SHIFT
}

/// The slots of a group: which half each begins at, and what it says.
fn slots(group: &Group) -> Vec<(usize, Counted)> {
    let mut slots = Vec::new();
    for (number, [first, second]) in group.0.as_chunks::<2>().0.iter().enumerate() {
        if first.is_wide() || second.is_wide() {
            assert!(first.is_wide() && second.is_wide() && !first.is_free() && !second.is_free());
            slots.push((2 * number, Wide::counted(&Line([*first, *second]))));
        } else {
            for (half, at) in [(first, 2 * number), (second, 2 * number + 1)] {
                if half.is_free() {
                    assert_eq!(*half, Half::default(), "a free half is all zero");
                } else {
                    slots.push((at, Narrow::counted(half)));
                }
            }
        }
    }
    slots
}

#[test]
fn tries_stay_within_the_group_and_begin_in_the_line_of_the_position() {
    for half in 0..GROUP_HALVES {
        for others in [0, 1, !at_half(GROUP_HALVES - 1)] {
            let position = at_half(half) | others;
            let halves: Vec<_> = (0..NARROW_HALVES).map(|step| narrow_half(position, step)).collect();
            assert_eq!(halves[..2], [half, half ^ 1]);
            assert!(halves.iter().all(|half| *half < GROUP_HALVES));
            assert_eq!(halves.iter().collect::<BTreeSet<_>>().len(), NARROW_HALVES, "each one once");
            for (step, half) in halves.iter().enumerate() {
                assert_eq!(half / 2, (halves[0] / 2 + step / 2) % WIDE_LINES, "line by line");
            }
            let lines: Vec<_> = (0..WIDE_LINES).map(|step| wide_line(position, step)).collect();
            assert_eq!(lines[0], half / 2);
            assert!(lines.iter().all(|line| *line < WIDE_LINES));
            assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), WIDE_LINES, "each one once");
        }
    }
}

#[test]
fn the_first_packet_fills_the_slot_that_the_hash_names() {
    for half in 0..GROUP_HALVES {
        for (tuple, image, at) in [
            (ipv4(5), narrow(&ipv4(5), &ONE), half),
            (ipv6([5, 0, 6, 0]), narrow(&ipv6([5, 0, 6, 0]), &ONE), half),
            (ipv6([5, 6, 7, 8]), wide(&ipv6([5, 6, 7, 8]), &ONE), half & !1),
            (ipv4(5), wide(&ipv4(5), &ONE), half & !1),
        ] {
            let mut group = EMPTY;
            assert!(add(&mut group, at_half(half), &image));
            assert_eq!(slots(&group), [(at, Counted::one(tuple, ONE))]);
        }
    }
}

fn check_sums(image: fn(&Tuple, &Count) -> Image, tuple: Tuple, latest: u32) {
    let mut group = EMPTY;
    for count in [
        ONE,
        Count { octets: 65_535, control_bits: 0xf10, first: 7, last: 7 },
        Count { octets: 20, control_bits: 0, first: latest, last: latest },
        Count { octets: PACKET_MAX, control_bits: 0xfff, first: latest, last: latest },
    ] {
        assert!(add(&mut group, 0, &image(&tuple, &count)));
    }
    let octets = 100 + 65_535 + 20 + PACKET_MAX;
    let sum = Counted { tuple, control_bits: 0xfff, packets: 4, octets, first: 7, last: latest };
    assert_eq!(slots(&group), [(0, sum)], "what is counted does not run into the key");
}

#[test]
fn further_packets_add_up() {
    check_sums(narrow, ipv4(5), 0xffff);
    check_sums(narrow, ipv6([5, 0, 6, 0]), 0xffff);
    check_sums(wide, ipv6([5, 6, 7, 8]), u32::MAX);
}

/// Packets that were set aside come after those that were counted at once, and may be earlier.
#[test]
fn the_last_time_is_the_latest_whatever_comes_last() {
    type Make = fn(&Tuple, &Count) -> Image;
    let images: [(Make, u32); 2] = [(narrow, 0xffff), (wide, u32::MAX)];
    for (image, end) in images {
        let mut group = EMPTY;
        let mut last = 0;
        for time in [0, 5, 3, 5, end, 7, 0] {
            add(&mut group, 0, &image(&ipv4(5), &Count { first: time, last: time, ..ONE }));
            last = last.max(time);
            let [(_, counted)] = slots(&group)[..] else { panic!("one slot") };
            assert_eq!((counted.first, counted.last), (0, last));
        }
    }
}

#[test]
fn a_slot_is_taken_once() {
    for (image, tries) in [(narrow as fn(&Tuple, &Count) -> Image, NARROW_HALVES), (wide, WIDE_LINES)] {
        let (mut group, mut taken) = (EMPTY, 0);
        for flow in (0..2 * tries as u64).chain(0..tries as u64) {
            count(&mut group, 0, &image(&ipv4(flow + 1), &ONE), 0, &mut taken);
        }
        assert_eq!((taken, slots(&group).len()), (tries as u64, tries));
    }
}

/// Adds packets of a flow until it takes a second slot. Returns both.
fn until_closed(group: &mut Group, image: &Image) -> (u64, Vec<(usize, Counted)>) {
    let mut packets = 0;
    loop {
        assert!(add(group, 0, image));
        packets += 1;
        let slots = slots(group);
        if slots.len() == 2 {
            return (packets, slots);
        }
    }
}

#[test]
fn a_narrow_slot_closes_at_its_octets_and_the_flow_goes_on_in_the_next() {
    const CLOSED: u64 = 1 << 35;
    for tuple in [ipv4(5), ipv6([5, 0, 6, 0])] {
        let image = narrow(&tuple, &Count { octets: PACKET_MAX, ..ONE });
        let mut group = EMPTY;
        let (packets, closed) = until_closed(&mut group, &image);
        let [(0, first), (1, second)] = closed[..] else { panic!("the next is beside it: {closed:?}") };
        assert_eq!((first.tuple, second.tuple), (tuple, tuple));
        assert_eq!(first.packets + second.packets, packets);
        assert_eq!(first.octets + second.octets, packets * PACKET_MAX);
        assert!((CLOSED..CLOSED + PACKET_MAX).contains(&first.octets), "{first:?}");
        // The closed slot takes nothing more.
        for _ in 0..100 {
            assert!(add(&mut group, 0, &image));
        }
        assert_eq!(slots(&group)[0], (0, first));
        assert_eq!(slots(&group)[1].1.packets, second.packets + 100);
    }
}

#[test]
fn a_wide_slot_closes_at_its_octets_or_packets_and_the_flow_goes_on_in_the_next() {
    let tuple = Tuple { selector: 0xf_ffff, ..ipv6([5, 6, 7, 8]) };
    let image = wide(&tuple, &ONE);
    for (octets, packets) in [((1 << 41) - 100, 1), (100, (1 << 31) - 1)] {
        let mut group = EMPTY;
        add(&mut group, 0, &wide(&tuple, &Count { octets: 0, ..ONE }));
        group.0[0].0[2] += octets << Wide::OCTETS_SHIFT;
        group.0[1].0[2] += (packets - 1) * Wide::ONE_PACKET;
        assert!(add(&mut group, 0, &image), "the packet that closes it");
        let full = Counted { packets: packets + 1, octets: octets + 100, ..Counted::one(tuple, ONE) };
        assert_eq!(slots(&group), [(0, full)]);
        assert!(add(&mut group, 0, &image));
        assert_eq!(slots(&group), [(0, full), (2, Counted::one(tuple, ONE))]);
    }
}

/// Packets of one flow in a row are one image, which may close as a slot does.
#[test]
fn images_of_many_packets_add_up_and_lose_nothing_when_they_close() {
    const CLOSED: u64 = 1 << 35;
    let open = |octets: u64| {
        let mut image = narrow(&ipv4(5), &Count { octets: 0, ..ONE });
        image[2] += octets << Narrow::OCTETS_SHIFT;
        image
    };
    let total = |group: &Group| slots(group).iter().map(|(_, counted)| counted.octets).sum::<u64>();
    let (most, closed) = (CLOSED - 1, CLOSED + PACKET_MAX - 1);
    for sequence in [
        &[most, most][..],
        &[most, most, most, most],
        &[closed, closed],
        &[closed, closed, closed],
        &[most, closed, most, closed, 1],
        &[closed, 1, most, most, closed],
        &[1, closed, 1, closed],
    ] {
        let mut group = EMPTY;
        for octets in sequence {
            assert!(add(&mut group, 0, &open(*octets)));
        }
        assert_eq!(total(&group), sequence.iter().sum::<u64>(), "{sequence:?}");
        assert!(slots(&group).iter().all(|(_, counted)| counted.tuple == ipv4(5)));
    }
    const WIDE_CLOSED: u64 = 1 << 41;
    const PACKETS_CLOSED: u64 = 1 << 31;
    let (most, closed) = (WIDE_CLOSED - 1, WIDE_CLOSED + PACKET_MAX - 1);
    let tuple = ipv6([5, 6, 7, 8]);
    for sequence in [
        &[(most, 1), (most, 1)][..],
        &[(closed, 1), (closed, 1)],
        &[(closed, 1), (1, 1), (closed, 1), (closed, 1)],
        &[(1, PACKETS_CLOSED), (1, PACKETS_CLOSED)],
        &[(1, PACKETS_CLOSED - 1), (1, PACKETS_CLOSED - 1), (1, PACKETS_CLOSED)],
        &[(closed, PACKETS_CLOSED), (closed, PACKETS_CLOSED), (most, PACKETS_CLOSED - 1)],
    ] {
        let mut group = EMPTY;
        for (octets, packets) in sequence {
            let mut image = wide(&tuple, &Count { octets: 0, ..ONE });
            image[2] += octets << Wide::OCTETS_SHIFT;
            image[6] += (packets - 1) * Wide::ONE_PACKET;
            assert!(add(&mut group, 0, &image));
        }
        let found = slots(&group);
        assert!(found.iter().all(|(_, counted)| counted.tuple == tuple), "{found:?}");
        let sums = (
            found.iter().map(|(_, counted)| counted.octets).sum::<u64>(),
            found.iter().map(|(_, counted)| counted.packets).sum::<u64>(),
        );
        let expected = (
            sequence.iter().map(|(octets, _)| octets).sum::<u64>(),
            sequence.iter().map(|(_, packets)| packets).sum::<u64>(),
        );
        assert_eq!(sums, expected, "{sequence:?}");
    }
}

/// Another reason is the interface, where the slot does not tell it.
#[test]
fn packets_of_another_flow_for_another_reason_are_not_joined() {
    let mut slot = Narrow::ipv4(&ipv4(5), &ONE);
    let (before, packet) = (slot, slot);
    assert!(!add_narrow(&mut slot, &packet, 1) && slot == before);
    assert!(add_narrow(&mut slot, &packet, 0) && slot != before);
    let mut image = wide(&ipv4(5), &ONE);
    let (before, packet) = (image, image);
    assert!(!add_wide(&mut image, &packet, 1) && image == before);
    assert!(add_wide(&mut image, &packet, 0) && image != before);
}

#[test]
fn probing_goes_round_to_a_free_slot_and_finds_the_flow_again() {
    type Place = fn(u32, usize) -> usize;
    type Make = fn(&Tuple, &Count) -> Image;
    let tables: [(Make, usize, Place); 2] = [
        (narrow, NARROW_HALVES, narrow_half),
        (wide, WIDE_LINES, |position, step| 2 * wide_line(position, step)),
    ];
    for start in 0..GROUP_HALVES {
        for (image, tries, place) in tables {
            let mut group = EMPTY;
            let position = at_half(start);
            for _ in 0..2 {
                for flow in 1..=tries as u64 {
                    assert!(add(&mut group, position, &image(&ipv4(flow), &ONE)));
                }
            }
            let found = slots(&group);
            assert_eq!(found.len(), tries);
            for (half, counted) in found {
                let step = (0..tries).find(|step| place(position, *step) == half).expect("is one of them");
                assert_eq!((counted.tuple, counted.packets), (ipv4(step as u64 + 1), 2), "start {start}");
            }
        }
    }
}

#[test]
fn a_full_group_takes_no_other_flow_and_stays_as_it_is() {
    let fill = |image: fn(&Tuple, &Count) -> Image, slots: usize, halves: usize| {
        let mut group = EMPTY;
        for flow in 0..slots {
            assert!(add(&mut group, at_half(flow * halves), &image(&ipv4(flow as u64 + 1), &ONE)));
        }
        group
    };
    for (full, own) in [
        (fill(narrow, GROUP_HALVES, 1), narrow as fn(&Tuple, &Count) -> Image),
        (fill(wide, WIDE_LINES, 2), wide),
    ] {
        let mut group = full;
        for half in 0..GROUP_HALVES {
            for image in [narrow(&ipv4(99), &ONE), wide(&ipv4(99), &ONE), wide(&ipv6([1, 2, 3, 4]), &ONE)] {
                assert!(!add(&mut group, at_half(half), &image));
                assert_eq!(group.0, full.0);
            }
            for (at, counted) in slots(&full) {
                // A flow that is in one of its tries still counts.
                assert!(add(&mut group, at_half(at), &own(&counted.tuple, &ONE)));
                group = full;
            }
        }
    }
}

/// Tuples that differ in one part each.
fn alike() -> Vec<Tuple> {
    let base = ipv6([1, 2, 3, 4]);
    [
        base,
        ipv6([0, 2, 3, 4]),
        ipv6([1, 0, 3, 4]),
        ipv6([1, 2, 0, 4]),
        ipv6([1, 2, 3, 0]),
        ipv6([1 | 1 << 63, 2, 3, 4]),
        Tuple::new([1, 2, 3, 4], (9, 2), base.tags(), 6, 0),
        Tuple::new([1, 2, 3, 4], (1, 9), base.tags(), 6, 0),
        Tuple::new([1, 2, 3, 4], (1, 2), base.tags().with_vlan(0), 6, 0),
        Tuple::new([1, 2, 3, 4], (1, 2), base.tags().with_vlan(7), 6, 0),
        Tuple::new([1, 2, 3, 4], (1, 2), base.tags().with_vlan(0).with_vlan(0), 6, 0),
        Tuple::new([1, 2, 3, 4], (1, 2), base.tags().with_interface(1), 6, 0),
        Tuple::new([1, 2, 3, 4], (1, 2), base.tags(), 17, 0),
        Tuple::new([1, 2, 3, 4], (1, 2), base.tags(), 6, 0x2e),
        Tuple { selector: 1, ..base },
        Tuple { selector: 0xf_ffff, ..base },
    ]
    .into()
}

fn check_apart(images: &[(Tuple, Image)]) {
    for (number, (one, first)) in images.iter().enumerate() {
        for (other, second) in &images[..number] {
            assert_ne!(one, other);
            let mut group = EMPTY;
            assert!(add(&mut group, 0, first) && add(&mut group, 0, second) && add(&mut group, 0, first));
            let found = slots(&group);
            let tuples: Vec<_> = found.iter().map(|(_, counted)| (counted.tuple, counted.packets)).collect();
            assert_eq!(tuples, [(*one, 2), (*other, 1)]);
        }
    }
}

#[test]
fn tuples_that_differ_anywhere_do_not_share_a_slot() {
    let as_ipv4 = |tuple: &Tuple| {
        let [source, _, destination, _] = tuple.addresses;
        let tags = u64::from(tuple.tags().0 & !Tags::VERSION.0);
        let addresses = [source & 0xff | source >> 60 << 28 | destination << 32, 0, 0, 0];
        let selector = tuple.selector & 0x7ff;
        Tuple { addresses, transport: tuple.transport & 0xffff_ffff | tags << 32, selector, ..*tuple }
    };
    let mut four: Vec<_> = alike().iter().map(as_ipv4).collect();
    four.retain(|tuple| Narrow::holds_ipv4(tuple, &ONE));
    four.sort();
    four.dedup();
    assert_eq!(four.len(), 13, "all but the second tag, and two that differ in other words of IPv6");
    check_apart(&four.iter().map(|tuple| (*tuple, narrow(tuple, &ONE))).collect::<Vec<_>>());

    let tags = Tags::NONE.with_ipv6();
    let prefixes = [
        ipv6([1, 0, 3, 0]),
        ipv6([0, 0, 3, 0]),
        ipv6([1 | 1 << 47, 0, 3, 0]),
        ipv6([1, 0, 0, 0]),
        ipv6([1, 0, 3 | 1 << 15, 0]),
        ipv6([1, 0, 3 | 1 << 16, 0]),
        ipv6([1, 0, 3 | 1 << 47, 0]),
        Tuple::new([1, 0, 3, 0], (9, 2), tags, 6, 0),
        Tuple::new([1, 0, 3, 0], (1, 9), tags, 6, 0),
        Tuple::new([1, 0, 3, 0], (1, 2), tags.with_interface(1), 6, 0),
        Tuple::new([1, 0, 3, 0], (1, 2), tags, 17, 0),
    ];
    check_apart(&prefixes.map(|tuple| (tuple, narrow(&tuple, &ONE))));

    check_apart(&alike().into_iter().map(|tuple| (tuple, wide(&tuple, &ONE))).collect::<Vec<_>>());
}

#[test]
fn the_same_words_are_another_flow_in_the_other_version() {
    let (four, six) = (Tuple { kind: 6, ..ipv4(1) }, ipv6([1, 0, 0, 0]));
    for image in [narrow, wide] {
        check_apart(&[(four, image(&four, &ONE)), (six, image(&six, &ONE))]);
        check_apart(&[(six, image(&six, &ONE)), (four, image(&four, &ONE))]);
    }
}

/// The same tuple may need a wide slot for a later packet: the two have no slot in common.
#[test]
fn a_tuple_in_both_kinds_of_slot_has_one_of_each() {
    let (short, long) = (narrow(&ipv4(5), &ONE), wide(&ipv4(5), &Count { first: 1 << 16, ..ONE }));
    for (one, other) in [(short, long), (long, short)] {
        let mut group = EMPTY;
        for image in [one, other, one, other] {
            assert!(add(&mut group, 0, &image));
        }
        let found = slots(&group);
        let counted: Vec<_> =
            found.iter().map(|(at, counted)| (*at, counted.tuple, counted.packets)).collect();
        assert_eq!(counted, [(0, ipv4(5), 2), (2, ipv4(5), 2)], "in lines of their own");
    }
}

#[test]
fn a_line_half_taken_by_a_narrow_flow_takes_no_wide_one() {
    for taken in 0..2 {
        let mut group = EMPTY;
        assert!(add(&mut group, at_half(taken), &narrow(&ipv4(5), &ONE)));
        let before = group.0;
        let image = wide(&ipv6([1, 2, 3, 4]), &ONE);
        assert!(!count_wide(line(&mut group, 0), &image, &mut 0));
        assert_eq!(group.0, before);
        assert!(add(&mut group, 0, &image));
        let found: Vec<_> = slots(&group).into_iter().map(|(at, _)| at).collect();
        assert_eq!(found, [taken, 2], "it takes the next line");
    }
}

/// Whatever words a flow of the other kind has, its marks tell it apart.
#[test]
fn a_look_up_takes_no_half_of_a_wide_slot_and_no_pair_of_narrow_ones() {
    // A narrow packet that is half of a wide slot but for the marks.
    for tuple in [ipv6([1, 2, 3, 4]), ipv6([0; 4])] {
        let mut group = EMPTY;
        assert!(add(&mut group, 0, &wide(&tuple, &ONE)));
        let before = group.0;
        for half in 0..2 {
            let [a, b, c, d] = before[half].0;
            let image = [a, b, c & !minimizer_common::slot::WIDE, d, 0, 0, 0, 0];
            assert!(!is_wide(&image));
            assert!(!count_narrow(&mut group.0[half], &narrow_words(&image), &mut 0));
            assert_eq!(group.0, before);
        }
    }
    // A wide packet that is two narrow slots but for the marks.
    let mut group = EMPTY;
    assert!(
        add(&mut group, 0, &narrow(&ipv4(1), &ONE))
            && add(&mut group, 1 << HALF_SHIFT, &narrow(&ipv4(2), &ONE))
    );
    let before = group.0;
    let [Half([a, b, c, d]), Half([e, f, g, h])] = [before[0], before[1]];
    let marks = minimizer_common::slot::WIDE;
    let image = [a, b, c | marks, d, e, f, g | marks, h];
    assert!(is_wide(&image) && !count_wide(line(&mut group, 0), &image, &mut 0));
    assert_eq!(group.0, before);
}

#[test]
fn tries_behind_the_first_line_leave_it_alone() {
    for image in [narrow(&ipv4(5), &ONE), wide(&ipv4(5), &ONE)] {
        for half in 0..GROUP_HALVES {
            let mut group = EMPTY;
            assert!(count(&mut group, at_half(half), &image, first_line_steps(&image), &mut 0));
            let [(at, _)] = slots(&group)[..] else { panic!("one slot") };
            assert_eq!(at / 2, (half / 2 + 1) % WIDE_LINES);
        }
    }
}
