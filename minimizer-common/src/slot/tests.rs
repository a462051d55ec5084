//! Round trips at the ends of every field, and what tells slots apart.

use zerocopy::transmute;

use super::{Count, Counted, HALF_WORDS, Half, Line, Narrow, USED, WIDE, Wide};
use crate::tuple::{Tags, Tuple};

const NONE: Count = Count { octets: 0, control_bits: 0, first: 0, last: 0 };
/// The most that one packet can say in a narrow slot.
const NARROW_ENDS: Count = Count { octets: (1 << 18) - 1, control_bits: 0xfff, first: 0xffff, last: 0xffff };
const WIDE_ENDS: Count = Count { first: u32::MAX, last: u32::MAX, ..NARROW_ENDS };

fn tuple(addresses: [u64; 4], ports: (u16, u16), tags: Tags, kind: (u8, u8), selector: u32) -> Tuple {
    Tuple { selector, ..Tuple::new(addresses, ports, tags, kind.0, kind.1) }
}

/// The words of one packet with each field in turn at its end, and with all of them.
fn counts(ends: Count) -> [Count; 6] {
    [
        NONE,
        Count { octets: ends.octets, ..NONE },
        Count { control_bits: ends.control_bits, ..NONE },
        Count { first: ends.first, ..NONE },
        Count { last: ends.last, ..NONE },
        ends,
    ]
}

const VLAN_MAX: Tags = Tags::NONE.with_vlan(0xfff);

fn ipv4_tuples() -> [Tuple; 11] {
    let addresses = |word| [word, 0, 0, 0];
    [
        tuple(addresses(0), (0, 0), Tags::NONE, (0, 0), 0),
        tuple(addresses(u64::MAX), (0, 0), Tags::NONE, (0, 0), 0),
        tuple(addresses(0), (u16::MAX, 0), Tags::NONE, (0, 0), 0),
        tuple(addresses(0), (0, u16::MAX), Tags::NONE, (0, 0), 0),
        tuple(addresses(0), (0, 0), Tags::NONE.with_vlan(0), (0, 0), 0),
        tuple(addresses(0), (0, 0), VLAN_MAX, (0, 0), 0),
        tuple(addresses(0), (0, 0), Tags::NONE.with_interface(31), (0, 0), 0),
        tuple(addresses(0), (0, 0), Tags::NONE, (u8::MAX, 0), 0),
        tuple(addresses(0), (0, 0), Tags::NONE, (0, u8::MAX), 0),
        tuple(addresses(0), (0, 0), Tags::NONE, (0, 0), 2047),
        tuple(
            addresses(u64::MAX),
            (u16::MAX, u16::MAX),
            VLAN_MAX.with_interface(31),
            (u8::MAX, u8::MAX),
            2047,
        ),
    ]
}

fn ipv6_prefix_tuples() -> [Tuple; 8] {
    const END: u64 = (1 << Narrow::IPV6_ADDRESS_BITS) - 1;
    let tags = Tags::NONE.with_ipv6();
    [
        tuple([0, 0, 0, 0], (0, 0), tags, (0, 0), 0),
        tuple([END, 0, 0, 0], (0, 0), tags, (0, 0), 0),
        tuple([0, 0, END, 0], (0, 0), tags, (0, 0), 0),
        tuple([0, 0, 0, 0], (u16::MAX, 0), tags, (0, 0), 0),
        tuple([0, 0, 0, 0], (0, u16::MAX), tags, (0, 0), 0),
        tuple([0, 0, 0, 0], (0, 0), tags.with_interface(31), (0, 0), 0),
        tuple([0, 0, 0, 0], (0, 0), tags, (u8::MAX, 0), 0),
        tuple([END, 0, END, 0], (u16::MAX, u16::MAX), tags.with_interface(31), (u8::MAX, 0), 0),
    ]
}

