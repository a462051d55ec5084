//! What the standard library and the kernel lack for the agent: system calls, clock, CPUs, log, secrets, TLS, back-off, TOML
//! with positions.

pub mod backoff;
pub mod clock;
pub mod cpus;
pub mod log;
pub mod privilege;
pub mod secret_file;
pub mod sys;
pub mod tls;
pub mod toml;
pub mod traces;
pub mod units;
