//! The table of a CPU in the memory of the test: where packets go when lines, groups and the log are full.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use minimizer_common::generation::{BURST, GROUP_HALVES, GROUP_SHIFT, Group, HALF_SHIFT, Place, Shape};
use minimizer_common::slot::{Count, Counted, Half, Line, Narrow, Wide};
use minimizer_common::tuple::{Tags, Tuple};

use super::{Table, account, displaced, spill_place};
use crate::table::group::{self, Image, NARROW_HALVES, WIDE_LINES, is_wide};
use crate::table::hash;

/// Packets and octets.
type Volume = (u64, u64);

struct Memory {
    groups: Vec<Group>,
    spill: Vec<[Half; 2]>,
    spilled: u64,
    taken: u64,
    overflow: Vec<(Place, Image)>,
}

impl Memory {
    fn new(groups: usize, spill_halves: usize) -> Self {
        Self {
            groups: vec![Group([Half::default(); GROUP_HALVES]); groups],
            spill: vec![[Half::default(); 2]; spill_halves / 2],
            spilled: 0,
            taken: 0,
            overflow: Vec::new(),
        }
    }

    /// Looks the line up as the program does: the position is the offset of the half.
    fn in_first_line(&mut self, place: Place, image: &Image) -> bool {
        let shape =
            Shape { cpus: 1, spill_halves: 0, groups: u32::try_from(self.groups.len()).expect("few") };
        let position = place.position();
        let offset = (position & shape.table_mask()) as usize;
        let (group, half) = (offset / size_of::<Group>(), offset % size_of::<Group>() / size_of::<Half>());
        assert_eq!(half, group::narrow_half(position, 0));
        assert_eq!(group, (position >> GROUP_SHIFT) as usize & (self.groups.len() - 1));
        let group = &mut self.groups[group];
        if is_wide(image) {
            return group::count_wide(group::line(group, half / 2), image, &mut self.taken);
        }
        let packets = group::narrow_words(image);
        group::count_narrow(&mut group.0[half], &packets, &mut self.taken)
            || group::count_narrow(&mut group.0[half ^ 1], &packets, &mut self.taken)
    }

    fn displaced(&mut self, place: Place, image: &Image) -> Option<()> {
        let mut taken = self.taken;
        let done = displaced(self, place, &mut { *image }, &mut taken);
        self.taken = taken;
        done
    }

    fn account(&mut self, place: Place, image: &Image) -> Option<()> {
        let mut taken = self.taken;
        let done = account(self, place, image, &mut taken);
        self.taken = taken;
        done
    }

    fn spill(&mut self, is_line: bool) -> Option<usize> {
        let room = u32::try_from(2 * self.spill.len()).expect("few");
        let (start, spilled) = spill_place(self.spilled, is_line, room)?;
        self.spilled = spilled;
        usize::try_from(start).ok()
    }

    /// What lines hold, as the drain reads them.
    fn read(lines: &[[Half; 2]]) -> Vec<Counted> {
        let mut found = Vec::new();
        for [first, second] in lines {
            assert_eq!(first.is_wide(), second.is_wide(), "a wide slot is a whole line");
            if first.is_wide() {
                found.push(Wide::counted(&Line([*first, *second])));
            } else {
                let halves = [first, second].into_iter().filter(|half| !half.is_free());
                found.extend(halves.map(Narrow::counted));
            }
        }
        found
    }

    fn in_groups(&self) -> Vec<Counted> {
        self.groups.iter().flat_map(|group| Self::read(group.0.as_chunks().0)).collect()
    }

    /// By tuple: what slots, the log and the residual counters hold.
    fn sums(&self) -> BTreeMap<Tuple, Volume> {
        let overflow = self.overflow.iter().map(|(_, image)| counted(image));
        let all = self.in_groups().into_iter().chain(Self::read(&self.spill)).chain(overflow);
        let mut sums = BTreeMap::<_, Volume>::new();
        for Counted { tuple, packets, octets, .. } in all {
            let sum = sums.entry(tuple).or_default();
            sum.0 += packets;
            sum.1 += octets;
        }
        sums
    }
}

impl Table for Memory {
    fn group(&mut self, position: u32) -> Option<&mut Group> {
        let mask = self.groups.len() - 1;
        self.groups.get_mut((position >> GROUP_SHIFT) as usize & mask)
    }

    fn spill_half(&mut self) -> Option<&mut Half> {
        let half = self.spill(false)?;
        Some(&mut self.spill[half / 2][half % 2])
    }

