//! Whether a packet may be collected, and what is left of it.

pub mod hosts;
pub mod judge;
pub mod lists;
pub mod minimize;
pub mod prefixes;
pub mod siphash;
