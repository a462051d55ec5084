//! What integration tests and benches share: packets, networks, the agent under test.

pub mod authority;
pub mod bare;
pub mod bench;
pub mod browser;
pub mod captures;
pub mod clocks;
pub mod command;
pub mod expected;
pub mod foreign;
pub mod fuzz;
pub mod guest;
pub mod ipfix;
pub mod kafka;
pub mod leftovers;
pub mod listener;
pub mod live_frames;
pub mod minimum;
pub mod network;
pub mod packets;
pub mod policies;
pub mod privilege;
pub mod prometheus;
pub mod reference;
pub mod tshark;
pub mod veth;
