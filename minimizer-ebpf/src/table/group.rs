//! One group of the flow table: it finds the slot of a packet's flow, or a free one, and counts the packet there.
//!
//! A packet comes as the slot that it would fill alone; see [`minimizer_common::slot`]. Its position names a line of the
//! group. Probing goes on from there, line by line, and stops at the first slot of the flow or the first free one, because
//! nobody frees a slot while the program writes the generation.

use minimizer_common::generation::{GROUP_HALVES, Group, HALF_SHIFT};
use minimizer_common::slot::{HALF_WORDS, Half, Narrow, WIDE, Wide};

use crate::whole;

/// Halves in which a narrow slot can lie, from the line of the position on: half of the group. A full table is searched as far as that.
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

/// What the packets of an image add to a residual counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Their protocol.
    pub protocol: u8,
    /// Whether they are stored as IPv6.
    pub is_ipv6: bool,
    /// Packets.
    pub packets: u64,
    /// Their IP octets.
    pub octets: u64,
}

/// What the packets of an image add to a residual counter.
#[inline(always)]
#[must_use]
pub const fn volume(image: &Image) -> Volume {
    if is_wide(image) {
        Volume {
            protocol: Wide::protocol(image),
            is_ipv6: Wide::is_ipv6(image),
            packets: image[6] >> Wide::PACKETS_SHIFT,
            octets: (image[2] & Wide::OCTETS) >> Wide::OCTETS_SHIFT,
        }
    } else {
        Volume {
            protocol: Narrow::protocol(image),
            is_ipv6: Narrow::is_ipv6(image),
            packets: (image[3] & Narrow::PACKETS) >> Narrow::PACKETS_SHIFT,
            octets: image[2] >> Narrow::OCTETS_SHIFT,
        }
    }
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
    (((position >> HALF_SHIFT) as usize + (step & !1)) % GROUP_HALVES) ^ (step & 1)
}

/// The line that a wide slot takes in the `step`th try. The first is the one that the position names.
#[inline(always)]
#[must_use]
pub const fn wide_line(position: u32, step: usize) -> usize {
    ((position >> HALF_SHIFT) as usize / 2 + step) % WIDE_LINES
}

/// Counts packets in one half and returns `true` if the half is free or the flow's. `taken` counts slots that were free.
#[inline(always)]
pub fn count_narrow(half: &mut Half, packets: &[u64; HALF_WORDS], taken: &mut u64) -> bool {
    if add_narrow(&mut half.0, packets, 0) {
        return true;
    }
    let is_free = half.is_free();
    if is_free {
        half.0 = *packets;
        *taken += 1;
    }
    is_free
}

/// The words of a narrow slot.
#[inline(always)]
#[must_use]
pub const fn narrow_words(image: &Image) -> [u64; HALF_WORDS] {
    let [addresses, transport, marks, times, ..] = *image;
    [addresses, transport, marks, times]
}

/// Adds packets to a narrow slot if it is the flow's and neither is closed: the sum of two closed ones would not fit.
/// `differs` is not 0 if it is another flow's for another reason.
#[inline(always)]
pub fn add_narrow(slot: &mut [u64; HALF_WORDS], packets: &[u64; HALF_WORDS], differs: u64) -> bool {
    let [addresses, transport, marks, times] = *packets;
    let differs = differs
        | (slot[0] ^ addresses)
        | (slot[1] ^ transport)
        | (slot[2] ^ marks) & Narrow::KEY
        // Both are closed. The compiler knows that one packet never is.
        | slot[2] & marks & Narrow::CLOSED;
    if differs != 0 {
        return false;
    }
    slot[2] = (slot[2] | marks & Narrow::CONTROL_BITS) + (marks & Narrow::OCTETS);
    // Most packets of a flow come in the time unit of the one before, so that the processor predicts this.
    if last_narrow(slot[3]) < last_narrow(times) {
        slot[3] = whole(slot[3] & !Narrow::LAST | times & Narrow::LAST);
    }
    slot[3] += times & Narrow::PACKETS;
    true
}

/// The last time of a narrow slot. Packets that were set aside come after those that were counted at once, and may be earlier.
#[inline(always)]
const fn last_narrow(times: u64) -> u32 {
    times as u32 >> Narrow::TIME_BITS
}

/// Counts packets in one line and returns `true` if the line is free or the flow's.
#[inline(always)]
pub fn count_wide(line: &mut [Half; 2], image: &Image, taken: &mut u64) -> bool {
    // SAFETY: both are eight words.
    let slot = unsafe { &mut *(&raw mut *line).cast::<Image>() };
    if add_wide(slot, image, 0) {
        return true;
    }
    let is_free = line[0].is_free() && line[1].is_free();
    if is_free {
        let [a, b, c, d, e, f, g, h] = *image;
        *line = [Half([a, b, c, d]), Half([e, f, g, h])];
        *taken += 1;
    }
    is_free
}

/// Adds packets to a wide slot; see [`add_narrow`].
#[inline(always)]
pub fn add_wide(slot: &mut Image, packets: &Image, differs: u64) -> bool {
    let [source, source_end, volume, times, destination, destination_end, counters, transport] = *packets;
    let differs = differs
        | (slot[0] ^ source)
        | (slot[1] ^ source_end)
        | (slot[2] ^ volume) & (Wide::KEY | Wide::SELECTOR)
        | slot[2] & volume & Wide::OCTETS_CLOSED
        | (slot[4] ^ destination)
        | (slot[5] ^ destination_end)
        | (slot[6] ^ counters) & Wide::KIND
        | slot[6] & counters & Wide::PACKETS_CLOSED
        | (slot[7] ^ transport);
    if differs != 0 {
        return false;
    }
    slot[2] += volume & Wide::OCTETS;
    if slot[3] & Wide::LAST < times & Wide::LAST {
        slot[3] = whole(slot[3] & !Wide::LAST | times & Wide::LAST);
    }
    slot[6] = (slot[6] | counters & Wide::CONTROL_BITS) + (counters & Wide::PACKETS);
    true
}

/// Counts a packet in the group, in the tries from `first` on; `false` if all of these slots are other flows'.
///
/// The loops are no `Iterator::any`: the compiler would make a function of it that advances a range on its caller's stack.
#[inline(always)]
pub fn count(group: &mut Group, position: u32, image: &Image, first: usize, taken: &mut u64) -> bool {
    let mut step = first;
    if is_wide(image) {
        while step < WIDE_LINES {
            if count_wide(line(group, wide_line(position, step)), image, taken) {
                return true;
            }
            step += 1;
        }
    } else {
        let packets = narrow_words(image);
        while step < NARROW_HALVES {
            if count_narrow(&mut group.0[narrow_half(position, step)], &packets, taken) {
                return true;
            }
            step += 1;
        }
    }
    false
}

/// A line of the group.
#[inline(always)]
pub const fn line(group: &mut Group, line: usize) -> &mut [Half; 2] {
    let start = line % WIDE_LINES * 2;
    // SAFETY: the line lies within the group, and the group is borrowed exclusively.
    unsafe { &mut *(&raw mut group.0[start]).cast::<[Half; 2]>() }
}

#[cfg(test)]
mod tests;
