//! IPFIX sinks as the configuration makes them, and the files they leave.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
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

/// The only file of messages in a folder, where nothing else is but its manifest.
///
/// # Errors
/// When there are more files, or fewer.
pub fn only_file(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<_> = entries.collect::<std::io::Result<_>>()?;
    paths.sort();
    let [file, manifest] = &paths[..] else { anyhow::bail!("{paths:?}") };
    anyhow::ensure!(file.extension().is_some_and(|extension| extension == "ipfix"), "{paths:?}");
    anyhow::ensure!(*manifest == file.with_extension("ipfix.manifest.json"), "{paths:?}");
    Ok(file.clone())
}
