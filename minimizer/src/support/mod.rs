//! What the standard library and the kernel lack for the agent: system calls, clock, CPUs, log, secrets, TOML with positions.

pub mod clock;
pub mod cpus;
pub mod log;
pub mod privilege;
pub mod secret_file;
pub mod sys;
pub mod toml;
pub mod units;
