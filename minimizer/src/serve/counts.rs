//! What the web server did so far, for metrics: connections, and why they ended early.

use std::sync::atomic::{AtomicU64, Ordering};

use minimizer_common::named;

named! {
    /// Why a client did not get an answer, or not the one that it wanted.
    pub enum Refusal {
        SlowRequest, "slow_request", "The handshake or the header of a request was not complete in time.";
        SlowReader, "slow_reader", "The client did not take its answer in time.";
        Handshake, "handshake", "The TLS handshake failed: no TLS, no common version, no accepted certificate.";
        Unauthorized, "unauthorized", "The request had no user and password that the web configuration has.";
        Busy, "busy", "Too many passwords waited to be checked.";
    }
}

/// AccessCounts since the start.
#[derive(Debug, Default)]
pub struct AccessCounts {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Connections that are open.
    pub open: AtomicU64,
    /// Requests that were answered.
    pub requests: AtomicU64,
    /// By the order of [`Refusal::ALL`].
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Changed web configurations that were put in force.
    pub reloads: AtomicU64,
    /// Changed web configurations that could not be used.
    pub reload_failures: AtomicU64,
}

impl AccessCounts {
    /// Adds one.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A count.
    #[must_use]
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Enters a refusal.
    pub fn refuse(&self, refusal: Refusal) {
        Self::add(&self.refusals[refusal as usize]);
    }

    /// How often that happened.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        Self::get(&self.refusals[refusal as usize])
    }

    /// Enters that a connection was accepted; it is open as long as what is returned.
    pub fn accept(&self) -> Open<'_> {
        Self::add(&self.accepted);
        Self::add(&self.open);
        Open(self)
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Open<'counts>(&'counts AccessCounts);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
