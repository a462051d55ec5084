//! The kinds of sinks, and their configuration in agent.toml.

pub mod config;
pub mod files;
mod folder;
pub mod former;
pub mod ipfix;
pub(crate) mod json_lines;
pub mod kafka;
pub mod stdout;
