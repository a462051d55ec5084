//! What the standard library and the kernel lack for the agent: system calls, clock, CPUs, log, panics, work that may
//! hang, secrets, TLS, back-off, TOML with positions, names of any octets.

pub mod backoff;
pub mod clock;
pub mod cpus;
pub mod digest;
pub mod file_mode;
pub mod limited;
pub mod log;
pub mod panics;
pub mod plain_file;
pub mod printable;
pub mod privilege;
pub mod refusal;
pub mod scoped_address;
pub mod secret_file;
pub mod state_file;
pub mod sys;
pub mod text;
pub mod tls;
pub mod toml;
pub mod traces;
pub mod units;
