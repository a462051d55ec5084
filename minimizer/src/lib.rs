//! The agent: loads the kernel program, drains what it counted, exports records, keeps the ledger.
//!
//! Each folder is a room. A room imports only rooms that stand above it in this list; `tests/tests/layers.rs` checks it.

#![deny(unsafe_code)]
// `print!` and `eprint!` wait for the reader, and panic when it is gone: use `writeln!` or `tracing`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod support;

pub mod policy;

pub mod kernel;

pub mod interfaces;

pub mod records;

pub mod delivery;

pub mod sinks;

pub mod agent;

pub mod serve;

pub mod commands;
