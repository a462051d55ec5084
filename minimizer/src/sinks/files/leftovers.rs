//! What a run that ended hard left behind: files without names.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::{info, warn};

use super::error::FileError;
use super::manifest::Manifest;
use super::name;
use super::retention::{Deletion, Why, note};
use super::unfinished::{rename, sync_directory};

/// Removes files of the sink that were never whole, and gives the manifest of a whole one its name.
pub(super) fn clear(directory: &Path, sink: &str) -> Result<(), FileError> {
    let names = || fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().ok())).collect();
    let names: io::Result<Vec<Option<String>>> = names();
    let names = names.map_err(FileError::io("list", directory))?;
    let unfinished = || names.iter().flatten().filter_map(|name| Some((name, name::finished(name)?)));
    for (name, finished) in unfinished().filter(|(_, finished)| name::is_data_of(sink, finished)) {
        remove(directory, sink, finished, &directory.join(name))?;
    }
    // What is left of these has no file that waits for its name.
    for (name, finished) in unfinished() {
        if let Some(data) = finished.strip_suffix(name::MANIFEST)
            && name::is_data_of(sink, data)
            && !directory.join(name::unfinished(data)).exists()
        {
            complete(directory, sink, &directory.join(name))?;
        }
    }
    Ok(())
}

/// A data file that was never whole: nobody vouches for it, and no account has it as handed over.
fn remove(directory: &Path, sink: &str, name: &str, path: &Path) -> Result<(), FileError> {
    let Some(file) = unused(path)? else { return Ok(()) };
    let octets = file.metadata().map_err(FileError::io("look at", path))?.len();
    warn!(
        "sink {sink}: {} was not finished by the agent that wrote it and is removed ({octets} octets)",
        path.display()
    );
    fs::remove_file(path).map_err(FileError::io("remove", path))?;
    let time = Timestamp::now();
    let why = Why::Unfinished;
    note(directory, &Deletion { time, sink, file: name, octets, sha256: None, records: None, why })
}

/// A manifest whose file has its name, or is gone.
fn complete(directory: &Path, sink: &str, path: &Path) -> Result<(), FileError> {
    let manifest: Option<Manifest> = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let whole = manifest.filter(|manifest| {
        let data = fs::metadata(directory.join(&manifest.file));
        name::is_data_of(sink, &manifest.file) && data.is_ok_and(|data| data.len() == manifest.octets)
    });
    let Some(manifest) = whole else {
        return fs::remove_file(path).map_err(FileError::io("remove", path));
    };
    if unused(&directory.join(&manifest.file))?.is_none() {
        return Ok(());
    }
    let named = directory.join(name::manifest(&manifest.file));
    info!("sink {sink}: {} gets its manifest, which was written before", manifest.file);
    rename(path, &named).map_err(FileError::io("rename", path))?;
    sync_directory(directory)
}

/// The file, unless somebody who runs has it open.
fn unused(path: &Path) -> Result<Option<File>, FileError> {
    let file = File::open(path).map_err(FileError::io("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(None),
        // Where files cannot be locked nobody can tell; two agents must not share the name of a sink anyway.
        _ => Ok(Some(file)),
    }
}
