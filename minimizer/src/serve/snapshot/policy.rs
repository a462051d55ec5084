//! The policy in force, and how it came into force.

use std::sync::Arc;

use crate::policy::explain::Explanation;
use crate::policy::mandate::Mandate;
use crate::policy::model::Policy;

/// The policy in force: what identifies it, and what people ask about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInForce {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, in hexadecimal.
    pub digest: String,
    /// The names of its recipients.
    pub recipients: Vec<String>,
    /// On whose authority, and for how long; `None` when it does not end by itself.
    pub mandate: Option<Mandate>,
    /// Prefixes of its scope.
    pub prefixes: usize,
    /// Indicators of its selectors.
    pub indicators: usize,
    /// Whether it collects the interface and the protocol of packets.
    pub has_protocols: bool,
    /// The policy in plain words.
    pub explanation: Arc<Explanation>,
}

impl PolicyInForce {
    /// What is told of a policy, while it has its prefixes and indicators.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            digest: policy.digest.clone(),
            recipients: policy.recipients.iter().map(|recipient| recipient.name.clone()).collect(),
            mandate: policy.mandate.clone(),
            prefixes: policy.scope.as_ref().map_or(0, |scope| scope.prefixes.len()),
            indicators: policy.selectors.as_ref().map_or(0, Vec::len),
            has_protocols: policy.collected().has_protocols(),
            explanation: Arc::new(policy.explain()),
        }
    }
}

/// How often the agent was told to take another policy, and whether it could.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Reloads that put another policy in force.
    pub succeeded: u64,
    /// Reloads that failed. The policy that was in force stays then.
    pub failed: u64,
    /// Why the latest reload failed; `None` when it did not.
    pub error: Option<String>,
}
