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

/// The wall clock of this host contradicts the mark: it was set, or it is wrong since the start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClockError {
    /// It is past the end of the mandate, and so much time has not passed.
    #[error(
        "the clock of this host is past the end of the mandate {id} at {valid_until}, and so much time has not passed; \
         nothing is attached until the clock is right: set it, or stop the agent if the mandate has ended"
    )]
    Ahead {
        /// Number of the mandate.
        id: String,
        /// When it ends.
        valid_until: Timestamp,
    },
    /// It is before the begin of the mandate, and the mandate has begun.
    #[error(
        "the clock of this host is before the begin of the mandate {id} at {valid_from}, which has passed; nothing is \
         attached until the clock is right: set it"
    )]
    Behind {
        /// Number of the mandate.
        id: String,
        /// When it begins.
        valid_from: Timestamp,
    },
}

/// What a mandate that has begun and not ended says about collection now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It permits collection.
    Permits,
    /// The clock is wrong: nobody knows whether it does.
    Paused(ClockError),
}

/// Clocks are corrected by small steps, of which the mark knows nothing. A mandate that has ended by the wall clock and has
/// no more than this left by the mark has ended.
const CORRECTION: Duration = CHECK;

impl Mandate {
    /// Compares the mandate with the wall clock and with the mark: the latest time that the agent knows has come, which no
    /// step of the clock moves.
    ///
    /// # Errors
    /// It has not begun, or it has ended.
    pub fn standing(&self, wall: Timestamp, mark: Timestamp) -> Result<Standing, MandateError> {
        let Self { valid_from, valid_until, .. } = *self;
        let id = self.id.clone();
        let has_ended = wall >= valid_until;
        if mark >= valid_until || has_ended && left(mark, valid_until) <= CORRECTION {
            return Err(MandateError::Ended { id, valid_until });
        }
        if has_ended {
            return Ok(Standing::Paused(ClockError::Ahead { id, valid_until }));
        }
        if wall >= valid_from {
            return Ok(Standing::Permits);
        }
        if mark >= valid_from {
            return Ok(Standing::Paused(ClockError::Behind { id, valid_from }));
        }
        Err(MandateError::NotYet { id, valid_from })
    }

    /// How long to wait before the next call of [`Self::standing`]: at most until the mandate ends by either time.
    #[must_use]
    pub fn ask_again(&self, wall: Timestamp, mark: Timestamp) -> Duration {
        let ahead = [wall, mark].into_iter().filter(|time| *time < self.valid_until);
        ahead.map(|time| left(time, self.valid_until)).min().unwrap_or_default().min(CHECK)
    }
}

/// The time from one moment to a later one; none if it is not later.
fn left(from: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::{ClockError, Mandate, MandateError, Standing};

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
        assert!(matches!(mandate.standing(at(99), at(99)), Err(MandateError::NotYet { .. })));
        assert_eq!(mandate.standing(at(100), at(100)), Ok(Standing::Permits));
        assert_eq!(mandate.standing(at(199), at(199)), Ok(Standing::Permits));
        assert!(matches!(mandate.standing(at(200), at(200)), Err(MandateError::Ended { .. })));
    }

    #[test]
    fn a_step_of_the_clock_neither_ends_nor_revives_a_mandate() {
        let mandate = mandate();
        let ended =
            |wall, mark| matches!(mandate.standing(at(wall), at(mark)), Err(MandateError::Ended { .. }));
        // Set back after the end, however far.
        assert!([0, 100, 150, 199].into_iter().all(|wall| ended(wall, 200)));
        // Set past the end, and the mark is still before it, or before the begin.
        for mark in [0, 100, 150, 198] {
            for wall in [200, 1_000_000] {
                let standing = mandate.standing(at(wall), at(mark));
                assert!(matches!(standing, Ok(Standing::Paused(ClockError::Ahead { .. }))), "{wall} {mark}");
            }
        }
        // A correction by less than a second is no step.
        assert!(ended(200, 199));
        // Set back before the begin.
        for mark in [100, 150, 199] {
            let standing = mandate.standing(at(99), at(mark));
            assert!(matches!(standing, Ok(Standing::Paused(ClockError::Behind { .. }))), "{mark}");
        }
        // Set within the period, and a mark that was left behind while the host was off.
        for (wall, mark) in [(150, 199), (100, 199), (150, 0), (199, 100)] {
            assert_eq!(mandate.standing(at(wall), at(mark)), Ok(Standing::Permits), "{wall} {mark}");
        }
    }

    #[test]
    fn it_is_asked_again_at_its_end() {
        let near = at(200) - Duration::from_millis(250);
        for (now, again) in [(at(150), 1000), (at(199), 1000), (near, 250), (at(200), 0), (at(300), 0)] {
            assert_eq!(mandate().ask_again(now, now), Duration::from_millis(again), "{now}");
        }
        // One that the clock is past is asked about until the mark is past it, and not without a pause.
        assert_eq!(mandate().ask_again(at(300), at(150)), Duration::from_secs(1));
        assert_eq!(mandate().ask_again(at(150), near), Duration::from_millis(250));
    }
}
