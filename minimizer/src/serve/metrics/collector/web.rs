//! What the web server did: connections, requests, refusals, changes of its configuration.

use std::fmt;

use super::Families;
use crate::serve::counts::Refusal;
use crate::serve::metrics::WebTotals;

impl Families<'_> {
    pub(super) fn web(&mut self, web: &WebTotals) -> fmt::Result {
        self.gauge(
            "minimizer_web_connections_open",
            "Connections to the web server that are open",
            web.open,
        )?;
        self.counter("minimizer_web_connections_total", "Connections to the web server", web.accepted)?;
        self.counter("minimizer_web_requests_total", "Requests that the web server answered", web.requests)?;
        self.counters(
            "minimizer_web_refusals_total",
            "Requests and connections that the web server refused or cut, and why",
            Refusal::ALL.iter().zip(&web.refusals).map(|(why, times)| (vec![("reason", why.name())], *times)),
        )?;
        self.counter(
            "minimizer_web_config_reloads_total",
            "How often a changed web configuration was put in force",
            web.reloads,
        )?;
        self.counter(
            "minimizer_web_config_reload_failures_total",
            "How often a changed web configuration could not be used and the one before stayed",
            web.reload_failures,
        )
    }
}
