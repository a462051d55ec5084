//! IPFIX sinks as the configuration makes them, and the files they leave.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use minimizer::delivery::sink::Sink;
use minimizer::sinks::ipfix::{IpfixConfig, IpfixFile};
use minimizer::support::toml::Document;

/// The sink that this configuration makes; relative paths in it start at `folder`.
///
/// # Errors
/// What the agent says of the configuration, when it refuses it.
pub fn configured(text: &str, folder: &Path) -> Result<Box<dyn Sink>, String> {
    let mut document = Document::new("agent.toml".to_owned(), text);
    let file: IpfixFile = document.read().map_err(|findings| findings.to_string())?;
    let config = IpfixConfig::check(&file, &mut document, folder);
    document.finish().map_err(|findings| findings.to_string())?;
    Ok(config.ok_or("what is not refused is a configuration")?.sink("soc"))
}

/// The same without relative paths.
///
/// # Errors
/// What the agent says of the configuration, when it refuses it.
pub fn sink(text: &str) -> Result<Box<dyn Sink>> {
    configured(text, Path::new("")).map_err(anyhow::Error::msg)
}

/// The only file of messages in a folder, where nothing else is, with its manifest.
///
/// # Errors
/// When there are more files, or fewer.
pub fn only_file(folder: &Path) -> Result<PathBuf> {
    let names = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        let mut paths = entries.collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    let (paths, notes) = (names(folder)?, names(&folder.join(".minimizer"))?);
    let ([_, file], [manifest]) = (&paths[..], &notes[..]) else { anyhow::bail!("{paths:?} {notes:?}") };
    anyhow::ensure!(file.extension().is_some_and(|extension| extension == "ipfix"), "{paths:?}");
    anyhow::ensure!(manifest.file_stem() == file.with_extension("ipfix.manifest").file_name(), "{notes:?}");
    Ok(file.clone())
}
