//! What only the kernel has: maps, constants of the loaded program, its clock, and the way of one frame through all of it.

pub mod accounting;
mod clock;
mod constants;
mod memory;
