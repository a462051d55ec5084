//! Policies that are compiled in, and where a policy comes from.

use std::fs;
use std::io;
use std::path::Path;

use minimizer_common::tunnel::{Tunnel, Tunnels};
use thiserror::Error;

use super::check::check;
use crate::policy::model::Policy;
use crate::support::toml::Findings;

/// Why there is no policy to act on.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Neither a file nor built in.
    #[error("there is no policy `{0}`: it is neither a file nor built in; built in are {names}", names = BUILT_IN.map(|policy| policy.name).join(" and "))]
    Unknown(String),
    /// The file cannot be read.
    #[error("cannot read the policy {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It does not fit the model, or says what it could not keep.
    #[error("the policy is refused: {0}")]
    Refused(Findings),
}

/// A policy that is compiled in.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// What `--policy` takes.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// All policies that are compiled in.
pub const BUILT_IN: [BuiltIn; 2] = [
    BuiltIn { name: "carrier-default", text: include_str!("../../../policies/carrier-default.toml") },
    BuiltIn { name: "full-record", text: include_str!("../../../policies/full-record.toml") },
];

impl Policy {
    /// The built-in policy of that name, or the one in that file, with these tunnels beside its own.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn load(source: &str, tunnels: &[Tunnel]) -> Result<Self, PolicyError> {
        let mut policy = match BUILT_IN.iter().find(|policy| policy.name == source) {
            Some(policy) => {
                let name = format!("built-in policy {source}");
                check(policy.text, name, Path::new("")).map_err(PolicyError::Refused)?
            }
            None => Self::parse(&read(source)?, Path::new(source))?,
        };
        policy.tunnels = tunnels.iter().fold(policy.tunnels, |all: Tunnels, tunnel| all.with(*tunnel));
        Ok(policy)
    }

    /// The policy of this text; the files that it names lie relative to the folder of `path`.
    ///
    /// # Errors
    /// [`PolicyError::Refused`] with all that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PolicyError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        check(text, path.display().to_string(), folder).map_err(PolicyError::Refused)
    }
}

fn read(source: &str) -> Result<String, PolicyError> {
    fs::read_to_string(source).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PolicyError::Unknown(source.to_owned()),
        _ => PolicyError::Read { path: source.to_owned(), source: error },
    })
}
