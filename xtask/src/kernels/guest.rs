//! The programs that run in the machines, and their shared libraries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::{self, Profile};
use crate::{build, command};

/// The program of this system that the checks set up networks with.
const IP: &str = "ip";

/// What the machines get of this host.
pub struct Guest {
    /// The program that runs the checks.
    pub program: PathBuf,
    /// The program that sets up networks.
    pub ip: PathBuf,
    /// The libraries of both by their paths, which are the same on this host and in the machine.
    pub libraries: BTreeSet<PathBuf>,
}

/// Builds the program, from the same libraries as the tests of this host.
pub fn build() -> Result<Guest> {
    build::tested()?;
    let program = workspace::root().join("target/kernels/guest");
    // The machine keeps the program in memory: smaller is better.
    let mut strip = Command::new("strip");
    strip.arg("--strip-all").arg("-o").arg(&program).arg(workspace::program("guest", Profile::Tested));
    command::run(&mut strip)?;
    let ip = workspace::find_program(IP).with_context(|| format!("there is no program {IP}"))?;
    let mut libraries = libraries(&program)?;
    libraries.extend(self::libraries(&ip)?);
    Ok(Guest { libraries: libraries.into_iter().collect(), program, ip })
}

/// The paths of the libraries that the loader finds for a program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    ensure!(output.status.success(), "ldd: {}", String::from_utf8_lossy(&output.stderr));
    Ok(paths(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths in lines like `libm.so.6 => /lib/libm.so.6 (0x…)` and `/lib64/ld-linux.so.2 (0x…)`.
fn paths(listed: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listed.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn libraries_are_read_and_what_is_no_file_is_not() {
        let listed = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let paths: Vec<_> = paths(listed).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
