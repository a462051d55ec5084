//! The policies inside the agent, and how it reads any other policy.

use std::io;
use std::path::Path;

use minimizer_common::tunnel::{Tunnel, Tunnels};
use thiserror::Error;

use super::check::{check, check_beyond};
use crate::policy::model::Policy;
use crate::support::plain_file;
use crate::support::text::{self, TextError};
use crate::support::toml::Findings;

/// Why a policy cannot be loaded.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The name is neither a file nor a built-in policy.
    #[error("there is no policy `{0}`: it is neither a file nor built in; built in are {names}", names = BUILT_IN.map(|policy| policy.name).join(" and "))]
    Unknown(String),
    /// The file cannot be read.
    #[error("cannot read the policy {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file is no text.
    #[error("cannot read the policy {path}: {source}")]
    Text {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: TextError,
    },
    /// The text does not fit the model, or demands something that the agent cannot keep.
    #[error("the policy is refused: {0}")]
    Refused(Findings),
}

/// A policy inside the agent.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name, as `--policy` takes it.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// Every policy inside the agent.
pub const BUILT_IN: [BuiltIn; 2] = [
    BuiltIn { name: "carrier-default", text: include_str!("../../../policies/carrier-default.toml") },
    BuiltIn { name: "full-record", text: include_str!("../../../policies/full-record.toml") },
];

impl Policy {
    /// Loads the built-in policy of that name, or the policy in that file, and adds these tunnels to its own.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn load(source: &str, tunnels: &[Tunnel]) -> Result<Self, PolicyError> {
        let mut policy = match BUILT_IN.iter().find(|policy| policy.name == source) {
            Some(policy) => {
                let name = format!("built-in policy {source}");
                check(policy.text, name, Path::new("")).map_err(PolicyError::Refused)?
            }
            None => Self::decode(read(source)?, source)?,
        };
        policy.tunnels = tunnels.iter().fold(policy.tunnels, |all: Tunnels, tunnel| all.with(*tunnel));
        Ok(policy)
    }

    /// Loads a policy to compare another one with it: one of an earlier time may permit more than is allowed now, which is
    /// returned too.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn load_earlier(source: &str) -> Result<(Self, Option<Findings>), PolicyError> {
        if BUILT_IN.iter().any(|policy| policy.name == source) {
            return Ok((Self::load(source, &[])?, None));
        }
        let text = text::decoded(read(source)?)
            .map_err(|error| PolicyError::Text { path: source.to_owned(), source: error })?;
        let folder = Path::new(source).parent().unwrap_or(Path::new(""));
        let (policy, beyond) =
            check_beyond(&text, source.to_owned(), folder).map_err(PolicyError::Refused)?;
        Ok((policy, Some(beyond).filter(|beyond| !beyond.0.is_empty())))
    }

    /// The policy in the octets of a file.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn decode(octets: Vec<u8>, source: &str) -> Result<Self, PolicyError> {
        let text = text::decoded(octets)
            .map_err(|error| PolicyError::Text { path: source.to_owned(), source: error })?;
        Self::parse(&text, Path::new(source))
    }

    /// Reads the policy in this text. The files that it names are relative to the folder of `path`.
    ///
    /// # Errors
    /// [`PolicyError::Refused`] with everything that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PolicyError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        check(text, path.display().to_string(), folder).map_err(PolicyError::Refused)
    }
}

/// The octets of a policy file.
pub(super) fn read(source: &str) -> Result<Vec<u8>, PolicyError> {
    plain_file::read(Path::new(source)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PolicyError::Unknown(source.to_owned()),
        _ => PolicyError::Read { path: source.to_owned(), source: error },
    })
}
