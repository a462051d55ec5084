//! `cargo xtask bench`: measures on this machine what the program costs.

use std::ffi::OsString;

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::{command, test, workspace};

/// Builds and runs the bench.
pub fn run(arguments: &[OsString]) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    if listens(arguments) {
        setup::flow_agents::offer();
    }
    let mut bench = workspace::cargo(["run", "--release", "--package", "bench", "--"]);
    bench.args(arguments).env("PATH", workspace::search_path_value()?);
    test::run_as_root(&mut bench)?;
    command::run(&mut bench)
}

/// Whether the bench compares with other flow agents: the whole bench does, and so does the part of that
/// name.
fn listens(arguments: &[OsString]) -> bool {
    let has = |word: &str| arguments.iter().any(|argument| argument.to_string_lossy().contains(word));
    has("live") || !["--quick", "--only", "--curve", "--help", "-h"].into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::listens;

    #[test]
    fn agents_are_installed_only_for_what_listens_with_them() {
        let listens = |words: &str| listens(&words.split_whitespace().map(Into::into).collect::<Vec<_>>());
        assert!(["", "--live", "--runs 3", "--only ipv4,live"].into_iter().all(listens));
        assert!(!["--quick", "--curve", "--only ipv4", "--help"].into_iter().any(listens));
    }
}
