//! Programs of Debian packages that `setup` unpacks below `target/tools` and does not install.

use std::fs;

use anyhow::{Context, Result};

use super::{Purpose, apt};
use crate::{command, workspace};

/// A package of which `setup` takes some programs only.
pub struct Unpacked {
    /// Name in Debian 12.
    pub package: &'static str,
    /// Why it is needed.
    pub reason: &'static str,
    purpose: Purpose,
    programs: &'static [&'static str],
    /// Packages with the shared libraries of the programs.
    libraries: &'static [&'static str],
}

// If installed, each of these packages would start a service and enable it for every boot.
const PROMETHEUS: Unpacked = Unpacked {
    package: "prometheus",
    reason: "tests check the metrics with promtool and a real Prometheus; no service is installed",
    purpose: Purpose::Test,
    programs: &["prometheus", "promtool"],
    libraries: &[],
};
const NFDUMP: Unpacked = Unpacked {
    package: "nfdump",
    reason: "tests send IPFIX to nfcapd; no service is installed",
    purpose: Purpose::Test,
    programs: &["nfcapd", "nfdump"],
    libraries: &[],
};
const PMACCT: Unpacked = Unpacked {
    package: "pmacct",
    reason: "tests send IPFIX to nfacctd, and the bench listens with pmacctd; no service is installed",
    purpose: Purpose::Test,
    programs: &["nfacctd", "pmacctd"],
    libraries: &[
        "libjansson4",
        "libmariadb3",
        "libmaxminddb0",
        "libnetfilter-log1",
        "libpcap0.8",
        "libpq5",
        "librabbitmq4",
        "librdkafka1",
        "libsqlite3-0",
        "libzmq5",
    ],
};
const SOFTFLOWD: Unpacked = Unpacked {
    package: "softflowd",
    reason: "the bench listens with it; no service is installed",
    purpose: Purpose::Test,
    programs: &["softflowd", "softflowctl"],
    libraries: &["libpcap0.8"],
};

const UNPACKED: &[Unpacked] = &[PROMETHEUS, NFDUMP, PMACCT];

/// Flow agents for the bench's comparison, where the machine can get them.
pub const FLOW_AGENTS: &[Unpacked] = &[SOFTFLOWD, PMACCT];

/// Packages for the purpose whose programs are not all present.
pub fn missing(purpose: Purpose) -> Vec<&'static Unpacked> {
    UNPACKED.iter().filter(|it| purpose.includes(it.purpose)).filter(|it| it.is_missing()).collect()
}

impl Unpacked {
    /// Packages with libraries of the programs that are not installed.
    pub fn absent_libraries(&self) -> impl Iterator<Item = &'static str> {
        self.libraries.iter().copied().filter(|package| !apt::is_installed(package))
    }

    /// Whether a program is absent.
    pub fn is_missing(&self) -> bool {
        self.programs.iter().any(|program| workspace::find_program(program).is_none())
    }

    /// Downloads the package and extracts the programs.
    pub fn install(&self) -> Result<()> {
        let folder = workspace::tools().join("packages").join(self.package);
        // An interrupted run may have left part of an earlier download.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        apt::download(self.package, &folder)?;
        let file = fs::read_dir(&folder)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get left no package file in {}", folder.display()))?;
        let content = folder.join("content");
        let mut unpack = std::process::Command::new("dpkg-deb");
        command::run(unpack.arg("--extract").arg(&file).arg(&content))?;
        fs::create_dir_all(workspace::tools().join("bin"))?;
        for program in self.programs {
            let from = ["usr/bin", "usr/sbin"].map(|folder| content.join(folder).join(program));
            let from = from.iter().find(|path| path.is_file()).unwrap_or(&from[0]);
            fs::rename(from, workspace::tool(program))
                .with_context(|| format!("{} is not in package {}", from.display(), self.package))?;
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }
}
