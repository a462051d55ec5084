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

/// The only file of a folder.
///
/// # Errors
/// When there is none, or more than one.
pub fn only_file(folder: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(folder)?;
    let file = files.next().context("there is a file")??.path();
    ensure!(files.next().is_none(), "there are more files");
    Ok(file)
}
