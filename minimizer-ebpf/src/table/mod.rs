//! The flow table: where a tuple is counted.

pub mod burst;
pub mod first_line;
pub mod group;
pub mod hash;
