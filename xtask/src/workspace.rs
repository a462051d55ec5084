//! Paths in the repository.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// The folder into which `setup` installs, so that nothing goes into the user's home.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// A program that `setup` installed.
pub fn tool(name: &str) -> PathBuf {
    tools().join("bin").join(name)
}

/// The Python environment in which `setup` installs packages.
pub fn tool_environment() -> PathBuf {
    tools().join("python")
}

/// Which build of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The build for users.
    Release,
    /// The build that the tests run. It contains the same kernel program.
    Tested,
}

/// The path of a program of the workspace, as last built.
pub fn program(name: &str, profile: Profile) -> PathBuf {
    let folder = match profile {
        Profile::Release => "target/release",
        Profile::Tested => "target/debug",
    };
    root().join(folder).join(name)
}

/// Cargo of the pinned toolchain, at the root.
pub fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(root()).args(arguments).env("CARGO_TARGET_DIR", root().join("target"));
    // Cargo describes xtask itself in these variables. Build scripts that watch them (ring's) would run
    // again, and cargo would rebuild everything that depends on them, whenever another caller runs cargo.
    for (name, _) in env::vars_os() {
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Folders to search for programs: the project's own first, and those of the system administrator, which are
/// missing in a user's `PATH` on Debian.
pub fn search_path() -> Vec<PathBuf> {
    let mut folders = vec![tools().join("bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// [`search_path`] as the value of `PATH`.
pub fn search_path_value() -> Result<OsString, env::JoinPathsError> {
    env::join_paths(search_path())
}

/// The path of a program, if it is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}
