//! Asks the kernel about the program that the agent's own loader loads.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{command, test, workspace};

/// What the kernel says.
pub struct Loaded {
    /// SHA-256 of the object that was loaded, in hexadecimal.
    pub object_digest: String,
    /// Tag of the program in the kernel, in hexadecimal.
    pub tag: String,
}

/// Loads the program with the agent's loader, asks and unloads.
pub fn ask() -> Result<Loaded> {
    let mut ask = workspace::cargo(["run", "--quiet", "--release", "--package", "minimizer", "--example"]);
    ask.arg("loaded").stderr(Stdio::inherit());
    test::run_as_root(&mut ask)?;
    command::announce(&ask);
    let output = ask.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the program cannot be loaded: {}", output.status);
    }
    let text = String::from_utf8(output.stdout).context("the answer is not text")?;
    let mut words = text.split_whitespace().map(str::to_owned);
    let (Some(object_digest), Some(tag), None) = (words.next(), words.next(), words.next()) else {
        bail!("not a digest and a tag: {text:?}");
    };
    Ok(Loaded { object_digest, tag })
}