fn wide_tuples() -> [Tuple; 15] {
    let twice = VLAN_MAX.with_vlan(0xfff);
    let all = twice.with_ipv6().with_interface(31);
    let plain = |addresses| tuple(addresses, (0, 0), Tags::NONE, (0, 0), 0);
    let tagged = |tags| tuple([0; 4], (0, 0), tags, (0, 0), 0);
    [
        plain([0; 4]),
        plain([u64::MAX, 0, 0, 0]),
        plain([0, u64::MAX, 0, 0]),
        plain([0, 0, u64::MAX, 0]),
        plain([0, 0, 0, u64::MAX]),
        tuple([0; 4], (u16::MAX, 0), Tags::NONE, (0, 0), 0),
        tuple([0; 4], (0, u16::MAX), Tags::NONE, (0, 0), 0),
        tagged(VLAN_MAX),
        tagged(twice),
        tagged(Tags::NONE.with_ipv6()),
        tagged(Tags::NONE.with_interface(31)),
        tuple([0; 4], (0, 0), Tags::NONE, (u8::MAX, 0), 0),
        tuple([0; 4], (0, 0), Tags::NONE, (0, u8::MAX), 0),
        tuple([0; 4], (0, 0), Tags::NONE, (0, 0), (1 << 20) - 1),
        tuple([u64::MAX; 4], (u16::MAX, u16::MAX), all, (u8::MAX, u8::MAX), (1 << 20) - 1),
    ]
}

fn ipv4(tuple: &Tuple, count: &Count) -> Half {
    Half(Narrow::ipv4(tuple, count))
}

fn ipv6(tuple: &Tuple, count: &Count) -> Half {
    Half(Narrow::ipv6(tuple, count))
}

fn wide(tuple: &Tuple, count: &Count) -> Line {
    transmute!(Wide::of(tuple, count))
}

const fn image(half: Half) -> [u64; 2 * HALF_WORDS] {
    let [a, b, c, d] = half.0;
    [a, b, c, d, 0, 0, 0, 0]
}

#[test]
fn every_field_of_a_narrow_ipv4_slot_comes_back_and_disturbs_no_other() {
    for tuple in ipv4_tuples() {
        for count in counts(NARROW_ENDS) {
            assert!(Narrow::holds_ipv4(&tuple, &count), "{tuple:?} {count:?}");
            let half = ipv4(&tuple, &count);
            assert_eq!(Narrow::counted(&half), Counted::one(tuple, count));
            assert!(!half.is_free() && !half.is_wide());
            let image = image(half);
            assert_eq!((Narrow::protocol(&image), Narrow::is_ipv6(&image)), (tuple.protocol(), false));
        }
    }
}

#[test]
fn every_field_of_a_narrow_ipv6_slot_comes_back_and_disturbs_no_other() {
    for tuple in ipv6_prefix_tuples() {
        for count in counts(NARROW_ENDS) {
            assert!(Narrow::holds_ipv6(&count), "{tuple:?} {count:?}");
            let half = ipv6(&tuple, &count);
            assert_eq!(Narrow::counted(&half), Counted::one(tuple, count));
            assert!(!half.is_free() && !half.is_wide());
            let image = image(half);
            assert_eq!((Narrow::protocol(&image), Narrow::is_ipv6(&image)), (tuple.protocol(), true));
        }
    }
}

#[test]
fn every_field_of_a_wide_slot_comes_back_and_disturbs_no_other() {
    for tuple in wide_tuples() {
        for count in counts(WIDE_ENDS) {
            let line = wide(&tuple, &count);
            assert_eq!(Wide::counted(&line), Counted::one(tuple, count));
            assert!(line.0.iter().all(|half| !half.is_free() && half.is_wide()));
            let image = Wide::of(&tuple, &count);
            let expected = (tuple.protocol(), tuple.tags().is_ipv6());
            assert_eq!((Wide::protocol(&image), Wide::is_ipv6(&image)), expected);
        }
    }
}

#[test]
fn what_a_narrow_slot_cannot_say_takes_a_wide_one() {
    let base = tuple([1, 0, 0, 0], (1, 2), VLAN_MAX.with_interface(31), (6, 0xff), 2047);
    assert!(Narrow::holds_ipv4(&base, &NARROW_ENDS));
    let twice = Tags::NONE.with_vlan(1);
    for tuple in [
        Tuple { selector: 2048, ..base },
        Tuple { selector: 1 << 19, ..base },
        // The identifier may be zero: the tag is there nevertheless.
        Tuple::new(base.addresses, (1, 2), twice.with_vlan(0), 6, 0),
        Tuple::new(base.addresses, (1, 2), twice.with_vlan(1), 6, 0),
        Tuple::new(base.addresses, (1, 2), twice.with_vlan(0x800), 6, 0),
    ] {
        assert!(!Narrow::holds_ipv4(&tuple, &NONE), "{tuple:?}");
    }
    for beyond in [0x1_0000, 1 << 31, u32::MAX] {
        for count in [Count { first: beyond, ..NONE }, Count { last: beyond, ..NONE }] {
            assert!(!Narrow::holds_ipv4(&base, &count) && !Narrow::holds_ipv6(&count), "{count:?}");
        }
    }
}