    fn spill_line(&mut self) -> Option<&mut [Half; 2]> {
        let half = self.spill(true)?;
        assert_eq!(half % 2, 0);
        Some(&mut self.spill[half / 2])
    }

    fn overflow(&mut self, place: Place, image: &Image) -> Option<()> {
        self.overflow.push((place, *image));
        Some(())
    }
}

fn counted(image: &Image) -> Counted {
    let [a, b, c, d, e, f, g, h] = *image;
    if is_wide(image) {
        Wide::counted(&Line([Half([a, b, c, d]), Half([e, f, g, h])]))
    } else {
        Narrow::counted(&Half([a, b, c, d]))
    }
}

const ONE: Count = Count { octets: 100, control_bits: 0x002, first: 7, last: 7 };

fn narrow(flow: u64) -> Image {
    let [a, b, c, d] = Narrow::ipv4(&Tuple::new([flow, 0, 0, 0], (1, 2), Tags::NONE, 6, 0x2e), &ONE);
    [a, b, c, d, 0, 0, 0, 0]
}

fn wide(flow: u64) -> Image {
    Wide::of(&Tuple::new([flow, 2, 3, 4], (1, 2), Tags::NONE.with_ipv6(), 6, 0x2e), &ONE)
}

/// A position in group 0 of `groups` whose second choice is group 1.
fn position(half: u32) -> u32 {
    (0..1 << 20)
        .map(|high| half << HALF_SHIFT | high << (GROUP_SHIFT + 1))
        .find(|position| hash::second(*position) >> GROUP_SHIFT & 1 == 1)
        .expect("every other one is")
}

#[test]
fn a_flow_goes_from_its_line_to_its_groups_to_the_log_and_to_a_residual_counter() {
    type Make = fn(u64) -> Image;
    let kinds: [(Make, usize, u64, usize); 2] = [(narrow, NARROW_HALVES, 1, 2), (wide, WIDE_LINES, 2, 1)];
    for (image, tries, halves, in_line) in kinds {
        let mut memory = Memory::new(2, 8);
        let place = Place::new(position(0), 3);
        for flow in 0..2 * tries as u64 {
            let is_first = flow < in_line as u64;
            assert_eq!(memory.in_first_line(place, &image(flow)), is_first);
            if !is_first {
                memory.displaced(place, &image(flow)).expect("is complete");
            }
            let in_first_group = Memory::read(memory.groups[0].0.as_chunks().0).len();
            assert_eq!(in_first_group, tries.min(flow as usize + 1), "the first group comes first");
        }
        assert_eq!((memory.in_groups().len(), memory.spilled), (2 * tries, 0));
        // Both groups are full of others for this flow: the log takes each packet apart.
        for packet in 1..=8 / halves {
            memory.account(place, &image(99)).expect("is complete");
            assert_eq!(memory.spilled, packet * halves);
            assert_eq!(memory.overflow, []);
        }
        assert_eq!(Memory::read(&memory.spill), vec![counted(&image(99)); 8 / halves as usize]);
        memory.account(place, &image(99)).expect("is complete");
        let mut displaced = image(99);
        group::displace(&mut displaced);
        assert_eq!(memory.overflow, [(place, displaced)]);
        // Those that were there first still count.
        for flow in 0..2 * tries as u64 {
            memory.account(place, &image(flow)).expect("is complete");
        }
        assert_eq!((memory.overflow.len(), memory.spilled), (1, 8));
        assert!(memory.in_groups().iter().all(|counted| (counted.packets, counted.octets) == (2, 200)));
    }
}

#[test]
fn halves_and_lines_share_a_log() {
    assert_eq!(spill_place(0, false, 8), Some((0, 1)));
    assert_eq!(spill_place(1, true, 8), Some((2, 4)), "a line begins at an even half");
    assert_eq!(spill_place(4, true, 8), Some((4, 6)));
    assert_eq!(spill_place(6, true, 8), Some((6, 8)));
    assert_eq!(spill_place(7, true, 8), None, "half a line is left");
    assert_eq!(spill_place(7, false, 8), Some((7, 8)), "which a half still fits in");
    for spilled in 8..12 {
        assert_eq!((spill_place(spilled, false, 8), spill_place(spilled, true, 8)), (None, None));
    }
    // Every mixture: no two overlap, and what was taken is below the count.
    for kinds in 0..1_u32 << 10 {
        let (mut spilled, mut taken) = (0, [false; 9]);
        for step in 0..10 {
            let is_line = kinds >> step & 1 == 1;
            let Some((start, next)) = spill_place(spilled, is_line, 9) else { continue };
            let halves = start as usize..next as usize;
            assert_eq!(halves.len(), if is_line { 2 } else { 1 });
            assert!(!is_line || start % 2 == 0);
            for half in halves {
                assert!(!std::mem::replace(&mut taken[half], true));
            }
            spilled = next;
        }
        assert!(taken[spilled as usize..].iter().all(|taken| !taken));
    }
}

