//! Burst accounting: the packets that a CPU has set aside are put into slots together, so that their cache misses overlap.
//!
//! The kernel program accounts for a whole ring, the agent for what a quiet generation has left in one. Both use
//! [`displaced`] for a packet whose first line is full.

use minimizer_common::generation::{Group, Place};
use minimizer_common::slot::Half;

use crate::table::group::{self, Image};
use crate::table::hash;

/// The table of one CPU in one generation.
pub trait Table {
    /// The group of a position.
    fn group(&mut self, position: u32) -> Option<&mut Group>;
    /// The next half of the spill log; `None` if the log is full.
    fn spill_half(&mut self) -> Option<&mut Half>;
    /// The next line of the spill log; `None` if the log is full.
    fn spill_line(&mut self) -> Option<&mut [Half; 2]>;
    /// Makes the packet one of a residual counter, and its outcome `overflow`.
    fn overflow(&mut self, place: Place, image: &Image) -> Option<()>;
}

/// Puts packets of one flow into a slot, the spill log or a residual counter. `None` only if a map is empty, which never
/// happens.
#[inline(always)]
pub fn account(table: &mut impl Table, place: Place, image: &Image, taken: &mut u64) -> Option<()> {
    let position = place.position();
    let group = table.group(position)?;
    if group::count(group, position, image, 0, taken) {
        Some(())
    } else {
        displaced(table, place, &mut { *image }, taken)
    }
}

/// Counts a packet whose first line is full: in another line of its group, in its second group, in the spill log, or else
/// in a residual counter.
#[inline(always)]
pub fn displaced(table: &mut impl Table, place: Place, image: &mut Image, taken: &mut u64) -> Option<()> {
    let position = place.position();
    if group::count(table.group(position)?, position, image, group::first_line_steps(image), taken) {
        return Some(());
    }
    group::displace(image);
    let second = hash::second(position);
    if group::count(table.group(second)?, second, image, 0, taken) {
        return Some(());
    }
    let [a, b, c, d, e, f, g, h] = *image;
    if group::is_wide(image) {
        if let Some(line) = table.spill_line() {
            *line = [Half([a, b, c, d]), Half([e, f, g, h])];
            return Some(());
        }
    } else if let Some(half) = table.spill_half() {
        *half = Half([a, b, c, d]);
        return Some(());
    }
    table.overflow(place, image)
}

/// Where the next halves of a spill log begin, and how many of its `room` are then used; `None` if they do not fit. A line
/// begins at an even half.
#[inline(always)]
#[must_use]
pub const fn spill_place(spilled: u64, is_line: bool, room: u32) -> Option<(u32, u64)> {
    let (start, end) = if is_line {
        let start = (spilled as u32 + 1) & !1;
        (start, start + 2)
    } else {
        (spilled as u32, spilled as u32 + 1)
    };
    if end <= room { Some((start, end as u64)) } else { None }
}

#[cfg(test)]
mod tests;
