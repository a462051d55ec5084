//! The command line: its options, agent.toml, and one module for each verb.

pub mod cli;
pub mod cli_docs;
pub mod config;
pub mod demo;
pub mod doctor;
#[cfg(test)]
mod documented;
pub mod live;
pub mod options;
pub mod pcap;
pub mod policy;
pub mod policy_choice;
pub mod reload;
pub mod replay;
pub mod run;
pub mod signals;
pub mod text;
pub mod top;
