//! The kinds of sinks, and how agent.toml configures them.

pub mod config;
pub mod files;
pub mod ipfix;
pub(crate) mod json_lines;
pub mod kafka;
pub mod stdout;
