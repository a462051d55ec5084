//! The kinds of sinks, and how agent.toml configures them.

pub mod config;
pub mod files;
mod folder;
pub mod ipfix;
mod json_lines;
pub mod kafka;
pub mod stdout;
