//! What the web server did since the start: connections, requests, and why it refused some.

use std::sync::atomic::{AtomicU64, Ordering};

use minimizer_common::named;

named! {
    /// Why a client got no answer, or not the one that it asked for.
    pub enum Refusal {
        SlowRequest, "slow_request", "The handshake or the header of a request was not complete in time.";
        SlowReader, "slow_reader", "The client did not take its answer in time.";
        Handshake, "handshake", "The TLS handshake failed: no TLS, no common version, no accepted certificate.";
        Unauthorized, "unauthorized", "The request had no user and password that the web configuration has.";
        Busy, "busy", "The password waited too long to be checked.";
        Displaced, "displaced", "The connection waited and gave its place to another one.";
        Forbidden, "forbidden", "Another user of this host than root and the agent's asked for counts at an unguarded loopback address.";
        Misdirected, "misdirected", "The request named a host or a site that this host is not known by.";
    }
}

/// What the web server did since the start.
#[derive(Debug, Default)]
pub struct AccessCounts {
    /// Accepted connections.
    pub accepted: AtomicU64,
    /// Open connections.
    pub open: AtomicU64,
    /// Answered requests.
    pub requests: AtomicU64,
    /// Refusals, in the order of [`Refusal::ALL`].
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Changed web configurations that came into force.
    pub reloads: AtomicU64,
    /// Changed web configurations that could not be used.
    pub reload_failures: AtomicU64,
}

impl AccessCounts {
    /// Adds one to a counter.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The value of a counter.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Counts a refusal.
    pub fn refuse(&self, refusal: Refusal) {
        Self::add(&self.refusals[refusal as usize]);
    }

    /// How often this happened.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        Self::get(&self.refusals[refusal as usize])
    }

    /// Counts an accepted connection. It counts as open until the returned guard is dropped.
    pub fn accept(&self) -> OpenConnection<'_> {
        Self::add(&self.accepted);
        Self::add(&self.open);
        OpenConnection(self)
    }
}

/// An open connection.
#[derive(Debug)]
pub struct OpenConnection<'counts>(&'counts AccessCounts);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
