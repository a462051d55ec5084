//! Shell completions and the manual page, both from the definition of the command line.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;

/// Writes the completion script of `shell`.
///
/// # Errors
/// When `out` cannot be written.
pub fn completions(mut command: Command, shell: Shell, out: &mut impl Write) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // The generator panics when a write fails; writing to a vector never does.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    out.write_all(&script)
}

/// Writes the manual page in roff: the command, then a section for each verb.
///
/// # Errors
/// When `out` cannot be written.
pub fn man(mut command: Command, out: &mut impl Write) -> io::Result<()> {
    command.build();
    clap_mangen::Man::new(command.clone()).render(out)?;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        section(command.get_name(), verb, out)?;
    }
    Ok(())
}

/// Writes the section of a verb, or of each of its subcommands.
fn section(path: &str, verb: &Command, out: &mut impl Write) -> io::Result<()> {
    let path = format!("{path} {}", verb.get_name());
    if verb.has_subcommands() {
        let mut verbs = verb.get_subcommands().filter(|verb| verb.get_name() != "help");
        return verbs.try_for_each(|verb| section(&path, verb, out));
    }
    writeln!(out, ".SH \"{}\"", path.to_uppercase())?;
    let page = clap_mangen::Man::new(verb.clone());
    page.render_description_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_options_section(out)
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};
    use clap_complete::Shell;

    use super::{completions, man};

    fn command() -> Command {
        let listen = Arg::new("listen").long("listen").help("Where to serve");
        Command::new("minimizer").subcommand(Command::new("run").about("Watches").arg(listen))
    }

    #[test]
    fn every_shell_completes_verbs_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            completions(command(), shell, &mut script).expect("a vector takes everything");
            let script = String::from_utf8(script).expect("scripts are UTF-8");
            assert!(script.contains("run") && script.contains("listen"), "{shell}: {script}");
        }
    }

    #[test]
    fn the_manual_page_has_the_options_of_every_verb() {
        let mut page = Vec::new();
        man(command(), &mut page).expect("a vector takes everything");
        let page = String::from_utf8(page).expect("roff is UTF-8");
        assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{page}");
        for part in ["MINIMIZER RUN", "\\-\\-listen", "Where to serve"] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
    }
}
