//! The machine as its only process finds it: nothing is mounted, no module is loaded.

use std::fs::{self, File};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where `cargo xtask test --kernels` puts the module that makes virtual cables.
const VETH_MODULE: &str = "/veth.ko";

/// Mounts what programs expect and loads the only module that is needed.
pub fn prepare() -> Result<()> {
    let places = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("bpf", "/sys/fs/bpf")];
    for (kind, place) in places {
        fs::create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("mounting {place}"))?;
    }
    let module = File::open(VETH_MODULE).context(VETH_MODULE)?;
    finit_module(module, c"", 0).context("loading the module")
}

/// The kernel's name for itself.
pub fn kernel_release() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().to_owned())
}

/// Restarts the machine; the emulator ends instead.
pub fn restart() -> Result<()> {
    reboot(RebootCommand::Restart).context("restarting")
}
