//! Runs commands and shows each one before it starts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Prints the command, runs it and fails if the command fails.
pub fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| format!("cannot start `{}`", text(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", text(command));
    }
    Ok(())
}

/// Prints the command as a person would type it.
pub fn announce(command: &Command) {
    eprintln!("$ {}", text(command));
}

/// The command as a person would type it, with the variables that it sets.
pub fn text(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        // Both repeat what holds anyway and would hide the command.
        let noise = name == "PATH" || name == "CARGO_TARGET_DIR";
        let value = value.filter(|_| !noise)?;
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value.to_string_lossy())))
    });
    let program = command.get_program().to_string_lossy();
    let program = if program.ends_with("/cargo") { "cargo".into() } else { program };
    let arguments = command.get_args().map(|argument| quoted(&argument.to_string_lossy()));
    variables.chain([quoted(&program)]).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%~".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// A command that runs as root: directly, or through sudo. `None` if neither is possible.
pub fn as_root(program: &str) -> Option<Command> {
    if is_root() {
        return Some(Command::new(program));
    }
    let mut sudo = Command::new(workspace::find_program("sudo")?);
    sudo.arg(program);
    Some(sudo)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::text;

    #[test]
    fn a_printed_command_can_be_pasted() {
        let mut command = Command::new("echo");
        command.args(["a b", "it's", "--x=1", ""]).env("KEY", "v w");
        assert_eq!(text(&command), r"KEY='v w' echo 'a b' 'it'\''s' --x=1 ''");
    }
}
