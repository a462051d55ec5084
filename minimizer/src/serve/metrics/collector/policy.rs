//! The policy in force, its reloads, and how long its mandate lasts.

use std::fmt;
use std::time::SystemTime;

use super::{Families, Labels};
use crate::serve::metrics::unix_seconds;
use crate::serve::snapshot::Snapshot;

impl Families<'_> {
    pub(super) fn policy(&mut self, snapshot: &Snapshot, time: SystemTime) -> fmt::Result {
        let (policy, reloads) = (&snapshot.policy, &snapshot.reloads);
        let mandate = policy.mandate.as_ref();
        let labels: Labels<'_> = vec![
            ("name", &policy.name),
            ("sha256", &policy.digest),
            ("mandate", mandate.map_or("", |mandate| &mandate.id)),
        ];
        self.gauges("minimizer_policy_info", "The policy in force: always 1", [(labels, 1_u64)])?;
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        self.gauge("minimizer_policy_prefixes", "Prefixes of the policy's scope", count(policy.prefixes))?;
        self.gauge(
            "minimizer_policy_indicators",
            "Indicators of the policy, expired ones included",
            count(policy.indicators),
        )?;
        self.counter(
            "minimizer_policy_reloads_total",
            "How often another policy was put in force without a packet missed",
            reloads.succeeded,
        )?;
        self.counter(
            "minimizer_policy_reload_failures_total",
            "How often a policy could not be put in force and the one before stayed",
            reloads.failed,
        )?;
        let Some(mandate) = mandate else { return Ok(()) };
        let seconds = |time: jiff::Timestamp| time.as_second() as f64;
        self.gauge(
            "minimizer_mandate_valid_from_timestamp_seconds",
            "When the mandate begins, since 1970",
            seconds(mandate.valid_from),
        )?;
        self.gauge(
            "minimizer_mandate_valid_until_timestamp_seconds",
            "When the mandate ends and the agent with it, since 1970",
            seconds(mandate.valid_until),
        )?;
        self.gauge(
            "minimizer_mandate_paused",
            "Whether nothing is attached because the clock of the host is wrong: 1 for yes, 0 for no",
            u64::from(snapshot.paused.is_some()),
        )?;
        self.gauge(
            "minimizer_mandate_remaining_seconds",
            "Time until the mandate ends and the agent with it, by the clock of its host",
            seconds(mandate.valid_until) - unix_seconds(time),
        )
    }
}
