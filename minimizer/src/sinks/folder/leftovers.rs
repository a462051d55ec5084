//! Deals with files without names, which a run left behind that ended hard.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::{info, warn};

use super::error::FileError;
use super::journal;
use super::manifest::Manifest;
use super::mode::create_file;
use super::name::{self, Encoding};
use super::retention::{Deletion, Why, note};
use super::unfinished::{rename, sync_directory, write_manifest};

/// Completes files of the sink up to the last checkpoint of their journals, removes those without a checkpoint, and gives
/// manifests of whole files their names. Returns the manifests.
pub(super) fn clear(directory: &Path, sink: &str) -> Result<Vec<Manifest>, FileError> {
    let mut completed = Vec::new();
    // Data files first: a manifest or journal whose file is still unfinished after that belongs to an agent that runs.
    for name in unfinished(directory)? {
        if let Some(finished) = name::finished(&name).filter(|name| name::is_data_of(sink, name)) {
            complete_or_remove(directory, sink, finished)?;
        }
    }
    for name in unfinished(directory)? {
        let Some(finished) = name::finished(&name) else { continue };
        let is_left =
            |data: &str| name::is_data_of(sink, data) && !directory.join(name::unfinished(data)).exists();
        if finished.strip_suffix(name::MANIFEST).is_some_and(is_left) {
            completed.extend(name_manifest(directory, sink, &directory.join(&name))?);
        } else if finished.strip_suffix(name::JOURNAL).is_some_and(is_left) {
            remove(&directory.join(&name))?;
        }
    }
    Ok(completed)
}

fn unfinished(directory: &Path) -> Result<Vec<String>, FileError> {
    let names = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default())).collect()
    };
    let names = names().map_err(FileError::io("list", directory))?;
    Ok(names.into_iter().filter(|name| name::finished(name).is_some()).collect())
}

/// Deals with an unfinished data file that was to get this name.
fn complete_or_remove(directory: &Path, sink: &str, name: &str) -> Result<(), FileError> {
    let path = directory.join(name::unfinished(name));
    let Some(file) = unused(&path)? else { return Ok(()) };
    let octets = file.metadata().map_err(FileError::io("look at", &path))?.len();
    let journal =
        journal::read(&directory.join(name::unfinished(&name::journal(name))), name, Encoding::Ipfix);
    if let Some(manifest) = journal.filter(|manifest| manifest.octets <= octets) {
        return complete(directory, sink, &path, manifest);
    }
    warn!(
        "sink {sink}: {} was not finished by the agent that wrote it and is removed ({octets} octets)",
        path.display()
    );
    // None of its records was accounted as delivered, and no manifest says how long it may be kept.
    remove(&path)?;
    let time = Timestamp::now();
    let why = Why::Unfinished;
    note(directory, &Deletion { time, sink, file: name, octets, sha256: None, records: None, why })
}

/// Cuts a file behind its last checkpoint, writes its manifest, and gives it its name. Manifest and journal are dealt with
/// afterwards, as if a run had ended at this point.
fn complete(directory: &Path, sink: &str, path: &Path, mut manifest: Manifest) -> Result<(), FileError> {
    let cut = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(manifest.octets)?;
        file.sync_all()
    };
    cut().map_err(FileError::io("cut", path))?;
    let manifest_path = directory.join(name::unfinished(&name::manifest(&manifest.file)));
    let write = |manifest: &Manifest| {
        let file = match create_file(&manifest_path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).open(&manifest_path)?
            }
            file => file?,
        };
        write_manifest(&file, manifest)
    };
    let mut sequence = 0;
    loop {
        write(&manifest).map_err(FileError::io("write", &manifest_path))?;
        match rename(path, &directory.join(&manifest.file)) {
            Ok(()) => break,
            // Somebody took the name meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                sequence += 1;
                let begin_ms = u64::try_from(manifest.begin.as_millisecond()).unwrap_or(0);
                manifest.file = name::data(sink, begin_ms, sequence, manifest.format);
            }
            Err(error) => return Err(FileError::io("rename", path)(error)),
        }
    }
    warn!(
        "sink {sink}: {} was not finished by the agent that wrote it; it has the {} records that were \
         delivered",
        manifest.file, manifest.records
    );
    sync_directory(directory)
}

/// Names a manifest whose file has its name, and removes one whose file is gone.
fn name_manifest(directory: &Path, sink: &str, path: &Path) -> Result<Option<Manifest>, FileError> {
    let manifest: Option<Manifest> = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let whole = manifest.filter(|manifest| {
        let data = fs::metadata(directory.join(&manifest.file));
        name::is_data_of(sink, &manifest.file) && data.is_ok_and(|data| data.len() == manifest.octets)
    });
    let Some(manifest) = whole else {
        remove(path)?;
        return Ok(None);
    };
    if unused(&directory.join(&manifest.file))?.is_none() {
        return Ok(None);
    }
    let named = directory.join(name::manifest(&manifest.file));
    info!("sink {sink}: {} gets its manifest, which was written before", manifest.file);
    rename(path, &named).map_err(FileError::io("rename", path))?;
    sync_directory(directory)?;
    Ok(Some(manifest))
}

fn remove(path: &Path) -> Result<(), FileError> {
    fs::remove_file(path).map_err(FileError::io("remove", path))
}

/// The file, unless a running agent has it open.
fn unused(path: &Path) -> Result<Option<File>, FileError> {
    let file = File::open(path).map_err(FileError::io("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(None),
        // Where files cannot be locked nobody can tell; two agents must not share the name of a sink anyway.
        _ => Ok(Some(file)),
    }
}
