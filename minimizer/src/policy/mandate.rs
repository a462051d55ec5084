//! The period in which a mandate permits collection.

use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

/// The authority for the collection, and its period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// The number of the mandate in the files of the authority.
    pub id: String,
    /// The one purpose of the collection.
    pub purpose: String,
    /// The law, and its section.
    pub legal_basis: String,
    /// The program is not attached before this moment.
    pub valid_from: Timestamp,
    /// The program is not attached from this moment on.
    pub valid_until: Timestamp,
}

/// The agent compares a mandate with the wall clock at least this often, because somebody can set the clock
/// at any time.
const CHECK: Duration = Duration::from_secs(1);

/// The mandate does not permit collection now.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MandateError {
    /// It has not begun.
    #[error(
        "the mandate {id} begins at {valid_from}; until then nothing is attached. Start the agent then, or name a \
         policy whose mandate is valid"
    )]
    NotYet {
        /// Its number.
        id: String,
        /// When it begins.
        valid_from: Timestamp,
    },
    /// It has ended.
    #[error(
        "the mandate {id} ended at {valid_until}; from then on nothing is attached. Collection goes on only under a \
         policy whose mandate is valid"
    )]
    Ended {
        /// Its number.
        id: String,
        /// When it ended.
        valid_until: Timestamp,
    },
}

impl Mandate {
    /// Checks that the mandate permits collection at this moment.
    ///
    /// # Errors
    /// Why it does not.
    pub fn permits(&self, now: Timestamp) -> Result<(), MandateError> {
        let id = self.id.clone();
        if now < self.valid_from {
            return Err(MandateError::NotYet { id, valid_from: self.valid_from });
        }
        if now >= self.valid_until {
            return Err(MandateError::Ended { id, valid_until: self.valid_until });
        }
        Ok(())
    }

    /// How long after `now` to call [`Self::permits`] again: at the end of the mandate at the latest.
    #[must_use]
    pub fn ask_again(&self, now: Timestamp) -> Duration {
        // After the end there is no time left.
        let left = Duration::try_from(self.valid_until.duration_since(now)).unwrap_or_default();
        left.min(CHECK)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::{Mandate, MandateError};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn mandate() -> Mandate {
        Mandate {
            id: "7".to_owned(),
            purpose: String::new(),
            legal_basis: String::new(),
            valid_from: at(100),
            valid_until: at(200),
        }
    }

    #[test]
    fn the_first_moment_is_in_and_the_last_is_out() {
        let mandate = mandate();
        assert!(matches!(mandate.permits(at(99)), Err(MandateError::NotYet { .. })));
        assert_eq!(mandate.permits(at(100)), Ok(()));
        assert_eq!(mandate.permits(at(199)), Ok(()));
        assert!(matches!(mandate.permits(at(200)), Err(MandateError::Ended { .. })));
    }

    #[test]
    fn it_is_asked_again_at_its_end() {
        let near = at(200) - Duration::from_millis(250);
        for (now, again) in [(at(150), 1000), (at(199), 1000), (near, 250), (at(200), 0), (at(300), 0)] {
            assert_eq!(mandate().ask_again(now), Duration::from_millis(again), "{now}");
        }
    }
}
