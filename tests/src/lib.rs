//! What integration tests and benches share: packets, networks, the agent under test.

pub mod authority;
pub mod bare;
pub mod browser;
pub mod captures;
pub mod command;
pub mod drained;
pub mod expected;
pub mod foreign;
pub mod fuzz;
pub mod guest;
pub mod imports;
pub mod ipfix;
pub mod kafka;
pub mod leftovers;
pub mod listener;
pub mod live_frames;
pub mod minimum;
pub mod network;
pub mod packets;
pub mod policies;
pub mod prometheus;
pub mod records;
pub mod reference;
pub mod tools;
pub mod tshark;
pub mod veth;
