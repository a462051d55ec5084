//! The machine as its only process finds it: nothing is mounted, no module is loaded, and there is no other program than `ip`.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where `cargo xtask test --kernels` puts the modules, which can be loaded in the order of their names.
const MODULES: &str = "/modules";
/// Ends the file name of the module that makes virtual cables.
const VETH: &str = "-veth.ko";
/// The variable that chooses checks, from the kernel's command line.
const CHECKS: &str = "checks";

/// Mounts what programs expect and loads the module that most checks need.
pub fn prepare() -> Result<()> {
    let places = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("bpf", "/sys/fs/bpf")];
    for (kind, place) in places {
        fs::create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("mounting {place}"))?;
    }
    modules()?.iter().filter(|path| path.to_string_lossy().ends_with(VETH)).try_for_each(|path| load(path))
}

/// Loads all other modules. Their interfaces send nothing by themselves.
pub fn load_modules() -> Result<String> {
    for scope in ["default", "all"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
    }
    let modules = modules()?;
    modules.iter().try_for_each(|path| load(path))?;
    let names: Vec<_> =
        modules.iter().filter_map(|path| path.file_stem()?.to_str()?.split('-').nth(1)).collect();
    Ok(names.join(", "))
}

fn modules() -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(MODULES)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Loads a module, unless it is loaded.
fn load(path: &Path) -> Result<()> {
    let name = path.display();
    match finit_module(File::open(path)?, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("loading {name}")),
    }
}

/// Whether a check of this name shall run.
pub fn is_chosen(check: &str) -> bool {
    env::var(CHECKS).map_or(true, |chosen| chosen.split(',').any(|begin| check.starts_with(begin)))
}

/// The kernel's name for itself.
pub fn kernel_release() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().to_owned())
}

/// Restarts the machine; the emulator ends instead.
pub fn restart() -> Result<()> {
    reboot(RebootCommand::Restart).context("restarting")
}
