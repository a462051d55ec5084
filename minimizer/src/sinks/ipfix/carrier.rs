//! What carries messages to the other end: sessions that begin, send, and sometimes break.

use std::time::{Duration, Instant};

use super::outbox::Outbox;
use crate::delivery::sink::{Heading, SinkError, Taken};

/// The longest that a call waits for the other end.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What becomes of templates that are not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retirement {
    /// They are withdrawn, as RFC 7011, 8.1 demands of reliable transports.
    Withdrawn,
    /// The other end forgets them when they are not sent again (RFC 7011, 8.4).
    Forgotten,
}

/// Carries the messages of an [`Outbox`].
pub(super) trait Carrier: Send {
    /// Is told which batch begins; returns whether [`Self::open`] will begin a new session for it.
    fn heed(&mut self, _heading: &Heading<'_>) -> bool {
        false
    }

    /// Makes sure that there is a session; returns whether it is a new one, which has no templates yet.
    ///
    /// When the former session broke, this has told the outbox which messages may be lost with it.
    fn open(&mut self, outbox: &mut Outbox) -> Result<bool, SinkError>;

    /// Sends all messages that wait.
    fn send(&mut self, outbox: &mut Outbox) -> Result<(), SinkError>;

    /// Finds out whether everything that was sent arrived, and waits for it no longer than `patience`.
    fn confirm(&mut self, outbox: &mut Outbox, patience: Duration) -> Result<Taken, SinkError>;

    /// Whether the other end confirms what it gets.
    fn is_confirmed(&self) -> bool {
        true
    }

    /// What becomes of templates that are not used any more.
    fn retirement(&self) -> Retirement;

    /// How often templates are sent again; `None` where they cannot get lost.
    fn template_interval(&self) -> Option<Duration> {
        None
    }

    /// When [`Self::tend`] is to be called.
    fn tend_at(&self) -> Option<Instant> {
        None
    }

    /// Does what is due.
    fn tend(&mut self, _outbox: &mut Outbox) -> Result<(), SinkError> {
        Ok(())
    }

    /// Ends the session after everything was sent; finds out a last time whether it arrived.
    fn close(&mut self, outbox: &mut Outbox) -> Result<Taken, SinkError>;

    /// Whether everything that was ever given to it arrived, as far as it can tell without waiting.
    fn holds_nothing(&self, _outbox: &Outbox) -> bool {
        false
    }

    /// Octets that were sent.
    fn octets_written(&self) -> u64;

    /// How often a file could not be deleted although its retention was over.
    fn retention_failures(&self) -> u64 {
        0
    }
}
