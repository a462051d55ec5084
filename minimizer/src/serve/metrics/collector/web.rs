//! What the web server did: connections, requests, refusals, changes of its configuration.

use std::fmt;

use super::Families;
use crate::serve::access::{AccessCounts, Refusal};

impl Families<'_> {
    pub(super) fn web(&mut self, access: &AccessCounts) -> fmt::Result {
        self.gauge(
            "minimizer_web_connections_open",
            "Connections to the web server that are open",
            AccessCounts::get(&access.open),
        )?;
        self.counter(
            "minimizer_web_connections_total",
            "Connections to the web server",
            AccessCounts::get(&access.accepted),
        )?;
        self.counter(
            "minimizer_web_requests_total",
            "Requests that the web server answered",
            AccessCounts::get(&access.requests),
        )?;
        self.counters(
            "minimizer_web_refusals_total",
            "Requests and connections that the web server refused or cut, and why",
            Refusal::ALL.iter().map(|refusal| (vec![("reason", refusal.name())], access.refused(*refusal))),
        )?;
        self.counter(
            "minimizer_web_config_reloads_total",
            "How often a changed web configuration was put in force",
            AccessCounts::get(&access.reloads),
        )?;
        self.counter(
            "minimizer_web_config_reload_failures_total",
            "How often a changed web configuration could not be used and the one before stayed",
            AccessCounts::get(&access.reload_failures),
        )
    }
}
