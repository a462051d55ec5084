//! What is in the JSON Lines files of a sink.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;

/// Packets in the files of a folder that have their final names; none where there is no folder.
///
/// # Errors
/// When a file cannot be read.
pub fn packets_in_files(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || !name.ends_with(".jsonl") || name.starts_with("deletions") {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            // Millions of lines: taken apart no further than needed. The first of a file is no record.
            let Some((_, rest)) = line.split_once("\"packetDeltaCount\":") else { continue };
            sum += rest.split(',').next().unwrap_or(rest).parse::<u64>()?;
        }
    }
    Ok(sum)
}
