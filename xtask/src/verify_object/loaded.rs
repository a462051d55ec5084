//! Asks the kernel about the programs that the agent's own loader loads.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{command, test, workspace};

/// What the kernel says.
pub struct Loaded {
    /// SHA-256 of the object that was loaded, in hexadecimal.
    pub object_digest: String,
    /// Tags of the programs in the kernel by name, in hexadecimal.
    pub tags: BTreeMap<String, String>,
}

/// Loads the programs with the agent's loader, asks and unloads.
pub fn ask() -> Result<Loaded> {
    let mut ask = workspace::cargo(["run", "--quiet", "--release", "--package", "loaded"]);
    ask.stderr(Stdio::inherit());
    test::run_as_root(&mut ask)?;
    command::announce(&ask);
    let output = ask.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the program cannot be loaded: {}", output.status);
    }
    let text = String::from_utf8(output.stdout).context("the answer is not text")?;
    let mut lines = text.lines();
    let object_digest = lines.next().context("no digest")?.to_owned();
    let tag = |line: &str| line.split_once(' ').map(|(name, tag)| (name.to_owned(), tag.to_owned()));
    let tags =
        lines.map(tag).collect::<Option<_>>().with_context(|| format!("not names and tags: {text:?}"))?;
    Ok(Loaded { object_digest, tags })
}
