//! Where a tuple is counted.

pub mod group;
pub mod hash;
