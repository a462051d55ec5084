//! Epochs: how long a key of pseudonyms is used, and when it is destroyed.

use std::time::Duration;

use jiff::Timestamp;
use tracing::info;

use super::{KeyError, Keys, PseudonymKey};

/// From when until when an epoch lasts. Epochs begin at multiples of their length, counted from 1970, so that all hosts begin
/// them at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    start: u64,
    length: u64,
}

impl Stretch {
    /// That of the epoch of `now`; its length is rounded down to whole seconds, and is at least one.
    #[must_use]
    pub fn of(length: Duration, now: Timestamp) -> Self {
        let (length, now) = (length.as_secs().max(1), seconds(now));
        Self { start: now - now % length, length }
    }

    /// Its first second, since 1970.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The first second after it, since 1970.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Whether this is the epoch of `now` among those of this length. A clock set back by less than an epoch does not
    /// bring a past one back.
    #[must_use]
    pub fn is_of(&self, length: Duration, now: Timestamp) -> bool {
        let now = seconds(now);
        self.length == length.as_secs().max(1)
            && now < self.end()
            && now.saturating_add(self.length) >= self.start
    }
}

/// An epoch and its key of pseudonyms. Everything that uses the key shares the epoch, a generation in the kernel's memory
/// included. Whoever drops it last destroys the key and says so.
#[derive(Debug)]
pub struct Epoch {
    stretch: Stretch,
    /// `None` only while it is dropped.
    key: Option<PseudonymKey>,
    is_lasting: bool,
}

impl Epoch {
    /// The epoch of `now`; its length is rounded down to whole seconds, and is at least one.
    ///
    /// # Errors
    /// When the system gives no random numbers or no memory.
    pub fn begin(keys: &Keys, length: Duration, now: Timestamp) -> Result<Self, KeyError> {
        let stretch = Stretch::of(length, now);
        let key = Some(keys.epoch_key(stretch.start)?);
        Ok(Self { stretch, key, is_lasting: keys.is_lasting() })
    }

    /// From when until when it lasts.
    #[must_use]
    pub const fn stretch(&self) -> Stretch {
        self.stretch
    }

    /// The message about an epoch that is over.
    fn destroyed(&self) -> String {
        let (start, end) = (shown(self.stretch.start), shown(self.stretch.end()));
        // A key that can be derived again must not be called lost.
        let again = if self.is_lasting {
            " on this host; whoever has the master secret can derive it again"
        } else {
            ""
        };
        format!("pseudonym key of the epoch from {start} to {end} is destroyed{again}")
    }
}

/// The key of the kernel's pseudonyms.
impl AsRef<[u64; 2]> for Epoch {
    fn as_ref(&self) -> &[u64; 2] {
        self.key.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        drop(self.key.take());
        info!("{}", self.destroyed());
    }
}

/// Seconds since 1970; times before are in the first epoch.
fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_second()).unwrap_or(0)
}

fn shown(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::Epoch;
    use crate::records::keys::Keys;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn epochs_begin_at_multiples_of_their_length() {
        let keys = Keys::load(None).expect("random numbers");
        let epoch = Epoch::begin(&keys, DAY, at(1_800_000_000)).expect("random numbers");
        assert_eq!(epoch.stretch().start() % 86_400, 0);
        assert_eq!(epoch.stretch().end(), epoch.stretch().start() + 86_400);
        let start = i64::try_from(epoch.stretch().start()).expect("a time");
        for same in [0, 1, 86_399, -1, -86_400] {
            assert!(epoch.stretch().is_of(DAY, at(start + same)), "{same}");
        }
        assert!(!epoch.stretch().is_of(DAY, at(start + 86_400)));
        assert!(!epoch.stretch().is_of(DAY, at(0)), "a clock set back by years");
        assert!(!epoch.stretch().is_of(DAY / 2, at(start)));
        let next = Epoch::begin(&keys, DAY, at(start + 86_400)).expect("random numbers");
        assert!(next.as_ref() != epoch.as_ref());
    }

    #[test]
    fn what_is_said_of_a_destroyed_key_is_true() {
        let keys = Keys::load(None).expect("random numbers");
        let mut epoch = Epoch::begin(&keys, Duration::from_secs(3600), at(7200)).expect("random numbers");
        assert_eq!(
            epoch.destroyed(),
            "pseudonym key of the epoch from 1970-01-01T02:00:00Z to 1970-01-01T03:00:00Z is destroyed"
        );
        epoch.is_lasting = true;
        assert!(epoch.destroyed().ends_with("can derive it again"));
    }
}
