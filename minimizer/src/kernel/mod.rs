//! The kernel program: its constants, its maps, its load and its links.

mod control_page;
mod cost;
pub mod features;
pub mod generations;
mod interface_positions;
#[cfg(feature = "kernel-log")]
mod log;
mod prepared;
pub mod program;
pub mod table_size;
pub mod verified;