/// A look-up tells free, narrow and wide halves apart by the marks alone, whatever else the words hold.
#[test]
fn no_narrow_slot_looks_like_half_of_a_wide_one() {
    assert!(Half::default().is_free() && !Half::default().is_wide());
    for tuple in wide_tuples() {
        for count in counts(WIDE_ENDS) {
            let line = wide(&tuple, &count);
            for half in &line.0 {
                assert_eq!(half.0[2] & (USED | WIDE), USED | WIDE);
            }
            assert_eq!(Wide::KEY & (USED | WIDE), USED | WIDE);
            assert_eq!(Wide::KIND & (USED | WIDE), USED | WIDE);
        }
    }
    for half in ipv4_tuples().map(|tuple| ipv4(&tuple, &NARROW_ENDS)) {
        assert_eq!(half.0[2] & (USED | WIDE), USED);
    }
    for half in ipv6_prefix_tuples().map(|tuple| ipv6(&tuple, &NARROW_ENDS)) {
        assert_eq!(half.0[2] & (USED | WIDE), USED);
    }
    assert_eq!(Narrow::KEY & (USED | WIDE), USED | WIDE);
}

#[test]
fn the_key_has_the_tuple_and_nothing_else() {
    let narrow = |one: &Half, other: &Half| {
        let same = Narrow::counted(one).tuple == Narrow::counted(other).tuple;
        assert_eq!(Narrow::key(one) == Narrow::key(other), same, "{one:?} {other:?}");
    };
    let four = ipv4_tuples().map(|tuple| counts(NARROW_ENDS).map(|count| ipv4(&tuple, &count)));
    let six = ipv6_prefix_tuples().map(|tuple| counts(NARROW_ENDS).map(|count| ipv6(&tuple, &count)));
    for one in four.iter().chain(&six).flatten() {
        four.iter().chain(&six).flatten().for_each(|other| narrow(one, other));
    }
    let lines = wide_tuples().map(|tuple| counts(WIDE_ENDS).map(|count| wide(&tuple, &count)));
    for one in lines.iter().flatten() {
        for other in lines.iter().flatten() {
            let same = Wide::counted(one).tuple == Wide::counted(other).tuple;
            assert_eq!(Wide::key(one) == Wide::key(other), same, "{one:?} {other:?}");
        }
    }
}

/// The octets at which a slot closes are part of what a look-up compares, and not of the flow's key.
#[test]
fn a_closed_slot_is_the_same_flow() {
    let tuple = ipv4_tuples()[10];
    let open = ipv4(&tuple, &NONE);
    let closed = Half({
        let [addresses, transport, marks, times] = open.0;
        [addresses, transport, marks | 1 << 35 << Narrow::OCTETS_SHIFT, times]
    });
    assert_eq!(Narrow::key(&open), Narrow::key(&closed));
    assert_ne!(open.0[2] & Narrow::KEY, closed.0[2] & Narrow::KEY);
    let last = open.0[2] | ((1 << 35) - 1) << Narrow::OCTETS_SHIFT;
    assert_eq!(open.0[2] & Narrow::KEY, last & Narrow::KEY, "one octet before it is open");

    let open = Wide::of(&wide_tuples()[14], &NONE);
    let by_octets = open[2] | 1 << 41 << Wide::OCTETS_SHIFT;
    let by_packets = open[6] | 1 << 31 << Wide::PACKETS_SHIFT;
    assert_ne!(open[2] & Wide::KEY, by_octets & Wide::KEY);
    assert_ne!(open[6] & Wide::KIND, by_packets & Wide::KIND);
    let mut closed = open;
    (closed[2], closed[6]) = (by_octets, by_packets);
    let (open, closed): (Line, Line) = (transmute!(open), transmute!(closed));
    assert_eq!(Wide::key(&open), Wide::key(&closed));
}

