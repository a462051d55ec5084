//! The one table of system packages, each with the purpose that needs it.

use std::path::Path;

use super::{Purpose, python};
use crate::workspace;

/// A Debian package, and how to tell that its content is present, whatever installed it.
pub struct Package {
    /// Name in Debian 12.
    pub name: &'static str,
    /// Why it is needed.
    pub reason: &'static str,
    need: Need,
    probe: Probe,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Needed once, to build bpf-linker.
    Linker,
    /// Needed for a purpose and for every purpose that includes it.
    For(Purpose),
}

enum Probe {
    /// A program of this name is present.
    Program(&'static str),
    /// This file exists.
    File(&'static str),
    /// Python can make environments.
    PythonEnvironments,
}

const LLVM: &str = "bpf-linker is linked with it";

const PACKAGES: &[Package] = &[
    Package {
        name: "llvm-22-dev",
        reason: LLVM,
        need: Need::Linker,
        probe: Probe::File("/usr/lib/llvm-22/include/llvm-c/Core.h"),
    },
    Package {
        name: "libpolly-22-dev",
        reason: LLVM,
        need: Need::Linker,
        probe: Probe::File("/usr/lib/llvm-22/lib/libPolly.a"),
    },
    Package {
        name: "libzstd-dev",
        reason: LLVM,
        need: Need::Linker,
        probe: Probe::File("/usr/include/zstd.h"),
    },
    Package {
        name: "zlib1g-dev",
        reason: LLVM,
        need: Need::Linker,
        probe: Probe::File("/usr/include/zlib.h"),
    },
    Package {
        name: "iproute2",
        reason: "tests set up private networks",
        need: Need::For(Purpose::Test),
        probe: Probe::Program("ip"),
    },
    Package {
        // Essential in Debian: it can be missing on other systems only.
        name: "util-linux",
        reason: "tests run the agent with few capabilities",
        need: Need::For(Purpose::Test),
        probe: Probe::Program("setpriv"),
    },
    Package {
        name: "tshark",
        reason: "tests compare records with those of an independent parser",
        need: Need::For(Purpose::Test),
        probe: Probe::Program("tshark"),
    },
    Package {
        name: "python3-venv",
        reason: "tests read files with databases that are Python packages",
        need: Need::For(Purpose::Test),
        probe: Probe::PythonEnvironments,
    },
    Package {
        name: "curl",
        reason: "tests ask the agent's web server over TLS",
        need: Need::For(Purpose::Test),
        probe: Probe::Program("curl"),
    },
    Package {
        name: "chromium",
        reason: "tests look at the page as people do",
        need: Need::For(Purpose::Test),
        probe: Probe::Program("chromium"),
    },
    Package {
        name: "man-db",
        reason: "tests read the manual with it",
        need: Need::For(Purpose::Test),
        probe: Probe::Program("man"),
    },
    Package {
        name: "tmux",
        reason: "tests type into the live view",
        need: Need::For(Purpose::Test),
        probe: Probe::Program("tmux"),
    },
    Package {
        name: "qemu-system-x86",
        reason: "other kernels run in emulated machines",
        need: Need::For(Purpose::Kernels),
        probe: Probe::Program("qemu-system-x86_64"),
    },
    Package {
        name: "xz-utils",
        reason: "newer kernels come with compressed modules",
        need: Need::For(Purpose::Kernels),
        probe: Probe::Program("xz"),
    },
    Package {
        name: "iproute2",
        reason: "emulated machines set up networks",
        need: Need::For(Purpose::Kernels),
        probe: Probe::Program("ip"),
    },
];

impl Package {
    fn is_missing(&self) -> bool {
        match self.probe {
            Probe::Program(name) => workspace::find_program(name).is_none(),
            Probe::File(path) => !Path::new(path).exists(),
            Probe::PythonEnvironments => !python::is_complete(),
        }
    }
}

/// Packages for the purpose that are not present. `linker` says whether `setup` has to build bpf-linker.
pub fn missing(purpose: Purpose, linker: bool) -> Vec<&'static Package> {
    let needed = |package: &&Package| match package.need {
        Need::Linker => linker,
        Need::For(other) => purpose.includes(other),
    };
    PACKAGES.iter().filter(needed).filter(|package| package.is_missing()).collect()
}
