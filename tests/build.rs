//! Finds out what the tests need and this machine lacks, so that a test which cannot run is ignored and does not pass.
//!
//! Each need is a cfg: `without_kernel`, and one for each row of [`PROGRAMS`]. `cargo xtask test` runs ignored tests,
//! too: there a need that is not met is a failure. A need is looked up when the tests are built, since a test program
//! cannot ignore a test at run time.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Programs of others that tests run, by the word in the cfg.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("chromium", &["chromium"]),
    ("curl", &["curl"]),
    ("man", &["man"]),
    ("nfdump", &["nfcapd", "nfdump"]),
    ("pmacct", &["nfacctd"]),
    ("prometheus", &["prometheus", "promtool"]),
    ("tmux", &["tmux"]),
    ("tshark", &["tshark", "mergecap"]),
];
/// Capabilities to load programs and to make network namespaces, by their bits (capabilities(7)): `CAP_SYS_ADMIN` and
/// `CAP_NET_ADMIN`.
const CAPABILITIES: u64 = 1 << 21 | 1 << 12;
/// Variables that change when another user builds.
const USER: [&str; 3] = ["USER", "LOGNAME", "HOME"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in USER.iter().chain(&["BPF_LINKER"]) {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let tools = package.parent().expect("the package lies in the repository").join("target/tools");
    let linker = env::var_os("BPF_LINKER").map_or_else(|| tools.join("bin/bpf-linker"), PathBuf::from);
    let has_kernel =
        is_there(&linker) && has_privilege() && ["ip", "setpriv"].iter().all(|it| is_found(it, &tools));
    say("kernel", has_kernel);
    say("python", is_there(&tools.join("python/bin/python3")));
    for (word, programs) in PROGRAMS {
        say(word, programs.iter().all(|program| is_found(program, &tools)));
    }
}

fn say(word: &str, is_met: bool) {
    println!("cargo::rustc-check-cfg=cfg(without_{word})");
    if !is_met {
        println!("cargo::rustc-cfg=without_{word}");
    }
}

/// Whether this process is root and has not been deprived of what loads programs, as in a container.
fn has_privilege() -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or_default();
    is_root && effective & CAPABILITIES == CAPABILITIES
}

/// Whether a program is among the installed tools or in the `PATH`.
fn is_found(program: &str, tools: &Path) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [tools.join("bin")].into_iter().chain(env::split_paths(&path));
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    // When it is missing, cargo looks again as soon as a package has been installed.
    let watched = found.clone().unwrap_or_else(|| PathBuf::from("/usr/bin"));
    println!("cargo::rerun-if-changed={}", watched.display());
    found.is_some()
}

/// Whether a file of the setup exists. While it does not, cargo runs this script at every build.
fn is_there(file: &Path) -> bool {
    println!("cargo::rerun-if-changed={}", file.display());
    file.is_file()
}
