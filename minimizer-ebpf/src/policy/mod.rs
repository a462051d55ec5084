//! Whether the program may collect a packet, and what it keeps of it.

pub mod hosts;
pub mod judge;
pub mod lists;
pub mod minimize;
pub mod nodes;
pub mod outer;
pub mod permutation;
pub mod prefixes;
pub mod short;
pub mod siphash;
