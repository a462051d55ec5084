//! The policy in force. So far there is one: every field exact but time, no scope gate, no tunnels.

use thiserror::Error;

/// A policy that this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Every field exact but time, which is coarsened to 1 s.
    FullRecord,
}

/// A policy that cannot be used.
#[derive(Debug, Error)]
#[error("there is no policy {0}; the built-in policies are: full-record")]
pub struct PolicyError(String);

impl Policy {
    /// The built-in policy of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, PolicyError> {
        match name {
            "full-record" => Ok(Self::FullRecord),
            _ => Err(PolicyError(name.to_owned())),
        }
    }
}
