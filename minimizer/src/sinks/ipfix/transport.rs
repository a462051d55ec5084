//! What carries messages: a session that begins, sends, and sometimes ends.

use std::time::{Duration, Instant};

use super::outbox::Outbox;
use crate::delivery::sink::{Heading, SinkError, Taken};

/// How long a call may wait for the other end.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What becomes of templates that are not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retirement {
    /// They are taken back, as RFC 7011, 8.1 demands of reliable transports.
    Withdrawn,
    /// The other end forgets them when they are not sent again (RFC 7011, 8.4).
    Forgotten,
    /// A new session begins.
    Renewed,
}

/// Carries the messages of an [`Outbox`].
pub(super) trait Transport: Send {
    /// Takes notice of the batch that begins.
    fn heed(&mut self, _heading: &Heading<'_>) {}

    /// Sees to it that there is a session, and returns whether it is a new one, to which nothing was said yet.
    ///
    /// When the former one ended, this has told the outbox what may have been lost with it.
    fn open(&mut self, outbox: &mut Outbox) -> Result<bool, SinkError>;

    /// Sends everything that waits.
    fn send(&mut self, outbox: &mut Outbox) -> Result<(), SinkError>;

    /// Finds out whether what was sent arrived, and waits no longer than that for it.
    fn confirm(&mut self, outbox: &mut Outbox, patience: Duration) -> Result<Taken, SinkError>;

    /// What becomes of templates that are not used any more; what is sent next finds it done.
    fn retire(&mut self, outbox: &mut Outbox) -> Result<Retirement, SinkError>;

    /// How often templates are sent again, if the other end may not have got them.
    fn template_interval(&self) -> Option<Duration> {
        None
    }

    /// When [`Self::tend`] is to be called.
    fn tend_at(&self) -> Option<Instant> {
        None
    }

    /// Does what time asks for.
    fn tend(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Ends the session in good order, after everything was sent; finds out a last time whether it arrived.
    fn close(&mut self, outbox: &mut Outbox) -> Result<Taken, SinkError>;

    /// Octets that were sent.
    fn octets_written(&self) -> u64;
}
