//! One group of the flow table: it finds the slot of a packet's flow, or a free one, and counts the packet there.
//!
//! A packet comes as the slot that it would fill alone; see [`minimizer_common::slot`]. Its position names a line of the
//! group. Probing goes on from there, line by line, and stops at the first slot of the flow or the first free one, because
//! nobody frees a slot while the program writes the generation.

use minimizer_common::generation::{GROUP_HALVES, Group};
use minimizer_common::slot::{HALF_WORDS, Half, Narrow, WIDE, Wide};

/// Lines in which a narrow slot can lie, from the position on: half of the group. A full table is searched as far as that.
pub const NARROW_HALVES: usize = 8;
/// Lines in which a wide slot can lie: all of the group.
pub const WIDE_LINES: usize = GROUP_HALVES / 2;

/// The slot of one packet. A narrow one uses the first four words.
pub type Image = [u64; 2 * HALF_WORDS];

/// Whether the packet needs a wide slot.
#[inline(always)]
#[must_use]
pub const fn is_wide(image: &Image) -> bool {
    image[2] & WIDE != 0
}

/// Marks the packet as one whose first group is full. If it takes a slot now, the drain knows that the flow may have
/// others elsewhere.
#[inline(always)]
pub const fn displace(image: &mut Image) {
    const _: () = assert!(WIDE << 62 == Narrow::DISPLACED);
    // Without a branch, behind which the verifier would walk everything twice. A narrow slot has no word 6.
    image[3] |= (!image[2] & WIDE) << 62;
    image[6] |= Wide::DISPLACED;
}

/// The tries in the first line.
#[inline(always)]
#[must_use]
pub const fn first_line_steps(image: &Image) -> usize {
    if is_wide(image) { 1 } else { 2 }
}

/// The half that a narrow slot takes in the `step`th try. The first two are those of the line that the position names.
#[inline(always)]
#[must_use]
pub const fn narrow_half(position: u32, step: usize) -> usize {
    ((position >> 28) as usize + (step & !1)) % GROUP_HALVES ^ step & 1
}

/// The line that a wide slot takes in the `step`th try. The first is the one that the position names.
#[inline(always)]
#[must_use]
pub const fn wide_line(position: u32, step: usize) -> usize {
    ((position >> 29) as usize + step) % WIDE_LINES
}

/// Counts a packet in one half and returns `true` if the half is free or the flow's.
#[inline(always)]
pub const fn count_narrow(half: &mut Half, image: &Image) -> bool {
    let [addresses, transport, marks, times, ..] = *image;
    let slot = &mut half.0;
    if half_is_free(slot[2]) {
        slot[0] = addresses;
        slot[1] = transport;
        slot[2] = marks;
        slot[3] = times;
        return true;
    }
    if (slot[0] ^ addresses) | (slot[1] ^ transport) | (slot[2] ^ marks) & Narrow::KEY != 0 {
        return false;
    }
    slot[2] = (slot[2] | marks & Narrow::CONTROL_BITS) + (marks & Narrow::OCTETS);
    slot[3] = (slot[3] & !Narrow::LAST | times & Narrow::LAST) + Narrow::ONE_PACKET;
    true
}

/// Counts a packet in one line and returns `true` if the line is free or the flow's.
#[inline(always)]
pub const fn count_wide(line: &mut [Half; 2], image: &Image) -> bool {
    let [source, source_end, volume, times, destination, destination_end, counters, transport] = *image;
    let [Half(first), Half(second)] = line;
    if half_is_free(first[2]) && half_is_free(second[2]) {
        *first = [source, source_end, volume, times];
        *second = [destination, destination_end, counters, transport];
        return true;
    }
    let differs = (first[0] ^ source)
        | (first[1] ^ source_end)
        | (first[2] ^ volume) & (Wide::KEY | Wide::SELECTOR)
        | (second[0] ^ destination)
        | (second[1] ^ destination_end)
        | (second[2] ^ counters) & Wide::KIND
        | (second[3] ^ transport);
    if differs != 0 {
        return false;
    }
    first[2] += volume & Wide::OCTETS;
    first[3] = first[3] & !Wide::LAST | times & Wide::LAST;
    second[2] = (second[2] | counters & Wide::CONTROL_BITS) + Wide::ONE_PACKET;
    true
}

/// Counts a packet in the group, in the tries from `first` on; `false` if all of these slots are other flows'.
#[inline(always)]
pub fn count(group: &mut Group, position: u32, image: &Image, first: usize) -> bool {
    if is_wide(image) {
        (first..WIDE_LINES).any(|step| count_wide(line(group, wide_line(position, step)), image))
    } else {
        (first..NARROW_HALVES).any(|step| count_narrow(&mut group.0[narrow_half(position, step)], image))
    }
}

/// A line of the group.
#[inline(always)]
pub const fn line(group: &mut Group, line: usize) -> &mut [Half; 2] {
    let start = line % WIDE_LINES * 2;
    // SAFETY: the line lies within the group, and the group is borrowed exclusively.
    unsafe { &mut *(&raw mut group.0[start]).cast::<[Half; 2]>() }
}

const fn half_is_free(marks: u64) -> bool {
    marks & minimizer_common::slot::USED == 0
}
