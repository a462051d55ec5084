//! The policy in force. So far there is one: every field exact but time, no scope gate, and the tunnels
//! that are listed beside it.

use minimizer_common::tunnel::{Tunnel, Tunnels};
use thiserror::Error;

/// What the policy `full-record` leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Tunnels whose inner packets are counted.
    pub tunnels: Tunnels,
}

/// A policy that cannot be used.
#[derive(Debug, Error)]
#[error("there is no policy {0}; the built-in policies are: full-record")]
pub struct PolicyError(String);

impl Policy {
    /// The built-in policy of that name, with a list of tunnels.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str, tunnels: &[Tunnel]) -> Result<Self, PolicyError> {
        match name {
            "full-record" => {
                let tunnels = tunnels.iter().fold(Tunnels::NONE, |set, tunnel| set.with(*tunnel));
                Ok(Self { tunnels })
            }
            _ => Err(PolicyError(name.to_owned())),
        }
    }
}
