//! The agent: loads the kernel program, drains what it counted, exports records, keeps the ledger.

pub mod clock;
pub mod control;
pub mod drain;
pub mod generation;
pub mod interface;
pub mod ledger;
pub mod pcap;
pub mod program;
pub mod queue;
pub mod record;
pub mod sys;
