//! The agent: loads the kernel program, drains what it counted, exports records, keeps the ledger.

pub mod agent;
pub mod cli;
pub mod cli_docs;
pub mod clock;
pub mod control;
mod cpus;
pub mod demo;
pub mod doctor;
pub mod drain;
mod events;
pub mod generation;
pub mod http;
pub mod kernel;
#[cfg(feature = "kernel-log")]
mod kernel_log;
pub mod ledger;
pub mod live;
pub mod metrics;
pub mod netlink;
pub mod pcap;
pub mod policy;
mod positions;
pub mod privilege;
pub mod program;
pub mod queue;
pub mod record;
pub mod replay;
pub mod report;
pub mod run;
pub mod selection;
pub mod size;
pub mod status;
pub mod sys;
pub mod tap;
pub mod verified;
pub mod watch;
