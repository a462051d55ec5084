//! Programs of Debian packages that are unpacked below `target/tools` and not installed.

use std::fs;

use anyhow::{Context, Result};

use super::{Purpose, apt};
use crate::{command, workspace};

/// A package of which only some programs are wanted.
pub struct Unpacked {
    /// Name in Debian 12.
    pub package: &'static str,
    /// What it is needed for.
    pub reason: &'static str,
    purpose: Purpose,
    programs: &'static [&'static str],
}

const UNPACKED: &[Unpacked] = &[Unpacked {
    // Installed, it would start a service and enable it for every boot.
    package: "prometheus",
    reason: "tests check the metrics with promtool and a real Prometheus; no service is installed",
    purpose: Purpose::Test,
    programs: &["prometheus", "promtool"],
}];

/// Flow agents that the bench compares with, where they can be had. Installed, they would start services.
pub const FLOW_AGENTS: &[Unpacked] = &[
    Unpacked {
        package: "softflowd",
        reason: "the bench listens with it; no service is installed",
        purpose: Purpose::Test,
        programs: &["softflowd", "softflowctl"],
    },
    Unpacked {
        package: "pmacct",
        reason: "the bench listens with it; no service is installed",
        purpose: Purpose::Test,
        programs: &["pmacctd"],
    },
];

/// Packages that the purpose needs and whose programs are not all there.
pub fn missing(purpose: Purpose) -> Vec<&'static Unpacked> {
    UNPACKED.iter().filter(|it| purpose.includes(it.purpose)).filter(|it| it.is_missing()).collect()
}

impl Unpacked {
    /// Whether a program is not found.
    pub fn is_missing(&self) -> bool {
        self.programs.iter().any(|program| workspace::find_program(program).is_none())
    }

    /// Downloads the package and takes the programs out of it.
    pub fn install(&self) -> Result<()> {
        let folder = workspace::tools().join("packages").join(self.package);
        // An interrupted run may have left a piece of an earlier download.
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
