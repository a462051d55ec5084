//! The files of a sink: what is in its directory, and what its manifests say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The directory, in that of a sink, of everything that is no whole file of records.
pub const NOTES: &str = ".minimizer";

/// Names of everything in a folder.
///
/// # Errors
/// When it cannot be listed.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Manifests by the names of their files.
///
/// # Errors
/// When a file that has a name has no manifest.
pub fn manifests(folder: &Path) -> Result<BTreeMap<String, Value>> {
    let mut manifests = BTreeMap::new();
    for name in names(folder)? {
        if folder.join(&name).is_file() {
            let path = folder.join(NOTES).join(format!("{name}.manifest.json"));
            let text = fs::read(&path).with_context(|| format!("{} is missing", path.display()))?;
            manifests.insert(name, serde_json::from_slice(&text)?);
        }
    }
    Ok(manifests)
}
