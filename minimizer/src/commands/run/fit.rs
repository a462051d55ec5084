//! Whether a policy fits the agent that is to enforce it: its drains, its sinks, and the servers that they send to.

use std::time::Duration;

use thiserror::Error;

use super::destinations::{self, UnfitDestination};
use crate::delivery::accounting::Accounting;
use crate::policy::interval::UnfitInterval;
use crate::policy::model::Policy;
use crate::records::terms::NoRecipient;
use crate::sinks::config::SinkConfig;

/// The policy does not fit the agent.
#[derive(Debug, Error)]
pub enum UnfitPolicy {
    /// It lacks the recipient.
    #[error("sink {sink}: {source}; change `recipient` of the sink, or the policy")]
    UnknownRecipient {
        /// Name of the sink.
        sink: String,
        /// What is missing.
        source: NoRecipient,
    },
    /// The retention of the recipient would be over before anybody could read a file.
    #[error(
        "sink {sink}: the retention of {recipient}, {}, is over when a file can first be read, after `rotate_every` and one \
         `interval`, {}; lower `rotate_every` or `interval`, or give {recipient} a longer `retention`",
        humantime::format_duration(*retention), humantime::format_duration(*readable)
    )]
    RotatesTooLate {
        /// Name of the sink.
        sink: String,
        /// Name of the recipient.
        recipient: String,
        /// How long the recipient may keep records.
        retention: Duration,
        /// How old the first record of a file is when the file can be read.
        readable: Duration,
    },
    /// The agent drains at other times.
    #[error(transparent)]
    Interval(#[from] UnfitInterval),
    /// A sink sends records where the policy does not let them go.
    #[error(transparent)]
    Destination(Box<UnfitDestination>),
}

impl From<UnfitDestination> for UnfitPolicy {
    fn from(error: UnfitDestination) -> Self {
        Self::Destination(Box::new(error))
    }
}

/// What of the agent a policy has to fit. It stays as it is over a reload.
pub struct Agreed {
    /// The sinks, whose recipients the policy must have.
    pub accounting: Accounting,
    /// Where records go.
    pub sinks: Vec<SinkConfig>,
    /// Time between drains.
    pub interval: Duration,
    /// Whether the policy must be signed.
    pub must_be_signed: bool,
}

impl Agreed {
    /// Checks that a policy fits: the time between drains, the recipients of all sinks, where their records go, and how long
    /// they may be kept.
    ///
    /// # Errors
    /// The first thing that it does not fit.
    pub fn check(&self, policy: &Policy) -> Result<(), UnfitPolicy> {
        policy.interval(Some(self.interval), self.interval)?;
        retentions(&self.accounting, policy)?;
        for sink in &self.sinks {
            destinations::check(sink, policy, self.must_be_signed)?;
        }
        Ok(())
    }
}

/// Checks that the policy has the recipients of all sinks, and lets them keep what the sinks write long enough to be read.
fn retentions(accounting: &Accounting, policy: &Policy) -> Result<(), UnfitPolicy> {
    for queue in accounting.queues() {
        let Some(name) = queue.recipient() else { continue };
        let sink = queue.account().name;
        let recipient = match policy.recipient(name) {
            Ok(position) => &policy.recipients[position],
            Err(source) => return Err(UnfitPolicy::UnknownRecipient { sink, source }),
        };
        if let (Some(retention), Some(readable)) = (recipient.retention, queue.readable_from())
            && readable >= retention
        {
            let recipient = recipient.name.clone();
            return Err(UnfitPolicy::RotatesTooLate { sink, recipient, retention, readable });
        }
    }
    Ok(())
}
