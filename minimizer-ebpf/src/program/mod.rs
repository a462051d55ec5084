//! What only the kernel has: maps, constants of the loaded program, its clock, and the accounting of a frame.

pub mod accounting;
mod clock;
mod constants;
mod frame;
mod memory;
mod outer;
mod short_way;
mod site;