/// A number that looks random, the same in every run.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Packets of both kinds in bursts, as the kernel accounts for them: packets of one flow in a row are one image, then first
/// lines, then what these displaced. And one by one.
#[test]
fn every_packet_is_in_one_place_whatever_is_full() {
    const PACKETS: u64 = 4000;
    let mut displaced_packets = 0;
    let mut overflowed = 0;
    let mut joined = 0;
    for (groups, spill, flows) in
        [(1, 8, 8), (1, 8, 200), (2, 8, 40), (4, 8, 40), (16, 32, 300), (1024, 2048, 2000)]
    {
        let mut by_one = Memory::new(groups, spill);
        let mut bursts = Memory::new(groups, spill);
        let packet = |number: u64| {
            let flow = mixed(number / 3) % flows;
            let image = if flow.is_multiple_of(3) { wide(flow) } else { narrow(flow) };
            (Place::new(mixed(flow) as u32, 0), image)
        };
        let mut expected = BTreeMap::<_, Volume>::new();
        let mut ring: Vec<(Place, Image)> = Vec::new();
        for number in 0..PACKETS {
            let (place, image) = packet(number);
            let sum = expected.entry(counted(&image).tuple).or_default();
            sum.0 += 1;
            sum.1 += 100;
            by_one.account(place, &image).expect("is complete");
            let is_joined = ring.last_mut().is_some_and(|(_, latest)| join(latest, &image));
            joined += usize::from(is_joined);
            if !is_joined {
                ring.push((place, image));
            }
            if ring.len() < BURST && number != PACKETS - 1 {
                continue;
            }
            let (_, waiting): (Vec<_>, Vec<_>) =
                ring.drain(..).partition(|(place, image)| bursts.in_first_line(*place, image));
            displaced_packets += waiting.len();
            for (place, image) in waiting {
                bursts.displaced(place, &image).expect("is complete");
            }
        }
        for memory in [&by_one, &bursts] {
            assert_eq!(memory.sums(), expected, "{groups} groups, {flows} flows");
            assert_eq!(memory.taken, memory.in_groups().len() as u64);
            overflowed += memory.overflow.len();
        }
        // A flow that overflows has no slot free to it.
        for (place, image) in &bursts.overflow {
            let first = place.position();
            for position in [first, hash::second(first)] {
                let mut group = bursts.groups[(position >> GROUP_SHIFT) as usize & (groups - 1)];
                assert!(!group::count(&mut group, position, image, 0, &mut 0));
            }
        }
    }
    assert!(displaced_packets > 500 && overflowed > 500, "{displaced_packets} {overflowed}");
    assert!(joined > 5000, "{joined}");
}

/// Makes a packet one with the image of the packets before it, if it is of the same flow.
fn join(latest: &mut Image, packet: &Image) -> bool {
    if is_wide(packet) {
        group::add_wide(latest, packet, 0)
    } else {
        let ([a, b, c, d, rest @ ..], [e, f, g, h, ..]) = (*latest, *packet);
        let mut slot = [a, b, c, d];
        let is_joined = group::add_narrow(&mut slot, &[e, f, g, h], 0);
        let [a, b, c, d] = slot;
        let [i, j, k, l] = rest;
        *latest = [a, b, c, d, i, j, k, l];
        is_joined
    }
}

#[test]
fn a_place_names_the_line_of_the_hash_in_every_table() {
    for groups in [1, 2, 64, 1024] {
        let mut memory = Memory::new(groups, 8);
        for number in 0..2000 {
            let position = mixed(number) as u32;
            let place = Place::new(position, number as u32 % 33);
            assert_eq!((place.position(), place.interface()), (position, number as u32 % 33));
            // The look-up compares with what the hash says.
            let _ = memory.in_first_line(place, &narrow(number));
        }
    }
}

#[test]
fn an_image_of_many_packets_overflows_with_all_of_them() {
    for (image, is_ipv6) in [(narrow(5), false), (wide(5), true)] {
        let mut image = image;
        let one = image;
        (1..1000).for_each(|_| assert!(join(&mut image, &one)));
        let volume = group::Volume { protocol: 6, is_ipv6, packets: 1000, octets: 100_000 };
        assert_eq!(group::volume(&image), volume);
        assert_eq!(counted(&image).packets, 1000);
    }
}
