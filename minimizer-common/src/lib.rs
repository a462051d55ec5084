//! Everything the kernel program and the agent must agree on, and nothing else.
//!
//! [`outcome`] lists how a packet can end. [`tuple`] is the key and the slot of the flow table.
//! [`generation`] is the memory of one generation. [`settings`] is what the agent tells the program. [`plan`]
//! and [`tables`] are the policy in the form that the program applies. [`protocol`] names the protocols of IP, and
//! [`tunnel`] the tunnels that the program can look into. A change to any layout here bumps [`LAYOUT_VERSION`].
#![no_std]
// What zerocopy's derives expand to is not of this crate: the compiler does not apply the lint to it.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "kernel programs have no fallible conversions; every narrowing is masked or bounded by an assertion"
)]

pub mod generation;
pub mod named;
pub mod outcome;
pub mod permutation;
pub mod plan;
pub mod protocol;
pub mod settings;
pub mod slot;
pub mod tables;
pub mod tunnel;
pub mod tuple;

/// Version of every layout in this crate, as shown by `minimizer status` and `/metrics`.
pub const LAYOUT_VERSION: u32 = 9;
