//! Directories that sinks wrote files to and that no sink has any more: the state directory remembers them, so that another
//! sink can delete their files when the time is over.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::support::file_mode;
use crate::support::plain_file;

/// The list in the state directory.
const LIST: &str = "sink-directories.json";

/// Notes in the state directory which directories sinks have now, and returns those that sinks had before and that still have
/// notes of files. Nothing is remembered without a state directory. What goes wrong is told, and stops nothing.
#[must_use]
pub fn directories(state: Option<&Path>, current: &[&Path]) -> Vec<PathBuf> {
    let Some(state) = state else { return Vec::new() };
    let path = state.join(LIST);
    let known = read(&path).unwrap_or_else(|error| {
        warn!("{}: cannot read which directories sinks had before: {error}", path.display());
        BTreeSet::new()
    });
    let current: BTreeSet<PathBuf> =
        current.iter().filter_map(|directory| std::path::absolute(directory).ok()).collect();
    let is_former = |directory: &PathBuf| !current.contains(directory) && super::folder::is_used(directory);
    let former: Vec<PathBuf> = known.iter().filter(|directory| is_former(directory)).cloned().collect();
    let listed: BTreeSet<PathBuf> = current.into_iter().chain(former.iter().cloned()).collect();
    if listed != known
        && let Err(error) = write(&path, &listed)
    {
        warn!(
            "{}: cannot note the directories of sinks: {error}; if a sink is removed, nobody deletes its files",
            path.display()
        );
    }
    former
}

fn read(path: &Path) -> io::Result<BTreeSet<PathBuf>> {
    match plain_file::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        text => Ok(serde_json::from_slice(&text?)?),
    }
}

fn write(path: &Path, listed: &BTreeSet<PathBuf>) -> io::Result<()> {
    file_mode::replace(path, &path.with_extension("json.tmp"), &serde_json::to_vec(listed)?)
}
