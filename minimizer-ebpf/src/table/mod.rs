//! The flow table: where a tuple is counted.

pub mod group;
pub mod hash;
