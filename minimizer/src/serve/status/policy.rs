//! The policy in force, in the report.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::serve::snapshot::{PolicyInForce, Reloads};

/// The policy in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PolicyReport {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// Names of its recipients.
    pub recipients: Vec<String>,
    /// The identifier of its mandate; absent when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// When the mandate begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
    /// When the mandate ends. The agent ends then too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// Why nothing is attached although the mandate has not ended: the clock of the host is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Prefixes of its scope.
    #[serde(default)]
    pub prefixes: usize,
    /// Indicators, expired ones included.
    #[serde(default)]
    pub indicators: usize,
    /// How often a reload put another policy in force.
    pub reloads: u64,
    /// How often a reload failed. The policy that was in force stays then.
    pub reload_failures: u64,
    /// Why the latest reload failed; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_error: Option<String>,
}

impl PolicyReport {
    pub(super) fn new(policy: &PolicyInForce, reloads: &Reloads, paused: Option<&str>) -> Self {
        let mandate = policy.mandate.as_ref();
        Self {
            name: policy.name.clone(),
            sha256: policy.digest.clone(),
            recipients: policy.recipients.clone(),
            mandate: mandate.map(|mandate| mandate.id.clone()),
            valid_from: mandate.map(|mandate| mandate.valid_from),
            valid_until: mandate.map(|mandate| mandate.valid_until),
            paused: paused.map(str::to_owned),
            prefixes: policy.prefixes,
            indicators: policy.indicators,
            reloads: reloads.succeeded,
            reload_failures: reloads.failed,
            reload_error: reloads.error.clone(),
        }
    }

    /// Name, digest, recipients and mandate in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{}, sha256 {}, for {}", self.name, self.sha256, self.recipients.join(", "));
        if let (Some(mandate), Some(until)) = (&self.mandate, self.valid_until) {
            line += &format!(", mandate {mandate} until {until}");
        }
        line
    }
}
