//! Debian's kernels, fetched once into `target/kernels`. The packages of this system do not change.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::modules;
use crate::{command, workspace};

/// Debian's suites and their kernels, oldest first.
pub const SUITES: [(&str, &str); 4] =
    [("bullseye", "5.10"), ("bookworm", "6.1"), ("trixie", "6.12"), ("sid", "the newest")];
/// The package that depends on a suite's newest kernel, in the build for virtual machines, which is the
/// smallest.
const METAPACKAGE: &str = "linux-image-cloud-amd64";
/// Prefixes of the names of the packages that make up a kernel.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that a machine can boot.
pub struct Image {
    /// The suite, by Debian's name.
    pub suite: &'static str,
    /// The kernel's name for itself.
    pub release: String,
    /// The folder with all files of the kernel.
    pub folder: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The folder with its modules, which can be loaded in the order of their names.
    pub modules: PathBuf,
}

/// The kernels of all suites, or of one. A kernel that an earlier run fetched comes from `target/kernels`.
pub fn all(only: Option<&str>) -> Result<Vec<Result<Image>>> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the machines are x86-64 machines");
    }
    let suites = SUITES.into_iter().filter(|(suite, _)| only.is_none_or(|only| only == *suite));
    let missing: Vec<_> = suites.clone().filter(|(suite, _)| Image::fetched(suite).is_err()).collect();
    if !missing.is_empty() {
        eprintln!("kernels: these will be downloaded into target/kernels, 30 to 50 MB each:");
        for (suite, version) in missing {
            eprintln!("  {METAPACKAGE} of Debian {suite:<10} Linux: {version}");
        }
    }
    Ok(suites.map(|(suite, _)| image(suite)).collect())
}

fn image(suite: &'static str) -> Result<Image> {
    if let Ok(image) = Image::fetched(suite) {
        return Ok(image);
    }
    let folder = folder(suite).with_extension("partial");
    // An interrupted run may have left this folder.
    let _ = fs::remove_dir_all(&folder);
    fetch(suite, &folder).with_context(|| format!("the kernel of Debian {suite}"))?;
    // It may hold what an older version of this program made of the packages.
    let _ = fs::remove_dir_all(self::folder(suite));
    fs::rename(&folder, self::folder(suite))?;
    Image::fetched(suite)
}

impl Image {
    fn fetched(suite: &'static str) -> Result<Self> {
        let folder = folder(suite);
        let release = fs::read_to_string(folder.join("release"))?;
        let (kernel, modules) = (folder.join("vmlinuz"), folder.join("modules"));
        ensure!(modules.is_dir(), "{} is from an older version of this program", folder.display());
        Ok(Self { suite, release, folder, kernel, modules })
    }
}

fn folder(suite: &str) -> PathBuf {
    workspace::root().join("target/kernels").join(suite)
}

/// Puts what [`Image::fetched`] finds into `folder`, and nothing else.
fn fetch(suite: &str, folder: &Path) -> Result<()> {
    let apt = Apt::new(suite, folder.join("apt"))?;
    command::run(apt.command("apt-get").args(["update", "--quiet", "--error-on=any"]))?;
    let packages = apt.kernel_packages()?;
    let (downloads, content) = (folder.join("packages"), folder.join("content"));
    fs::create_dir_all(&downloads)?;
    let mut download = apt.command("apt-get");
    command::run(download.args(["download", "--quiet"]).args(packages).current_dir(&downloads))?;
    for package in fs::read_dir(&downloads)? {
        let mut unpack = Command::new("dpkg-deb");
        command::run(unpack.arg("--extract").arg(package?.path()).arg(&content))?;
    }

    let kernel = find(&content, &|name| name.starts_with("vmlinuz"))?.context("there is no vmlinuz")?;
    let module = find(&content, &|name| name.starts_with("veth.ko"))?.context("there is no veth.ko")?;
    let release = module.components().skip_while(|part| part.as_os_str() != "modules").nth(1);
    let release = release.context("the module lies in no kernel's folder")?.as_os_str().to_owned();
    fs::rename(kernel, folder.join("vmlinuz"))?;
    modules::collect(&content, &folder.join("modules"))?;
    for leftover in [folder.join("apt"), downloads, content] {
        fs::remove_dir_all(leftover)?;
    }
    fs::write(folder.join("release"), release.as_encoded_bytes())?;
    Ok(())
}

/// The first file below `folder` whose name matches.
fn find(folder: &Path, matches: &impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A kernel package links to folders where its sources may lie.
        let found = match path.is_dir() && !path.is_symlink() {
            true => find(&path, matches)?,
            false => path.file_name().and_then(OsStr::to_str).is_some_and(matches).then_some(path),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Debian's package manager with the package lists of one suite. It does not know the packages of this
/// system.
struct Apt {
    configuration: PathBuf,
}

impl Apt {
    fn new(suite: &str, root: PathBuf) -> Result<Self> {
        if workspace::find_program("apt-get").is_none() {
            bail!("there is no apt-get, with which Debian's kernels are fetched");
        }
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder))?;
        }
        // Descriptions and graphical catalogues would be most of the download.
        let source =
            format!("deb [arch=amd64 target=Packages lang=none signed-by={KEYS}] {MIRROR} {suite} main\n");
        fs::write(root.join("sources.list"), source)?;
        fs::write(root.join("status"), "")?;
        let root = root.to_str().context("the repository's path is not UTF-8")?;
        let options = [
            format!("Dir::State \"{root}/state\";"),
            format!("Dir::State::status \"{root}/status\";"),
            format!("Dir::Cache \"{root}/cache\";"),
            format!("Dir::Etc::sourcelist \"{root}/sources.list\";"),
            "Dir::Etc::sourceparts \"/dev/null\";".to_owned(),
            "APT::Architecture \"amd64\";".to_owned(),
            // With root as the download user, apt needs no folder that another user can write.
            "APT::Sandbox::User \"root\";".to_owned(),
        ];
        let configuration = Path::new(root).join("apt.conf");
        fs::write(&configuration, options.join("\n"))?;
        Ok(Self { configuration })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }

    /// Names of the packages that hold the suite's kernel and its modules.
    fn kernel_packages(&self) -> Result<Vec<String>> {
        let mut depends = self.command("apt-cache");
        depends.args(["depends", "--recurse", "--important", METAPACKAGE]).stderr(Stdio::inherit());
        let output = depends.output().context("cannot start apt-cache")?;
        let packages: Vec<_> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|name| *name != METAPACKAGE && PARTS.iter().any(|part| name.starts_with(part)))
            .map(str::to_owned)
            .collect();
        if packages.is_empty() {
            bail!("{METAPACKAGE} depends on no kernel");
        }
        Ok(packages)
    }
}
