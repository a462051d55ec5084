//! The period in which a mandate permits collection.

use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

/// On what authority records are collected, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// Its number in somebody's files.
    pub id: String,
    /// The one purpose.
    pub purpose: String,
    /// The law, and the section of it.
    pub legal_basis: String,
    /// Before this moment nothing is attached.
    pub valid_from: Timestamp,
    /// From this moment on nothing is attached.
    pub valid_until: Timestamp,
}

/// The wall clock may be set at any time: a mandate is compared with it at least this often.
const CHECK: Duration = Duration::from_secs(1);

/// Outside of its period a mandate permits nothing.
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
    /// Whether collection is permitted at this moment.
    ///
    /// # Errors
    /// Why it is not.
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

    /// Time from `now` on after which [`Self::permits`] is to be asked again: at its end at the latest.
    #[must_use]
    pub fn ask_again(&self, now: Timestamp) -> Duration {
        // Before now there is no time left.
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
