//! The kernel program: its constants, its maps, and how it is loaded and attached.

pub mod attach;
mod control;
pub mod cost;
pub mod error;
pub mod features;
pub mod generations;
mod interface_positions;
#[cfg(feature = "kernel-log")]
mod log;
pub mod permutation;
pub mod prepared;
pub mod program;
pub mod table_size;
pub mod verified;
pub mod wall_clock;
