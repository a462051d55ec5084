//! Where the time mark is kept: in the state directory, if there is one.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use super::RunError;
use crate::agent::time_mark::TimeMark;
use crate::policy::compile::CompiledPolicy;
use crate::support::clock::SystemClocks;
use crate::support::state_file::StateFileError;

/// The state directory of a service, as systemd makes it for `StateDirectory=minimizer`.
const STATE_DIRECTORY: &str = "/var/lib/minimizer";

/// Opens the mark, checks that the mandate has begun and not ended, and writes the mark. A mandate that does not permit
/// collection leaves the file as it was: the clock of this moment need not be right.
pub fn open(named: Option<&Path>, compiled: &CompiledPolicy) -> Result<TimeMark, RunError> {
    let clocks = || Arc::new(SystemClocks);
    let loaded = match (named, found()) {
        (Some(directory), _) => Ok(TimeMark::load(directory, clocks())?),
        (None, Some(directory)) => match TimeMark::load(&directory, clocks()) {
            Err(error @ StateFileError::Damaged { .. }) => return Err(error.into()),
            loaded => loaded.map_err(Some),
        },
        (None, None) => Err(None),
    };
    let (mut mark, mut cause, is_kept) = match loaded {
        Ok(mark) => (mark, None, true),
        Err(cause) => (TimeMark::in_memory(clocks()), cause, false),
    };
    let Some(mandate) = &compiled.policy.mandate else { return Ok(mark) };
    let (wall, time) = mark.now();
    mandate.standing(wall, time)?;
    match mark.save() {
        Ok(()) if is_kept => return Ok(mark),
        Err(error) if named.is_some() => return Err(error.into()),
        saved => cause = cause.or(saved.err()),
    }
    mark.forget_file();
    let cause = cause.map(|error| format!(" ({error})")).unwrap_or_default();
    info!(
        "the time of the mandate is kept in memory only{cause}: after a restart the clock alone says whether the mandate has \
         ended; '--state DIRECTORY' keeps it"
    );
    Ok(mark)
}

/// The state directory, if there is one: the one that is named, or the one that is found.
pub fn directory(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(found)
}

/// The state directory that a service manager gives, or else the usual one if it is there.
fn found() -> Option<PathBuf> {
    let given = env::var_os("STATE_DIRECTORY").filter(|given| !given.is_empty());
    // A service may have several, of which the first is its own.
    let first = given.and_then(|given| env::split_paths(&given).next());
    first.or_else(|| Some(PathBuf::from(STATE_DIRECTORY)).filter(|directory| directory.is_dir()))
}