#[test]
fn slots_of_a_flow_add_up_to_their_ends() {
    let one = Count { octets: 40, control_bits: 0x002, first: 5, last: 7 };
    let other = Count { octets: 60, control_bits: 0xf10, first: 4, last: 0xffff };
    let sum = |tuple| Counted { tuple, control_bits: 0xf12, packets: 2, octets: 100, first: 4, last: 0xffff };
    for tuple in ipv4_tuples() {
        let (mut half, other) = (ipv4(&tuple, &one), ipv4(&tuple, &other));
        assert!(Narrow::absorb(&mut half, &other));
        assert_eq!(Narrow::counted(&half), sum(tuple));
    }
    for tuple in ipv6_prefix_tuples() {
        let (mut half, other) = (ipv6(&tuple, &one), ipv6(&tuple, &other));
        assert!(Narrow::absorb(&mut half, &other));
        assert_eq!(Narrow::counted(&half), sum(tuple));
    }
    for tuple in wide_tuples() {
        let (mut line, other) = (wide(&tuple, &one), wide(&tuple, &other));
        assert!(Wide::absorb(&mut line, &other));
        assert_eq!(Wide::counted(&line), sum(tuple));
    }
}

/// `(packets, octets)` that fit together with one packet of 40 octets, and those that do not.
#[test]
fn a_sum_that_does_not_fit_is_not_made() {
    let one = Count { octets: 40, ..NONE };
    const PACKETS_MAX: u64 = u32::MAX as u64;
    // One bit of a narrow slot says that it is displaced.
    const NARROW_PACKETS_MAX: u64 = (1 << 31) - 1;
    let narrow = |packets: u64, octets: u64| {
        let [addresses, transport, marks, times] = ipv4(&ipv4_tuples()[10], &NONE).0;
        let marks = marks | octets << Narrow::OCTETS_SHIFT;
        Half([addresses, transport, marks, times + (packets - 1) * Narrow::ONE_PACKET])
    };
    const NARROW_MAX: u64 = (1 << 36) - 1;
    for (packets, octets, fits) in [
        (NARROW_PACKETS_MAX - 1, NARROW_MAX - 40, true),
        (NARROW_PACKETS_MAX, 0, false),
        (1, NARROW_MAX - 39, false),
        (NARROW_PACKETS_MAX, NARROW_MAX, false),
    ] {
        let mut half = ipv4(&ipv4_tuples()[10], &one);
        let before = half;
        let other = narrow(packets, octets);
        assert_eq!(Narrow::absorb(&mut half, &other), fits, "{packets} {octets}");
        let Counted { tuple, packets: sum, octets: sum_octets, .. } = Narrow::counted(&half);
        assert_eq!(tuple, ipv4_tuples()[10]);
        if fits {
            assert_eq!((sum, sum_octets), (packets + 1, octets + 40));
        } else {
            assert_eq!(half, before);
        }
    }
    let wide_of = |packets: u64, octets: u64| {
        let mut words = Wide::of(&wide_tuples()[14], &NONE);
        words[2] |= octets << Wide::OCTETS_SHIFT;
        words[6] += (packets - 1) * Wide::ONE_PACKET;
        let line: Line = transmute!(words);
        line
    };
    const WIDE_MAX: u64 = (1 << 42) - 1;
    for (packets, octets, fits) in [
        (PACKETS_MAX - 1, WIDE_MAX - 40, true),
        (PACKETS_MAX, 0, false),
        (1, WIDE_MAX - 39, false),
        (PACKETS_MAX, WIDE_MAX, false),
    ] {
        let mut line = wide(&wide_tuples()[14], &one);
        let before = line;
        let other = wide_of(packets, octets);
        assert_eq!(Wide::absorb(&mut line, &other), fits, "{packets} {octets}");
        let Counted { tuple, packets: sum, octets: sum_octets, .. } = Wide::counted(&line);
        assert_eq!(tuple, wide_tuples()[14]);
        if fits {
            assert_eq!((sum, sum_octets), (packets + 1, octets + 40));
        } else {
            assert_eq!(line, before);
        }
    }
}
