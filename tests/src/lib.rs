//! What integration tests and benches share: packets, networks, the agent under test.

pub mod expected;
pub mod network;
pub mod packets;
pub mod privilege;
