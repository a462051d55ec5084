//! Asks the kernel about the programs that the agent's own loader loads.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::workspace::{self, Profile};

/// The kernel's answer.
pub struct Loaded {
    /// SHA-256 of the loaded object, in hexadecimal.
    pub object_digest: String,
    /// Tags of the programs in the kernel by name, in hexadecimal.
    pub tags: BTreeMap<String, String>,
}

/// Loads the programs with the loader of an agent, asks the kernel and unloads them.
pub fn ask(profile: Profile) -> Result<Loaded> {
    if profile == Profile::Release {
        command::run(&mut workspace::cargo(["build", "--quiet", "--release", "--package", "loaded"]))?;
    }
    let program = workspace::program("loaded", profile);
    let program = program.to_str().context("the path of the repository is not UTF-8")?;
    let mut ask =
        command::as_root(program).context("it loads kernel programs: run it as root, or install sudo")?;
    ask.stderr(Stdio::inherit());
    command::announce(&ask);
    let output = ask.output().context("cannot start it")?;
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
