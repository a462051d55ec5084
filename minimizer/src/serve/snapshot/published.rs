//! Publishing snapshots without a lock.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{PolicyInForce, Snapshot};
use crate::agent::progress::Progress;
use crate::delivery::ledger::Ledger;

/// The latest snapshot, shared by those who make it and those who serve it. Neither waits for the other.
#[derive(Clone, Debug)]
pub struct Published(Arc<ArcSwap<Snapshot>>);

impl Published {
    /// Publishes the snapshot from before the first drain.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// Publishes the agent's progress. The drain's thread calls this, so it must not wait.
    pub fn progressed(&self, progress: &Progress<'_>) {
        self.update(|snapshot| snapshot.progressed(progress));
    }

    /// Publishes that the agent has failed, and why: it will end.
    pub fn failed(&self, reason: &str) {
        self.update(|snapshot| snapshot.failed = Some(reason.to_owned()));
    }

    /// Publishes that the last drain is done: nothing is attached any more.
    pub fn ends(&self) {
        self.update(|snapshot| {
            snapshot.is_ending = true;
            snapshot.watched.iter_mut().for_each(|watched| watched.attached = None);
        });
    }

    /// Publishes the ledger after a sink took records, lost some or failed.
    pub fn settled(&self, ledger: &Ledger) {
        self.update(|snapshot| snapshot.advance(ledger));
    }

    /// Publishes that another policy is in force, in a program with this tag.
    pub fn reloaded(&self, policy: &PolicyInForce, program_tag: &str) {
        self.update(|snapshot| {
            snapshot.policy = policy.clone();
            program_tag.clone_into(&mut snapshot.build.program_tag);
            snapshot.reloads.succeeded += 1;
            snapshot.reloads.error = None;
        });
    }

    /// Publishes that a reload failed, and why. The policy in force stays.
    pub fn reload_failed(&self, error: &str) {
        self.update(|snapshot| {
            snapshot.reloads.failed += 1;
            snapshot.reloads.error = Some(error.to_owned());
        });
    }

    /// Publishes a changed copy of the snapshot. When somebody else publishes at the same time, `change` runs again on a
    /// fresh copy.
    pub(crate) fn update(&self, change: impl Fn(&mut Snapshot)) {
        self.0.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            change(&mut snapshot);
            snapshot
        });
    }

    /// The latest snapshot.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}
